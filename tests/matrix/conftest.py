"""A plan of two methods on digits, and a stand-in for `bnnlight fit` that answers at once."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from bnnlight.matrix.runs import child

QUICKSTART = Path(__file__).parents[2] / "configs/quickstart.yaml"

# test/acc1 = 0.5 + seed / 100 (+ 0.1 + seed² / 1000 with Dense); best val/acc1 falls with the distance from lr 0.01
FAKE = """
import json, os, signal, sys, time
from pathlib import Path

args = dict(word[2:].split("=", 1) for word in sys.argv[1:] if "=" in word)
folder, seed, lr = Path(args["run_dir"]), int(args["seed_everything"]), float(args["model.optimizer.lr"])
assert "--resume" in sys.argv
with (folder / "started.jsonl").open("a") as file:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    told = {"argv": sys.argv[1:], "pid": os.getpid(), "env": {name: os.environ.get(name) for name in names}}
    file.write(json.dumps(told | {"begin": time.time()}) + "\\n")
(folder / "config.yaml").write_text("a: run")
print("hello")
how = Path(__file__).with_name("how.json")
how = json.loads(how.read_text()).get(folder.name) if how.exists() else None
if how == "fail":
    print("bnnlight fit: error: the data are gone")
    sys.exit(1)
if how == "diverge":
    print("bnnlight fit: error: epoch 0, batch 3: the loss is nan")
    sys.exit(3)
if how == "hang":
    def stop(*_):
        (folder / "saved").touch()
        sys.exit(75)
    signal.signal(signal.SIGTERM, stop)
    (folder / "metrics.jsonl").write_text('{"step": 3, "epoch": 1.0, "train/loss": 1}\\n{"st')
    while True:
        signal.pause()
while how == "meet" and len(list(folder.parents[1].glob("*/*/started.jsonl"))) < 4:
    time.sleep(0.02)
dense = "Dense" in args.get("model.backbone.latent", "")
results = {"best val/acc1": 0.9 - abs(lr - 0.01)}
if args["test_after_fit"] == "true":
    results["test/acc1"] = 0.5 + seed / 100 + dense * (0.1 + seed**2 / 1000)
record = {"version": "1.2.3", "commit": "abc", "torch": "2.9", "results": results}
(folder / "results.json").write_text(json.dumps(record))
(folder / "end").write_text(str(time.time()))
"""


@pytest.fixture
def content():
    """What the YAML of a plan holds: two methods, two seeds, two rates."""
    return {
        "title": "Two on digits",
        "config": str(QUICKSTART),
        "options": {"trainer.max_epochs": 2},
        "metric": "acc1",
        "metric_name": "accuracy",
        "baseline": "Tucker, rank ½",
        "seeds": [0, 1],
        "search": {
            "option": "model.optimizer.lr", "values": [0.01, 0.03], "seeds": [7], "options": {"trainer.max_epochs": 1}
        },
        "methods": {
            "dense": {"options": {"model.backbone.latent": {"class_path": "bnnlight.nn.Dense"}}},
            "Tucker, rank ½": {"options": {"model.backbone.latent.rank": 0.5}},
        },
    }  # fmt: skip


@pytest.fixture
def write(tmp_path):
    """Write a plan; return its path."""

    def write_(content, name="plan.yaml"):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
        return path

    return write_


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Put the stand-in in place of `bnnlight fit`; return a function that says how folders of a name are to end."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(child, "COMMAND", (sys.executable, str(script)))

    def how(**folders):
        script.with_name("how.json").write_text(json.dumps(folders))

    return how


@pytest.fixture
def starts():
    """What the stand-in was told: folder of a run, relative to the one given → its starts."""

    def read(folder):
        found = {}
        for file in sorted(Path(folder).rglob("started.jsonl")):
            found[str(file.parent.relative_to(folder))] = [json.loads(line) for line in file.read_text().splitlines()]
        return found

    return read
