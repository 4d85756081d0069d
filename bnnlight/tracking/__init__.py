"""Tracking: where a run's figures go, and reading them back."""

from bnnlight.tracking.metrics_file import MetricsFile, read_rows
from bnnlight.tracking.wandb_mode import sync_hint, wandb_mode
from bnnlight.tracking.wandb_run import WandbRun

__all__ = ["MetricsFile", "WandbRun", "read_rows", "sync_hint", "wandb_mode"]
