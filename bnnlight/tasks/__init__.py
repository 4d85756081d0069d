"""Tasks: LightningModules. The backbone is passed in, never imported; so is the teacher to imitate, if there is one.

`mixing.py` mixes pictures of a training batch; `feature_matching.py` compares feature maps with a teacher's.
"""

from bnnlight.tasks.classification import ClassificationTask
from bnnlight.tasks.mixing import Mixing
from bnnlight.tasks.pose import PoseTask
from bnnlight.tasks.teacher import Teacher

__all__ = ["ClassificationTask", "Mixing", "PoseTask", "Teacher"]
