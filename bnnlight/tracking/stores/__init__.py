"""Reads what other trackers keep on the disk: TensorBoard's event files, MLflow's stores of files and of SQLite."""
