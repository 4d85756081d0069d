"""What Comet gets: with a stand-in, and with Comet's offline experiment where it is there."""

import json
import zipfile

import numpy as np
import pytest
from lightning.pytorch.loggers import CometLogger

from bnnlight.tracking.trackers import finish, hand_config, hand_figures, hand_picture, hand_table, places, to_go_on
from bnnlight.tracking.trackers.comet import offline_rows


class Experiment:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.told.append((name, args, kwargs))


class Logger(CometLogger):
    """Lightning's logger with a stand-in in the place of Comet's experiment."""

    def __init__(self):
        self.asked, self.figures = Experiment(), {}

    version = "key"
    experiment = property(lambda self: self.asked)

    def log_metrics(self, metrics, step=None):
        self.figures[step] = metrics

    def log_hyperparams(self, params):
        self.asked.told.append(("config", params, {}))


def hand_all(logger, tmp_path, sheet):
    hand_config([logger], {"a": {"b": 1}}, {"version": "9"}, tmp_path / "config.yaml")
    hand_figures([logger], {"bnn/flip_rate_mean": 0.5}, {"bnn/alpha/a": np.arange(3.0)}, 4)
    hand_picture([logger], "val/pictures", sheet[0], 4)
    hand_table([logger], "bnn/layers", ("layer", "ranks"), [("a", "2")])
    finish([logger])


def test_all_of_it_is_handed_over(tmp_path, sheet):
    logger = Logger()
    hand_all(logger, tmp_path, sheet)
    assert logger.figures == {4: {"bnn/flip_rate_mean": 0.5}} and to_go_on([logger]) == {
        "Logger": {"experiment_key": "key", "mode": "get"}
    }
    config, others, histogram, picture, table, end = logger.asked.told
    assert config[1] == {"a": {"b": 1}} and others[:2] == ("log_others", ({"bnnlight/version": "9"},))
    assert histogram[0] == "log_histogram_3d" and histogram[1][0].tolist() == [0, 1, 2]
    assert histogram[2] == {"name": "bnn/alpha/a", "step": 4}
    assert picture == ("log_image", (str(sheet[0]),), {"name": "val/pictures", "step": 4})
    assert table[1:] == (("bnn/layers.csv",), {"tabular_data": [["a", "2"]], "headers": ["layer", "ranks"]})
    assert end[0] == "end"


@pytest.mark.slow
def test_comet_itself(tmp_path, sheet, monkeypatch):
    monkeypatch.setenv("COMET_DISABLE_AUTO_LOGGING", "1")
    monkeypatch.setenv("COMET_START_ONLINE", "false")
    pytest.importorskip("comet_ml", reason="comet_ml is not installed: pip install comet-ml")
    (tmp_path / "comet").mkdir()
    logger = CometLogger(project="p", offline_directory=str(tmp_path / "comet/001"))
    hand_all(logger, tmp_path, sheet)
    assert places([logger]) == {
        "Comet offline": str(tmp_path / "comet"),
        "to upload it": f"comet upload {tmp_path / 'comet'}/*/*.zip",
    }
    (row,) = (row for row in offline_rows(tmp_path / "comet") if "bnn/flip_rate_mean" in row)
    assert row == {"step": 4, "bnn/flip_rate_mean": 0.5}
    (file,) = (tmp_path / "comet").glob("*/*.zip")
    with zipfile.ZipFile(file) as archive:
        messages = [json.loads(line)["payload"] for line in archive.read("messages.json").splitlines()]
    figures = {m["metric"]["metricName"]: m["metric"] for m in messages if "metric" in m}
    assert (figures["bnn/flip_rate_mean"]["metricValue"], figures["bnn/flip_rate_mean"]["step"]) == (0.5, 4)
    uploads = [m["additional_params"] for m in messages if "additional_params" in m]
    assert {"bnn/alpha/a", "bnn/layers.csv"} <= {upload.get("fileName") for upload in uploads}
    (picture,) = (upload for upload in uploads if upload.get("figName") == "val/pictures")
    assert picture["step"] == 4
