"""Reads what other trackers keep of runs on the disk: TensorBoard's event files, MLflow's stores of files and SQLite."""
