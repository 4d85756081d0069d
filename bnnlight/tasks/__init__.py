"""Tasks: LightningModules. The backbone is handed in, never imported."""

from bnnlight.tasks.classification import ClassificationTask
from bnnlight.tasks.pose import PoseTask

__all__ = ["ClassificationTask", "PoseTask"]
