"""Tasks: LightningModules. The backbone is handed in, never imported."""

from bnnlight.tasks.classification import ClassificationTask

__all__ = ["ClassificationTask"]
