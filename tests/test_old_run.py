"""Runs that commit 43acf95 began go on, are shipped, compared and used; what it named is still found.

`fixtures/run_43acf95` holds two runs of that commit on digits, each stopped by SIGTERM at step 14 of 18: `tucker` with
Tucker latents and AdamW, `bop` with dense ones and Bop, which was `bnnlight.nn.Bop` then. Both are in float64, so that
another machine's rounding turns no sign round. The files are as they were written; `previous.ckpt` is left out, and of
`bop` the best checkpoint and the figures. `uninterrupted.json` has weights and figures of the same two runs without the
stop, by the same commit. `fixtures/class_paths_43acf95.txt` has all names of the package that stood in its configs,
documents, models and results, and in `__all__`.
"""

import json
import pkgutil
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from bnnlight.console.known_names import moved
from bnnlight.deploy import Runtime

ROOT = Path(__file__).parents[1]
OLD = ROOT / "tests/fixtures/run_43acf95"
TOLD = {
    "bnnlight.data.lsp.LSPDataModule": "bnnlight.data.LSPDataModule",
    "bnnlight.data.vision.CIFAR10DataModule": "bnnlight.data.CIFAR10DataModule",
}
"""Names in the cards of shipped models, which nothing imports; whoever writes one in a config is told the new name."""
NAMED_ANEW = {"bnn/flip_rate": "bnn/flip_rate_mean"}


@pytest.fixture
def old_run(tmp_path):
    """A copy of an old run."""
    return lambda name: Path(shutil.copytree(OLD / name, tmp_path / name))


@pytest.mark.parametrize("name", ["tucker", "bop"])
def test_it_ends_as_it_would_have_then(name, old_run, bnnlight):
    run_dir = old_run(name)
    code, out, err = bnnlight("fit", "--config", run_dir / "config.yaml", "--run_dir", run_dir, "--resume")
    assert code == 0, out + err
    wanted = json.loads((OLD / "uninterrupted.json").read_text())[name]
    last = torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 18 and last["state_dict"].keys() == wanted["weights"].keys()
    for key, value in last["state_dict"].items():
        # loading rounds once to float32
        np.testing.assert_allclose(value.flatten(), wanted["weights"][key], rtol=0, atol=1e-6, err_msg=key)
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    found = {(row["step"], key): row[key] for row in rows for key in row}
    assert len(wanted["figures"]) > 3
    for step, key, value in wanted["figures"]:
        # what this version logs of it has another name
        key = NAMED_ANEW.get(key, key)
        assert found[step, key] == pytest.approx(value, abs=1e-6), (step, key)


@pytest.mark.parametrize("form", ["packed", "openvino"])
def test_it_is_shipped_and_used(form, old_run, bnnlight, tmp_path):
    checkpoint = old_run("tucker") / "checkpoints/best.ckpt"
    pictures = [(image * 15.9).astype(np.uint8) for image in load_digits().images[:12]]
    (tmp_path / "digits").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"digits/{number:02}.png")
    code, out, err = bnnlight("export", "--ckpt_path", checkpoint, "--format", form, "--output", tmp_path / "model")
    assert code == 0, err
    assert re.search(r"same answer +│ 100\.00 %", out)
    code, _, err = bnnlight("predict", tmp_path / "digits", "--ckpt_path", checkpoint, "--output", tmp_path / "answers")
    assert code == 0, err
    answers = json.loads((tmp_path / "answers/predictions.json").read_text())["images"]
    shipped = Runtime(tmp_path / "model")
    for picture, answer in zip(pictures, answers, strict=True):
        probabilities = {c["class"]: c["probability"] for c in answer["classes"]}
        for c in shipped.predict([Image.fromarray(picture)])[0]["classes"]:
            assert probabilities.get(c["class"], c["probability"]) == pytest.approx(c["probability"], abs=1e-4)


def test_it_is_compared(old_run, bnnlight):
    run_dir = old_run("tucker")
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    code, out, err = bnnlight("compare", "--json", run_dir, OLD / "tucker")
    assert code == 0, err
    record = json.loads(out)
    assert record["config_differences"] == []
    for run in record["runs"]:
        assert run["starts"] == 1
        for key, name_now in (("train/loss",) * 2, ("val/acc1",) * 2, ("bnn/flip_rate", "bnn/flip_rate_mean")):
            series = run["series"][name_now]
            wanted = [(row["step"], row[key]) for row in rows if key in row]
            assert wanted and list(zip(series["steps"], series["values"], strict=True)) == wanted


def is_there(name):
    try:
        return pkgutil.resolve_name(name) is not None
    except (ImportError, AttributeError):
        return False


def test_what_was_named_then_is_still_found():
    names = (ROOT / "tests/fixtures/class_paths_43acf95.txt").read_text().split()
    assert "bnnlight.nn.Bop" in names and len(names) > 80
    assert {name: moved(name) for name in names if not is_there(name)} == TOLD


def test_what_is_named_today_is_there():
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "cluster").rglob("*.*")]
    for folder in ("configs", "docs", "models", "results"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".yaml", ".md", ".json", ".jsonl")]
    text = "".join(path.read_text() for path in files)
    names = set(re.findall(r"\bbnnlight(?:\.[a-z_]+)*\.[A-Z]\w*", text))
    assert len(names) > 30
    assert {name: moved(name) for name in names if not is_there(name)} == TOLD
