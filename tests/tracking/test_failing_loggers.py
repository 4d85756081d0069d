"""A logger that fails is left out with one line, and the run is the one without it."""

import copy
import json
import pickle

import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.logger import Logger

from bnnlight.tracking import WandbRun
from bnnlight.tracking.failing_loggers import attempt, leave_out_once_failed

LOGGER = '''
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only


class Picky(Logger):
    """Fails in one method, at its Nth call; a server that is asked for its experiment first."""

    def __init__(self, fails_in: str, call: int = 1) -> None:
        super().__init__()
        self.fails_in, self.left = fails_in, call

    def _ask(self, method):
        if method == self.fails_in:
            self.left -= 1
            if self.left <= 0:
                raise RuntimeError("bnn/flip_rate is a metric\\nand a folder")

    @property
    def name(self):
        self._ask("name")
        return "picky"

    @property
    def version(self):
        self._ask("version")
        return 0

    @property
    @rank_zero_experiment
    def experiment(self):
        self._ask("experiment")
        return self

    @rank_zero_only
    def log_metrics(self, metrics, step=None):
        self.experiment
        self._ask("log_metrics")

    @rank_zero_only
    def log_hyperparams(self, params):
        self._ask("log_hyperparams")

    def log_graph(self, model, input_array=None):
        self._ask("log_graph")

    def save(self):
        self._ask("save")

    def finalize(self, status):
        self._ask("finalize")

    def after_save_checkpoint(self, checkpoint_callback):
        self._ask("after_save_checkpoint")
'''

FAILS_IN = ("log_metrics", "experiment", "log_hyperparams", "finalize", "after_save_checkpoint")


@pytest.fixture
def fit_with(bnnlight, configs, tmp_path, monkeypatch):
    (tmp_path / "picky.py").write_text(LOGGER)
    monkeypatch.syspath_prepend(tmp_path)

    def run(name, *options):
        code, _, err = bnnlight(
            *("fit", "--config", configs / "quickstart.yaml", f"--run_dir={name}", "--model.backbone.width=0.0625"),
            *("--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--trainer.limit_val_batches=1"),
            *("--trainer.log_every_n_steps=1", "--flip_rates.interval=1", "--trainer.accelerator=cpu"),
            *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--test_after_fit=false"),
            *("--trainer.logger=[{class_path: bnnlight.tracking.MetricsFile}]", *options),
        )
        assert code == 0, err
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        # how long something took is another time each time
        timeless = [{k: v for k, v in row.items() if not k.startswith(("time/", "mem/"))} for row in rows]
        return code, timeless, [line for line in err.splitlines() if line.startswith("logger ")]

    return run


def test_a_run_is_the_same_whatever_a_logger_fails_in(fit_with, tmp_path):
    code, alone, said = fit_with("alone")
    assert code == 0 and said == []
    for method in FAILS_IN:
        code, rows, said = fit_with(method, "--trainer.logger+=picky.Picky", f"--trainer.logger.fails_in={method}")
        assert code == 0 and rows == alone

        reason = "RuntimeError: bnn/flip_rate is a metric and a folder"
        assert said == [f"logger Picky left out from now on, it fails in {method} ({reason})"]
        assert (tmp_path / method / "checkpoints" / "best.ckpt").is_file()


class Shop(Logger):
    """Counts what it is asked for."""

    name, version = "shop", "1"

    def __init__(self):
        super().__init__()
        self.asked, self.closed = [], False

    def log_metrics(self, metrics, step=None):
        self.log_image("x", [])

    def log_hyperparams(self, params):
        try:
            self.log_image("x", [])
        except OSError:
            self.asked.append("handled")

    def log_image(self, key, images):
        if self.closed:
            raise OSError("closed")
        self.asked.append(key)

    @property
    def experiment(self):
        return self.missing

    @property
    def save_dir(self):
        return "somewhere"

    @staticmethod
    def prices(factor):
        return 1 / factor


def test_all_that_a_class_offers_is_guarded_and_nothing_else_changes(capsys):
    shop = Shop()
    leave_out_once_failed(shop)
    leave_out_once_failed(shop)
    assert isinstance(shop, Shop) and type(shop).__name__ == "Shop" and not hasattr(shop, "log_video")
    shop.log_metrics({})
    shop.closed = True
    # what it handles by itself is not a failure
    shop.log_hyperparams({})
    assert shop.asked == ["x", "handled"] and capsys.readouterr().err == ""
    shop.log_image("y", [])
    assert capsys.readouterr().err == "logger Shop left out from now on, it fails in log_image (OSError: closed)\n"
    shop.closed = False
    shop.log_image("z", [])
    assert shop.experiment.anything(1) is None and shop.prices(0) is None
    assert (shop.name, shop.save_dir, shop.asked) == ("shop", "somewhere", ["x", "handled"])
    assert capsys.readouterr().err == ""
    other = Shop()
    leave_out_once_failed(other)
    assert other.experiment is not None and "AttributeError" in capsys.readouterr().err


def test_the_first_cause_is_told(capsys):
    class Full(Shop):
        def log_metrics(self, metrics, step=None):
            try:
                raise OSError(28, "No space left on device")
            except OSError as error:
                raise ValueError("you tried to log 2, which is not supported") from error

    full = Full()
    leave_out_once_failed(full)
    full.log_metrics({"a": 2.0})
    line = "logger Full left out from now on, it fails in log_metrics (OSError: [Errno 28] No space left on device)\n"
    assert capsys.readouterr().err == line


def test_what_is_asked_of_a_loggers_own_objects_is_guarded_too(capsys):
    shop, told = Shop(), []
    with pytest.raises(ZeroDivisionError):
        attempt(shop, "log_image", lambda: 1 / 0)
    leave_out_once_failed(shop)
    assert attempt(shop, "log_image", lambda: told.append(1) or "kept") == "kept" and told == [1]
    assert attempt(shop, "log_image", lambda: 1 / 0) is None
    line = "logger Shop left out from now on, it fails in log_image (ZeroDivisionError: division by zero)\n"
    assert capsys.readouterr().err == line
    attempt(shop, "log_image", lambda: told.append(2))
    shop.log_image("x", [])
    assert told == [1] and shop.asked == [] and capsys.readouterr().err == ""


def test_lightnings_own_stay_what_they_are_copied_and_sent_to_another_process(tmp_path, capsys):
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    leave_out_once_failed(logger)
    assert isinstance(logger, WandbLogger) and logger.save_dir == str(tmp_path)
    # nothing that a logger's class calls its own is replaced
    logger = WandbRun(save_dir=str(tmp_path))
    own = {name for kind in WandbRun.mro() for name in vars(kind)}
    leave_out_once_failed(logger)
    added = {name for name in vars(type(logger)) if name in own and not name.startswith(("__", "_abc"))}
    assert added == set()
    logger = CSVLogger(tmp_path)
    leave_out_once_failed(logger)
    for each in (logger, copy.deepcopy(logger), pickle.loads(pickle.dumps(logger))):
        assert isinstance(each, CSVLogger) and type(each) is type(logger)
    csv = CSVLogger(tmp_path, version="v")
    leave_out_once_failed(csv)
    csv.log_metrics({"a": 1.0}, step=3)
    csv.save()
    assert (tmp_path / "lightning_logs" / "v" / "metrics.csv").read_text() == "a,step\n1.0,3\n"
    assert capsys.readouterr().err == ""
