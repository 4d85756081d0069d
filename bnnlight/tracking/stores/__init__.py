"""Reads what other trackers keep of runs on the disk: TensorBoard's event files, MLflow's stores."""

from bnnlight.tracking.stores.mlflow import find_mlflow_runs, read_mlflow_run
from bnnlight.tracking.stores.stored import Stored
from bnnlight.tracking.stores.tensorboard import find_event_folders, read_event_folder

__all__ = ["Stored", "find_event_folders", "find_mlflow_runs", "read_event_folder", "read_mlflow_run"]
