"""The table of verbs, and how every error reads."""

import re
import subprocess
import sys

import pytest

VERBS = ("fit", "validate", "test", "check", "predict", "export", "bench")
VERBS += ("compare", "matrix", "summary", "pckh", "configs", "doctor", "dashboard")


def test_help_names_every_verb(bnnlight):
    code, out, _ = bnnlight("--help")
    assert code == 0
    assert [verb for verb in VERBS if re.search(rf"^  {verb} ", out, re.M)] == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example_in_its_help_and_a_row_in_the_docs(bnnlight, configs, verb):
    code, out, _ = bnnlight(verb, "--help")
    assert code == 0
    text = " ".join(out.split())
    assert re.search(rf"xamples?: bnnlight {verb} \S", text)
    rows = [row for row in (configs.parent / "docs/verbs.md").read_text().splitlines() if row.startswith("| `bnnlight")]
    assert any(verb in row for row in rows)


def test_version(bnnlight):
    code, out, _ = bnnlight("--version")
    assert code == 0
    assert re.fullmatch(r"bnnlight \d+\.\d+\.\d+\n", out)


def test_no_verb_shows_help_and_is_a_usage_error(bnnlight):
    code, out, _ = bnnlight()
    assert code == 2
    assert "usage:" in out


def test_wrong_verb_is_answered_with_the_nearest(bnnlight_error):
    code, line = bnnlight_error("fti")
    assert code == 2
    assert "'fti'" in line
    assert "did you mean fit?" in line


def test_help_waits_for_no_library():
    code = f"""
import sys
from bnnlight.cli import main
for words in [[]] + [[verb] for verb in {VERBS}]:
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0
    large = {{"torch", "lightning", "wandb", "wandb_workspaces", "plotly", "matplotlib", "scipy"}}
    print("\\0", words, {{name.split(".")[0] for name in sys.modules}} & large)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ends = [line for line in done.stdout.splitlines() if line.startswith("\0")]
    assert ends == [f"\0 {words} set()" for words in [[], *([verb] for verb in VERBS)]]
    assert done.stdout.count("usage: bnnlight") == len(ends)


def test_a_runs_modules_are_imported_without_looking_for_garbage():
    code = """
import gc
import sys
from bnnlight.cli import main
seen = []
gc.callbacks.append(lambda phase, info: seen.append("lightning" in sys.modules and "bnnlight.nn" not in sys.modules))
try:
    main(["fit", "--no_resume", "--help"])
except SystemExit:
    pass
