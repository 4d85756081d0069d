"""Loggers in a run's directory, and as the run goes on."""

import json
import os
import sys
import zipfile
from types import SimpleNamespace

import pytest
from jsonargparse import Namespace
from lightning.pytorch.loggers import CometLogger, CSVLogger
from lightning.pytorch.loggers.logger import Logger

from bnnlight.experiment.loggers import TO_GO_ON, guard_loggers, place_loggers, with_places
from bnnlight.tracking import MetricsFile

TB = "lightning.pytorch.loggers.TensorBoardLogger"


def entry(kind, /, **init_args):
    return Namespace(class_path=f"lightning.pytorch.loggers.{kind}", init_args=Namespace(**init_args))


def test_what_asks_for_a_place_gets_one_on_the_command_line():
    option = "--trainer.logger"
    for given in ([f"{option}=TensorBoardLogger"], [f"{option}+=CSVLogger"], [option, TB], [f"{option}+", "CSVLogger"]):
        assert with_places(["--config=c", *given, "--x=1"]) == ["--config=c", *given, f"{option}.save_dir=.", "--x=1"]
    for given in (
        [f"{option}=TensorBoardLogger", f"{option}.save_dir=here"],
        [f"{option}=CSVLogger", "--x=1", f"{option}.init_args.save_dir", "here"],
        [f"{option}=MLFlowLogger"],
        [f"{option}=false"],
        [option],
        ["CSVLogger"],
        [f"{option}=[{{class_path: CSVLogger}}]"],
    ):
        assert with_places(given) == given
    # a place that is meant for another
    args = [f"{option}+=CSVLogger", f"{option}+=TensorBoardLogger", f"{option}.save_dir=here"]
    assert with_places(args) == [args[0], f"{option}.save_dir=.", *args[1:]]


def test_the_runs_own_file_is_always_among_them(tmp_path):
    own = entry("CSVLogger", save_dir=".", name="lightning_logs", version=None)
    for given in (own, [own], True):
        *others, last = place_loggers(given, tmp_path, False)
        assert len(others) == 1 and last.class_path.endswith(".MetricsFile")
        assert last.init_args.save_dir == others[0].init_args.save_dir == str(tmp_path)
    file = Namespace(class_path="bnnlight.tracking.MetricsFile", init_args=Namespace(save_dir="."))
    assert place_loggers([file], tmp_path, False) == [file] and file.init_args.save_dir == str(tmp_path)
    assert place_loggers(False, tmp_path, False) is False and place_loggers(None, tmp_path, False) is False


def test_what_the_user_has_set_stays(tmp_path):
    csv = entry("CSVLogger", save_dir="elsewhere", name="lightning_logs", version=None)
    named = entry("TensorBoardLogger", save_dir=".", name="mine", version=3)
    place_loggers([csv, named], tmp_path, False)
    assert (csv.init_args.save_dir, csv.init_args.name, csv.init_args.version) == ("elsewhere", "lightning_logs", None)
    assert (named.init_args.save_dir, named.init_args.name, named.init_args.version) == (str(tmp_path), "mine", 3)
    left_open = entry("TensorBoardLogger", save_dir=".", name="lightning_logs", version=None)
    place_loggers(left_open, tmp_path, False)
    assert (left_open.init_args.name, left_open.init_args.version) == ("tensorboard", "")


def mlflow(**given):
    names = ("experiment_name", "run_name", "tracking_uri", "run_id", "save_dir")
    return entry("MLFlowLogger", **{name: given.get(name) for name in names})


def test_mlflow_goes_on_under_its_id_unless_another_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "ranks")
    begun = {"MLFlowLogger": {"run_id": "abc", "tracking_uri": "sqlite:////a/mlflow.db"}}
    (tmp_path / TO_GO_ON).write_text(json.dumps(begun))
    fresh, goes_on, other = mlflow(tracking_uri="file:x"), mlflow(), mlflow(tracking_uri="file:x", run_id="z")
    place_loggers(fresh, tmp_path, False)
    place_loggers([goes_on, other], tmp_path, True)
    assert (fresh.init_args.run_id, fresh.init_args.experiment_name) == (None, "ranks")
    assert fresh.init_args.run_name == "-".join(tmp_path.parts[-2:])
    assert (goes_on.init_args.run_id, goes_on.init_args.tracking_uri) == ("abc", "sqlite:////a/mlflow.db")
    assert (other.init_args.run_id, other.init_args.tracking_uri) == ("z", "file:x")
    begun["MLFlowLogger 2"] = {"run_id": "def"}
    (tmp_path / TO_GO_ON).write_text(json.dumps(begun))
    pair = mlflow(tracking_uri="file:x"), mlflow(tracking_uri="file:y")
    place_loggers([*pair], tmp_path, True)
    assert [logger.init_args.run_id for logger in pair] == ["abc", "def"]
    (tmp_path / TO_GO_ON).write_text("{")
    damaged = mlflow(tracking_uri="file:x")
    place_loggers(damaged, tmp_path, True)
    assert damaged.init_args.run_id is None


