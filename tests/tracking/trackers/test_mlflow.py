"""What MLflow gets: with a stand-in as strict as its store of files, and with MLflow itself where it is there."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from bnnlight.tracking.runs import flatten, read_runs
from bnnlight.tracking.trackers import finish, hand_config, hand_figures, hand_picture, hand_table, places, to_go_on


class Store:
    """A run in MLflow's form of files. A figure that is a folder, an illegal name, a changed parameter are errors."""

    def __init__(self, folder):
        self.folder, self.run_id, self.tracking_uri = folder / "7" / "abc", "abc", "https://ann:secret@server/x"
        for name in ("metrics", "params", "tags", "artifacts"):
            (self.folder / name).mkdir(parents=True)
        meta = {"run_id": "abc", "run_name": "one", "experiment_id": "7", "start_time": 5, "lifecycle_stage": "active"}
        (self.folder / "meta.yaml").write_text(yaml.safe_dump(meta | {"artifact_uri": "x", "status": 1}))

    def _write(self, kind, key, text, mode="a"):
        assert re.fullmatch(r"[\w./ -]+", key, re.ASCII) and ".." not in key, key
        path = self.folder / kind / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode) as file:
            file.write(text)

    def log_figures(self, figures, step):
        for key, value in figures.items():
            self._write("metrics", key, f"1000 {value} {step}\n")

    def log_params(self, params):
        for key, value in params.items():
            self._write("params", key, str(value)[:250], "x")

    def get_run(self, run_id):
        params = [path.name for path in (self.folder / "params").rglob("*")]
        return type("Run", (), {"data": type("Data", (), {"params": params})})

    def update_run(self, run_id, status):
        self._write("tags", "status", status, "w")

    def set_tag(self, run_id, key, value):
        assert run_id == self.run_id
        self._write("tags", key, value, "w")

    def log_text(self, run_id, text, artifact_file):
        self._write("artifacts", artifact_file, text, "w")

    def log_artifact(self, run_id, local_path):
        (self.folder / "artifacts" / "config.yaml").write_bytes(Path(local_path).read_bytes())

    def log_image(self, run_id, image, key, step):
        image.save(self.folder / "artifacts" / f"{key.replace('/', '#')}-{step}.png")


class Logger(MLFlowLogger):
    """Lightning's logger with the stand-in in the place of MLflow's client."""

    def __init__(self, folder):
        self.store = Store(folder)

    run_id = property(lambda self: self.store.run_id)
    save_dir = name = version = None

    @property
    @rank_zero_experiment
    def experiment(self):
        return self.store

    def log_metrics(self, metrics, step=None):
        self.store.log_figures(metrics, step)

    def log_hyperparams(self, params):
        self.store.log_params({key.replace(".", "/"): value for key, value in flatten(params).items()})


def test_all_that_a_run_has_arrives_and_is_read_by_compare(digits_run, tmp_path, sheet):
    run_dir, _ = digits_run
    logger, config = Logger(tmp_path / "mlruns"), yaml.safe_load((run_dir / "config.yaml").read_text())
    hand_config([logger], config, {"version": "9", "commit": None}, run_dir / "config.yaml")
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        hand_figures([logger], {k: v for k, v in row.items() if k != "step"}, {"h": np.zeros(2)}, row["step"])
    hand_picture([logger], "val/pictures", sheet[0], 20)
    hand_table([logger], "bnn/layers", ("layer", "ranks"), [["a,b", 2]])
    assert to_go_on([logger, logger]) == {"Logger": {"run_id": "abc"}, "Logger 2": {"run_id": "abc"}}
    assert places([logger]) == {"MLflow run": "abc of https://server/x"}
    assert places([logger]) == {"MLflow run": "abc of https://server/x"}
    kept = logger.store.folder / "artifacts"
    assert (kept / "config.yaml").read_bytes() == (run_dir / "config.yaml").read_bytes()
    assert (kept / "val#pictures-20.png").is_file()
    assert list(csv.reader(io.StringIO((kept / "bnn/layers.csv").read_text()))) == [["layer", "ranks"], ["a,b", "2"]]
    ours, theirs = (read_runs([str(folder)])[0][0] for folder in (run_dir, tmp_path / "mlruns"))
    assert ours.series and {key: s for key, s in theirs.series.items() if key != "epoch"} == {
        key: s for key, s in ours.series.items() if key != "epoch"
    }
    assert (theirs.name, theirs.run_id, theirs.results) == ("one", "abc", ours.results)
    # as far as text of 250 characters can tell
    assert {k: v for k, v in theirs.config.items() if v != ours.config[k]} == {}
    assert theirs.config["model.init_args.optimizer.init_args.lr"] == 0.01


def test_a_run_that_goes_on_leaves_its_parameters(tmp_path):
    logger = Logger(tmp_path)
    (tmp_path / "config.yaml").write_text("a: 2\n")
    hand_config([logger], {"a": 1}, {"command": "begin"}, tmp_path / "config.yaml")
    assert not (logger.store.folder / "tags/status").exists()
    hand_config([logger], {"a": 2}, {"command": "go on"}, tmp_path / "config.yaml")
    assert (logger.store.folder / "tags/status").read_text() == "RUNNING"
    assert (logger.store.folder / "params/a").read_text() == "1"
    assert (logger.store.folder / "tags/bnnlight.command").read_text() == "go on"


@pytest.mark.slow
def test_mlflow_itself(tmp_path, sheet, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install mlflow")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    logger = MLFlowLogger("exp", "one", uri)
    (tmp_path / "config.yaml").write_text("a: {b: 0.5}\n")
    for own in ({"command": "begin"}, {"command": "go on"}):
        hand_config([logger], {"a": {"b": 0.5, "c": None}, "d": [1, 2]}, own, tmp_path / "config.yaml")
    hand_figures([logger], {"bnn/flip_rate_mean": 0.5, "bnn/flip_rate/a.b": float("nan")}, {"h": np.zeros(2)}, 3)
    hand_picture([logger], "val/pictures", sheet[0], 3)
    hand_table([logger], "bnn/layers", ("layer",), [["a.b"]])
    logger.finalize("success")
    finish([logger])
    client, run_id = mlflow.MlflowClient(uri), logger.run_id
    assert uri in places([logger])["MLflow run"] and to_go_on([logger]) == {
        "MLFlowLogger": {"run_id": run_id, "tracking_uri": uri}
    }
    (figure,) = client.get_metric_history(run_id, "bnn/flip_rate_mean")
    assert (figure.step, figure.value) == (3, 0.5)
    run = client.get_run(run_id)
    assert run.data.tags["bnnlight.command"] == "go on" and run.info.status == "FINISHED"
    files = {file.path for folder in ("", "bnn", "images") for file in client.list_artifacts(run_id, folder)}
    assert {"config.yaml", "bnn/layers.csv"} <= files
    (picture,) = (file for file in files if file.startswith("images/") and file.endswith(".png"))
    assert "pictures+step+3+" in picture
    (read,), problems = read_runs([str(tmp_path / "mlflow.db")])
    assert not problems and (read.name, read.run_id) == ("one", run_id)
    assert read.config == {"a.b": 0.5, "a.c": None, "d": [1, 2]}
    assert read.series["bnn/flip_rate_mean"] == {3: 0.5} and np.isnan(read.series["bnn/flip_rate/a.b"][3])
