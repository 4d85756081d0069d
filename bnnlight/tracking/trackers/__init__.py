"""What goes to a logger besides figures, by what its tracker can take: one class a tracker.

| tracker | Lightning's logger | takes, besides figures and the config |
|---|---|---|
| `Wandb` | `WandbLogger`, and :class:`bnnlight.tracking.WandbRun` | pictures, histograms, tables |
| `TensorBoard` | `TensorBoardLogger` | pictures, histograms, tables as text |
| `MLflow` | `MLFlowLogger` | pictures, tables and the config as files |
| `Comet` | `CometLogger` | pictures, histograms, tables |
| `CSVFiles` | `CSVLogger` | nothing |
| `Tracker` | all others | nothing; pictures where the logger has W&B's method ``log_image`` |

Figures go to :class:`lightning.pytorch.loggers.Logger` itself, whose ``log_metrics`` is the same for all. What the rest
of the package hands over goes through the functions here. A tracker that fails is left out of the run, see
:mod:`bnnlight.tracking.failing_loggers`. No tracker's package is imported before its logger is there.

Add your own: subclass :class:`Tracker`, and name it beside its logger in :data:`TRACKERS`.
"""

from bnnlight.tracking.trackers.handing_over import (
    TRACKERS,
    finish,
    hand_config,
    hand_figures,
    hand_picture,
    hand_table,
    places,
    to_go_on,
)
from bnnlight.tracking.trackers.tracker import Tracker

__all__ = [
    "TRACKERS",
    "Tracker",
    "finish",
    "hand_config",
    "hand_figures",
    "hand_picture",
    "hand_table",
    "places",
    "to_go_on",
]
