"""Where a run's figures go, reading them back, and views of them in W&B."""

from bnnlight.tracking.metrics_file import MetricsFile, read_rows
from bnnlight.tracking.wandb_mode import logged_in, sync_hint, wandb_mode
from bnnlight.tracking.wandb_run import WandbRun

__all__ = ["MetricsFile", "WandbRun", "logged_in", "read_rows", "sync_hint", "wandb_mode"]