class Tracker(Logger):
    """Keeps what it is told."""

    name, version = "t", ""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, params):
        pass


def test_mlflows_own_choice_of_a_store_counts_where_none_is_named(tmp_path, monkeypatch):
    here = SimpleNamespace(get_tracking_uri=lambda: "sqlite:////srv/team/mlflow.db")
    monkeypatch.setitem(sys.modules, "mlflow", here)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "mlflow")
    for save_dir in ("./mlruns", ".", None):
        left_open = mlflow(save_dir=save_dir)
        place_loggers([left_open], tmp_path, False)
        assert left_open.init_args.tracking_uri == "sqlite:////srv/team/mlflow.db"
    for given in ({"save_dir": "here"}, {"tracking_uri": "https://server"}):
        named = mlflow(**given)
        place_loggers([named], tmp_path, False)
        assert named.init_args.tracking_uri == given.get("tracking_uri")


def comet(**given):
    names = ("api_key", "workspace", "project", "experiment_key", "mode", "online", "prefix")
    return entry("CometLogger", **{name: given.get(name) for name in names})


def test_comet_is_offline_without_a_key(tmp_path, monkeypatch):
    keys, starts = {}, iter((tmp_path / "comet/001", tmp_path / "comet/002"))
    monkeypatch.setitem(sys.modules, "comet_ml", SimpleNamespace(get_config=keys.get))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "comet_ml")
    for config, key, is_offline in (
        ({}, None, True),
        ({}, "k", False),
        ({"api_key": "k"}, None, False),
        ({"online": False}, "k", True),
        ({"online": True}, None, False),
    ):
        # set, so that what is written to it is taken back
        monkeypatch.setenv("COMET_START_ONLINE", "")
        keys["comet.api_key"] = key
        logger = comet(**config)
        place_loggers(logger, tmp_path, False)
        assert os.environ["COMET_START_ONLINE"] == ("false" if is_offline else "")
        # told so by its own argument, Lightning's logger would record nothing
        assert logger.init_args.online == (None if is_offline else config.get("online"))
        folder = logger.dict_kwargs.get("offline_directory")
        assert folder == (str(next(starts)) if is_offline else None)
        assert (logger.init_args.project, logger.dict_kwargs["name"]) == ("bnnlight", "-".join(tmp_path.parts[-2:]))


@pytest.fixture
def stopped(tmp_path):
    """A run that logged up to step 10 and was last saved at step 6."""
    file = MetricsFile(str(tmp_path))
    for step in range(1, 11):
        file.log_metrics({"a": step / 2, "epoch": 0}, step)
    return tmp_path


def test_a_run_that_goes_on_logs_nothing_twice(stopped):
    tracker, csv = Tracker(), CSVLogger(stopped, "csv", "")
    # what the first start has left, one row short of what the run's own file has
    (stopped / "csv").mkdir()
    (stopped / "csv/metrics.csv").write_text("a,epoch,step\n0.5,0,1\n")
    guard_loggers([tracker, csv], stopped, goes_on=True)
    for logger in (tracker, csv):
        logger.book.go_on({"a": (6, 1), "epoch": (6, 1)})  # as a checkpoint has it
        for step in range(7, 13):
            logger.log_metrics(metrics={"a": step / 2, "epoch": 0}, step=step)
        logger.log_metrics({"b": 1.0}, 12)
        logger.save()
    assert tracker.rows == [(11, {"a": 5.5, "epoch": 0}), (12, {"a": 6.0, "epoch": 0}), (12, {"b": 1.0})]
    lines = (stopped / "csv/metrics.csv").read_text().splitlines()
    assert lines[0] == "a,b,epoch,step"
    assert [int(line.split(",")[-1]) for line in lines[1:]] == [*range(1, 13), 12]