print(any(seen), len(seen) > 0, gc.isenabled())
names = list(sys.modules)
print(names.index("wandb.sdk.launch") < names.index("torch"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # wandb first: behind torch, its classes take a second and a half
    assert done.stdout.splitlines()[-2:] == ["False True True", "True"]


def test_module_and_exit_code():
    done = subprocess.run([sys.executable, "-m", "bnnlight", "nope"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no verb named 'nope'" in done.stderr


# what is typed → what the line must contain
TYPING_ERRORS = {
    "--model.backbone.widht=1": ("model.backbone", "'widht'", "did you mean width?"),
    "--model.backbone.latent.rnk=3": ("model.backbone.latent", "'rnk'", "did you mean rank?"),
    "--model.backbone=ResNet81": ("'ResNet81'", "did you mean bnnlight.backbones.ResNet18?"),
    "--model.backbone=bnnlight.backbones.ResNte": ("'ResNte'", "did you mean bnnlight.backbones.ResNet?"),
    "--model.backbone.latent=Tuker": ("'Tuker'", "did you mean bnnlight.nn.Tucker?"),
    "--model.backbone.scale=chanel": ("'chanel'", "did you mean channel?"),
    "--model.backbone.latent.start=svd": ("model.backbone.latent.start", "'svd'", "hosvd, identity"),
    "--model.optimizer.lr=fast": ("model.optimizer.lr", "'fast'", "float"),
    "--data.batch_sise=3": ("data", "'batch_sise'", "did you mean batch_size?"),
    "--data.batch_size=ten": ("data.batch_size", "'ten'", "int"),
    "--trainer.max_epoch=3": ("trainer.max_epoch", "did you mean max_epochs?"),
    "--flip_rates.intervall=3": ("intervall", "interval"),
    "--factor_ranks.intervall=3": ("intervall", "interval"),
    "--activation=3": ("'--activation=3'", "did you mean activations?"),
    "--alphas.interval=0": ("interval is 0", "at least 1"),
}


@pytest.mark.parametrize("option", TYPING_ERRORS)
def test_typing_error_on_the_command_line(bnnlight_error, configs, tmp_path, option):
    code, line = bnnlight_error("fit", "--config", configs / "quickstart.yaml", option)
    assert code == 2
    for part in TYPING_ERRORS[option]:
        assert part in line, line
    assert list(tmp_path.iterdir()) == []


CONFIG_ERRORS = {
    ("width: 0.5", "widht: 0.5"): ("'widht'", "did you mean width?"),
    ("bnnlight.nn.Tucker", "bnnlight.nn.Tuker"): ("'Tuker'", "did you mean bnnlight.nn.Tucker?"),
    ("bnnlight.tasks.ClassificationTask", "bnnlight.tasks.ClasificationTask"): (
        "'ClasificationTask'",
        "did you mean bnnlight.tasks.ClassificationTask?",
    ),
    ("model:\n", "modle:\n"): ("modle", "did you mean model?"),
    ("max_epochs", "max_epoch"): ("max_epoch", "did you mean max_epochs?"),
    ("rank: 1.0", "rank: 2.0"): ("stages.0.0.unit1.conv", "rank 2.0", "output channels", "(0, 1]"),
    ("rank: 1.0", "rank: 0"): ("stages.0.0.unit1.conv", "rank 0", "output channels", "1..32"),
    ("rank: 1.0", "rank: -3"): ("stages.0.0.unit1.conv", "rank -3", "output channels", "1..32"),
    ("rank: 1.0", "rank: [8, 8, 4, 3]"): ("stages.0.0.unit1.conv", "rank 4", "kernel height", "1..3"),
    ("seed_everything: 0\n", "seed_everything: [0\n"): ("YAML",),
}


@pytest.mark.parametrize("change", CONFIG_ERRORS, ids=lambda change: change[1].strip())
def test_error_in_a_config_file(bnnlight_error, configs, tmp_path, change):
    text = (configs / "quickstart.yaml").read_text()
    assert change[0] in text
    file = tmp_path / "changed.yaml"
    file.write_text(text.replace(*change))
    code, line = bnnlight_error("fit", "--config", file)
    assert code == 2
    for part in CONFIG_ERRORS[change]:
        assert part in line, line
    assert list(tmp_path.iterdir()) == [file]


def test_missing_config_file(bnnlight_error):
    code, line = bnnlight_error("fit", "--config", "nope.yaml")
    assert code == 2
    assert "nope.yaml" in line


def test_no_config_at_all(bnnlight_error):
    code, line = bnnlight_error("fit")
    assert code == 2
    assert "--config" in line


def test_debug_shows_where(bnnlight, configs):
    code, _, err = bnnlight("fit", "--config", configs / "quickstart.yaml", "--data.batch_size=ten", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("bnnlight fit: error:")


def test_a_reader_that_has_read_enough_is_no_error():
    """As ``bnnlight configs | head -1``; the first line is read, and the pipe closed, before the rest is written."""
    command = [sys.executable, "-c", "import sys; from bnnlight.cli import main; sys.exit(main())", "configs"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started.stdout.close()
    assert started.stderr.read() == ""
    assert started.wait() == 1


def test_another_pipe_that_breaks_is_an_error(bnnlight_error, monkeypatch):
    def broken(args):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("bnnlight.cli._load", lambda verb: broken)
    code, line = bnnlight_error("configs")
    assert code == 1 and "Broken pipe" in line
