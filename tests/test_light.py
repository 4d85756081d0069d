"""Where the package is installed without what trains: shipped models run, and every other verb says what it lacks."""

import json
import re
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
from fixtures.light import light
from PIL import Image

from bnnlight.console.missing import EXTRAS
from bnnlight.data.keypoints.people import draw_person
from bnnlight.deploy import Runtime

ROOT = Path(__file__).parents[1]
OTHERS = {
    **dict.fromkeys(("fit", "validate", "test", "summary", "check"), ()),
    "export": ("--ckpt_path", "best.ckpt", "--format", "packed"),
    "compare": ("run",),
    "matrix": ("plan.yaml",),
    "pckh": ("a.mat", "b.mat"),
    "oks": ("--annotations", "a.json", "--predictions", "b.json"),
    "dashboard": ("--project", "p"),
}


@pytest.mark.parametrize("name", ["cifar10", "lsp"])
def test_models_of_the_package_answer_as_they_do_in_torch(name, tmp_path):
    for seed in range(3):
        Image.fromarray(draw_person(0, seed).image).save(tmp_path / f"{seed}.png")
    done = light("predict", tmp_path, "--model", name, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    expected = Runtime(name).predict([Image.open(tmp_path / f"{seed}.png") for seed in range(3)])
    assert len(record) == 3
    for answer, other in zip(record, expected, strict=True):
        kind = "joints" if name == "lsp" else "classes"
        found = answer["people"][0] if name == "lsp" else answer
        for one, two in zip(found[kind], other[kind], strict=True):
            assert list(one) == list(two)
            texts = [value for value in one.values() if isinstance(value, str)]
            assert texts == [value for value in two.values() if isinstance(value, str)]
            numbers = [[v for v in entry.values() if not isinstance(v, str)] for entry in (one, two)]
            np.testing.assert_allclose(*numbers, rtol=1e-4, atol=1e-4)
        assert (tmp_path / "out" / answer["picture"]).is_file()


def test_a_shipped_model_is_timed_beside_its_twins(tmp_path):
    options = ("--model", "cifar10", "--num_threads", "1", "--num_pairs", "2")
    done = light("bench", *options, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["format"], record["twin_engine"]) == ("packed", "OpenVINO")
    [row] = record["threads"]
    assert all(row[name]["median_ms"] > 0 for name in ("model", "twin", "twin_int8"))
    assert record["twin_bytes"] > 2 * record["twin_int8_bytes"] > record["file_bytes"]
    done = light("bench", *options, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.endswith("run by OpenVINO, and on 8-bit integers.\n")


@pytest.mark.parametrize("verb", OTHERS)
def test_every_other_verb_says_in_one_line_what_to_install(verb, tmp_path):
    for word in OTHERS[verb]:
        if "." in word:
            (tmp_path / word).touch()
    done = light(verb, *OTHERS[verb], cwd=tmp_path)
    assert done.returncode == 2
    pattern = (
        rf"bnnlight {verb}: error: \w+ is needed here and is not installed; run: pip install 'bnnlight\[train\]'\n"
    )
    # a bar of progress leaves an empty line
    assert re.fullmatch(pattern, done.stderr.lstrip("\n")), done.stderr


def test_a_checkpoint_takes_what_trains(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "best.ckpt").touch()
    done = light("predict", tmp_path / "a.png", "--model", tmp_path / "best.ckpt", "--output", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.endswith("pip install 'bnnlight[train]'\n")
    assert not (tmp_path / "out").exists()


def test_configs_and_help_are_there_too(tmp_path):
    done = light("configs", "quickstart", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{ROOT / 'configs/quickstart.yaml'}\n")
    assert light("--help").returncode == 0


def test_a_wrong_option_is_told_without_lightning():
    done = light("predict", "a.png", "--model", "cifar10", "--outptu", "x")
    assert (done.returncode, done.stderr) == (
        2,
        "bnnlight predict: error: no option '--outptu': did you mean --output?\n",
    )


def test_each_package_that_trains_is_named_with_its_extra():
    def names(requirements):
        return {re.match(r"[\w-]+", text)[0].lower().replace("_", "-") for text in requirements}

    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bringing = packages_distributions()
    for extra, modules in EXTRAS.items():
        wanted = names(project["optional-dependencies"][extra])
        own = {name.lower().replace("_", "-") for module in modules for name in bringing.get(module, ())}
        # yaml comes with what trains, as a requirement of a requirement
        assert own - {"pyyaml"} <= wanted
        assert wanted - own <= ({"huggingface-hub"} if "huggingface_hub" not in bringing else set())
        assert names(project["dependencies"]).isdisjoint(wanted)
