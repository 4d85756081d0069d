"""What is told of a command line before torch is imported, beside what is told after it."""

import importlib
import inspect
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bnnlight import cli
from bnnlight.console.shipped_configs import shipped_configs
from bnnlight.experiment.config.early import answer as early
from bnnlight.experiment.config.early.help_page import kept_page
from bnnlight.experiment.config.early.signatures import signature

pytestmark = pytest.mark.skipif(
    kept_page("fit") is None, reason="the kept help is of other versions of Lightning and jsonargparse"
)

Q = ("--config", "quickstart")
MISTAKES = [
    ("fit",),
    ("fit", "--config", "qickstart"),
    ("fit", *Q, "--fooo=3"),
    ("fit", *Q, "--activation", "3"),
    ("fit", *Q, "words"),
    ("fit", *Q, "--trainer.max_epoch=3"),
    ("fit", *Q, "--trainer.max_epochs", "many"),
    ("fit", *Q, "--trainer.max_epochs=-3"),
    ("fit", *Q, "--flip_rates.interval=often"),
    ("fit", *Q, "--flip_rates.interval=0"),
    ("fit", *Q, "--test_after_fit=maybe"),
    ("fit", *Q, "--model.backbone.widht=1"),
    ("fit", *Q, "--model.init_args.backbone.init_args.widht=1"),
    ("fit", *Q, "--model.backbone.width=wide"),
    ("fit", *Q, "--model.backbone.latent.rnk=3"),
    ("fit", *Q, "--model.backbone=bnnlight.backbones.ResNte"),
    ("fit", *Q, "--model.backbone.scale=chanel"),
    ("fit", *Q, "--model.backbone.latent.start=svd"),
    ("fit", *Q, "--data.batch_size=ten"),
    ("fit", *Q, "--data=bnnlight.data.ImageFolderDataModule", "--data.rot=x"),
    ("fit", *Q, "--non_finite.action=go"),
    ("fit", *Q, "--ckpt_path=nope.ckpt"),
    ("test", *Q, "--ckpt_path", "nope.ckpt"),
    ("validate", *Q),
    ("summary", *Q, "--image_size=big"),
    ("check", "--fooo"),
]
# where less would do for jsonargparse, the word that is told besides
BETTER = {
    ("fit", *Q, "--num_threads=0"): "num_threads is 0: give 1 or more",
    ("fit", *Q, "--run_dir"): "no value follows --run_dir",
    ("fit", "quickstart"): "'quickstart' does not belong to any option: write --config quickstart",
    ("fit", *Q, "--flip_rates.intervall=3"): "no option '--flip_rates.intervall=3': did you mean interval?",
    ("summary", *Q, "--jsn"): "no option '--jsn': did you mean json?",
}
CHANGED = {
    ("width: 0.5", "widht: 0.5"): "model.backbone: bnnlight.backbones.ResNet has no option 'widht'",
    ("max_epochs", "max_epoch"): "trainer has no option 'max_epoch': did you mean max_epochs?",
    ("max_epochs: 20", "max_epochs: many"): "trainer.max_epochs: 'many' is not of type int",
    ("batch_size: 64", "batch_size: ten"): "data.batch_size: 'ten' is not of type int",
    (
        "scale: channel",
        "scale: chanel",
    ): "model.backbone.scale: 'chanel' is not one of none, analytic, channel, spatial",
    ("batch_size: 64", "batch_size: 0"): "data.batch_size is 0: give 1 or more",
}
FINE = [
    ("fit", *Q, "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/acc1", "--resume"),
    ("fit", *Q, "--model.backbone=bnnlight.backbones.ResNet18", "--model.backbone.width=0.5"),
    ("fit", *Q, '--model.optimizer={"class_path": "bnnlight.optim.SOAP", "init_args": {"lr": 0.003}}'),
    ("fit", *Q, "--trainer.logger=false", "--trainer.logger.save_dir=x", "--trainer.devices=auto"),
    ("fit", *Q, "--data=my.own.Data", "--data.batch_size=10", "--data.anything=word"),
    ("fit", *Q, "--model.backbone.init_args.dict_kwargs.widht=1", "--trainer.max_epochs", "-1"),
    ("fit", *Q, "--trainer.max_epochs=-3", "--trainer.max_epochs=3"),
    ("fit", "--model=bnnlight.tasks.ClassificationTask", "--model.backbone=ResNet18", "--data", "DigitsDataModule"),
    ("fit", *Q, "--model.help=bnnlight.tasks.ClassificationTask", "--fooo"),
    ("fit", *Q, "--model.scheduler=null", "--model.warmup=.5", "--seed_everything=true"),
    ("fit", "-cquickstart.yaml"),
    ("fit", *Q, "--compile", "--compile.backend=eager"),
    ("fit", *Q, "--compile"),
]


