"""Tasks: LightningModules. The backbone is handed in, never imported; so is the teacher to imitate, if there is one."""

from bnnlight.tasks.classification import ClassificationTask
from bnnlight.tasks.pose import PoseTask
from bnnlight.tasks.teacher import Teacher

__all__ = ["ClassificationTask", "PoseTask", "Teacher"]
