"""What is put back for a checkpoint of an earlier version, which holds no figures."""

from types import SimpleNamespace

import lightning as L

from bnnlight.guards.moment import restore_logged
from bnnlight.tracking import MetricsFile


def test_the_newest_figures_of_validations_up_to_its_step_come_from_the_file(tmp_path):
    file = MetricsFile(tmp_path)
    for step, metrics in (
        (5, {"val/acc1": 0.1, "val/loss": 3.0}),
        (11, {"val/acc1": 0.2, "train/loss": 1.0, "bnn/flip_rate_mean": 0.5}),
        (17, {"val/acc1": 0.3}),
    ):
        file.log_metrics(metrics, step)
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", default_root_dir=tmp_path)
    kinds = ("callback_metrics", "logged_metrics", "progress_bar_metrics")
    there = SimpleNamespace(loggers=[file], global_step=12, strategy=trainer.strategy)
    there.__dict__.update({kind: getattr(trainer, kind) for kind in kinds})
    restore_logged(there)
    found = {key: round(float(value), 6) for key, value in trainer.callback_metrics.items()}
    assert found == {"val/acc1": 0.2, "val/loss": 3.0}