def told(args):
    """What is told at once; None where nothing is."""
    try:
        assert not early.answer(args[0], args[1:])
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("args", MISTAKES, ids=" ".join)
def test_the_same_is_told_as_by_the_long_way(args, monkeypatch, bnnlight_error):
    line = told(args)
    monkeypatch.setattr(early, "answer", lambda *_: False)
    code, long = bnnlight_error(*args)
    assert (code, long) == (2, f"bnnlight {args[0]}: error: {line}")


@pytest.mark.parametrize("args", BETTER, ids=" ".join)
def test_more_is_told_than_by_the_long_way(args):
    assert told(args) == BETTER[args]


@pytest.mark.parametrize("change", CHANGED, ids=lambda change: change[1])
def test_of_a_config(change, tmp_path):
    text = shipped_configs()["quickstart"].read_text()
    assert change[0] in text
    (tmp_path / "changed.yaml").write_text(text.replace(*change))
    assert told(("fit", "--config", str(tmp_path / "changed.yaml"))).startswith(CHANGED[change])


@pytest.mark.parametrize("args", FINE, ids=" ".join)
def test_nothing_is_told_of_what_is_right_or_not_certain(args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").write_text(shipped_configs()["quickstart"].read_text())
    assert told(args) is None


def test_nothing_is_told_of_any_config_and_overlay_of_the_package():
    names = shipped_configs()
    whole = [name for name in names if "/" not in name]
    overlays = [name for name in names if name.startswith(("methods/", "optimizers/"))]
    assert len(whole) > 10 and len(overlays) > 20
    for name in whole:
        assert told(("fit", "--config", name)) is None, name
    for name, overlay in itertools.product(("quickstart", "hg_mpii"), overlays):
        line = told(("fit", "--config", name, "--config", overlay))
        # of classes alone
        is_wrong = name == "hg_mpii" and overlay in ("methods/mixup", "methods/cutmix", "methods/randaugment")
        assert (line is not None) == is_wrong, (name, overlay, line)


def test_nothing_is_told_of_a_command_that_the_documents_give():
    root = Path(cli.__file__).parents[1]
    pages = [root / "README.md", *(root / "docs").glob("*.md"), *shipped_configs().values()]
    texts = [re.sub(r"\\\n#?", " ", page.read_text(encoding="utf-8")) for page in pages]
    found = [
        line for text in texts for line in re.findall(r"bnnlight ((?:fit|check|summary) --config [^\n`#|]*)", text)
    ]
    asked = 0
    for line in found:
        try:
            words = shlex.split(line)
        except ValueError:  # half a quotation
            continue
        line = told(words)
        asked += line is None
        # configs that a page has written before are not there
        assert line is None or line.startswith("no such config: "), words
    assert asked > 50


def test_a_run_that_goes_on_needs_no_checkpoint_any_more(tmp_path):
    assert told(("fit", *Q, "--ckpt_path=gone.ckpt", "--run_dir", str(tmp_path), "--resume")) is None


def test_options_in_a_config_that_swaps_a_class_are_the_new_ones(tmp_path):
    overlay = {"model": {"init_args": {"backbone": {"class_path": "bnnlight.backbones.StackedHourglass"}}}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(overlay))
    args = ("fit", *Q, "--config", str(tmp_path / "a.yaml"))
    assert told((*args, "--model.backbone.features=8")) is None
    assert told((*args, "--model.backbone.blocks=[1]")).startswith("model.backbone: bnnlight.backbones.StackedHourgl")


def public():
    for part in ("nn", "backbones", "data", "tasks", "callbacks", "tracking", "optim"):
        module = importlib.import_module(f"bnnlight.{part}")
        for name in module.__all__:
            if inspect.isclass(getattr(module, name)) or inspect.isfunction(getattr(module, name)):
                yield f"bnnlight.{part}.{name}", getattr(module, name)


def test_options_of_classes_are_those_that_python_knows():
    known = 0
    for path, target in public():
        found = signature(path)
        if found is None:
            continue
        known += 1
        parameters = inspect.signature(target).parameters.values()
        named = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        assert set(named) <= set(found.options), path
        # one that hands **options on is given its parent's
        assert named == [*found.options] or any(p.kind is p.VAR_KEYWORD for p in parameters), path
    assert known > 60
    assert set(signature("bnnlight.backbones.ResNet18").options) == set(signature("bnnlight.backbones.ResNet").options)


def test_torch_is_not_imported_for_it():
    code = f"""
import sys
from bnnlight.cli import main
for words in {[list(map(str, args)) for args in [*MISTAKES, *BETTER, ("fit", "--help"), ("check", "-h")]]}:
    main(words)
print({{name.split(".")[0] for name in sys.modules}} & {{"torch", "lightning", "wandb", "matplotlib", "scipy"}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert done.stderr.count(": error: ") == len(MISTAKES) + len(BETTER)


def test_the_file_of_the_help_is_in_the_package():
    assert (Path(cli.__file__).parent / "experiment/config/early/help_page.json").is_file()
