"""Tracking: where a run's figures go, and reading them back."""

from bnnlight.tracking.wandb_mode import sync_hint, wandb_mode

__all__ = ["sync_hint", "wandb_mode"]
