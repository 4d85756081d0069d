"""Tracking: where a run's figures go, and reading them back."""

from bnnlight.tracking.wandb_mode import logged_in, sync_hint, wandb_mode

__all__ = ["logged_in", "sync_hint", "wandb_mode"]