class Offline(CometLogger):
    """An offline experiment of Comet's that keeps what it is told."""

    def __init__(self, folder):
        self.folder, self.rows = folder, []

    save_dir = property(lambda self: str(self.folder))

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))


def write_start(folder, figures):
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "key-abc.zip", "w") as archive:
        if figures:
            names = ("step", "metricName", "metricValue", "epoch")
            metrics = [{"metric": dict(zip(names, (*figure, 0), strict=True))} for figure in figures]
            lines = [json.dumps({"type": "metric_msg", "payload": payload}) for payload in metrics]
            archive.writestr("messages.json", "\n".join(['{"type": "log_other", "payload": {}}', *lines]))


def test_comet_offline_gets_what_a_killed_start_has_lost(stopped, monkeypatch):
    # the first start was stopped, the second killed
    write_start(stopped / "comet/001", [(step, "a", step / 2) for step in range(1, 5)] + [(None, "sys.cpu", 1.0)])
    write_start(stopped / "comet/002", [])
    logger = Offline(stopped / "comet/003")
    guard_loggers([logger], stopped, goes_on=True)
    assert [(step, row["a"]) for step, row in logger.rows] == [(step, step / 2) for step in range(5, 11)]
    logger.book.go_on({"a": (6, 1), "epoch": (6, 1)})
    for step in range(7, 12):
        logger.log_metrics({"a": step / 2}, step)
    assert logger.rows[6:] == [(11, {"a": 5.5})]


def test_comet_offline_begins_anew_where_no_start_has_left_anything(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "comet_ml", SimpleNamespace(get_config={}.get))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "comet_ml")
    (tmp_path / TO_GO_ON).write_text(json.dumps({"CometLogger": {"experiment_key": "k", "mode": "get"}}))
    write_start(tmp_path / "comet/001", [])
    for number, figures, key, mode in (("002", [(1, "a", 0.5)], None, None), ("003", [], "k", "get")):
        monkeypatch.setenv("COMET_START_ONLINE", "")
        logger = comet()
        place_loggers(logger, tmp_path, True)
        assert logger.dict_kwargs["offline_directory"] == str(tmp_path / "comet" / number)
        assert (logger.init_args.experiment_key, logger.init_args.mode) == (key, mode)
        write_start(tmp_path / "comet" / number, figures)


def test_a_new_run_logs_all_and_figures_without_a_step(stopped):
    tracker = Tracker()
    guard_loggers([tracker, MetricsFile(str(stopped))], stopped, goes_on=False)
    tracker.log_metrics({"a": 1.0}, 3)
    tracker.log_metrics({"a": 2.0})
    tracker.log_metrics({"a": 3.0}, step=3)
    assert tracker.rows == [(3, {"a": 1.0}), (None, {"a": 2.0}), (3, {"a": 3.0})]


def test_a_run_is_whole_in_its_own_files_and_in_the_tracker(bnnlight, configs, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit = ("fit", "--config", configs / "quickstart.yaml", "--run_dir=run", "--resume", "--trainer.accelerator=cpu")
    fit += ("--model.backbone.width=0.0625", "--trainer.limit_train_batches=3", "--trainer.limit_val_batches=1")
    fit += ("--trainer.log_every_n_steps=1", "--trainer.enable_progress_bar=false", "--test_after_fit=false")
    fit += ("--trainer.logger=TensorBoardLogger", "--alphas.interval=3")
    for epochs in (1, 2):
        code, out, err = bnnlight(*fit, f"--trainer.max_epochs={epochs}")
        assert code == 0, err
    assert "tensorboard --logdir run/tensorboard" in out
    run = tmp_path / "run"
    assert (run / "curves.png").is_file() and [path.name for path in run.glob("tensorboard/*.yaml")] == ["hparams.yaml"]
    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0, "histograms": 0, "images": 0})
    events.Reload()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for key in ("train/loss", "val/acc1", "bnn/alpha_mean/backbone.stages.0.0.unit1.conv"):
        wanted = [(row["step"], pytest.approx(row[key])) for row in rows if key in row]
        assert [(event.step, event.value) for event in events.Scalars(key)] == wanted
    assert [event.step for event in events.Images("val/pictures")] == [3, 6]
    (histogram,) = {key for key in events.Tags()["histograms"] if key.endswith("stages.0.0.unit1.conv")}
    assert [event.step for event in events.Histograms(histogram)] == [0, 3, 6]
