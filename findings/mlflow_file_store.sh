#!/usr/bin/env bash
# Lightning's logger for MLflow with nothing but its defaults, and MLflow's store of files, with lightning 2.6.6 and mlflow
# 3.17.2.
#
# lightning: MLFlowLogger() makes a store of files in ./mlruns. mlflow: such a store is refused, so that the logger cannot
# be made. MLFLOW_ALLOW_FILE_STORE=true allows it; in it each metric is a file, and a metric "a" keeps out a metric
# "a/b" from then on, both of which SQLite takes.
#
# Exits 0 while this is so. Usage: findings/mlflow_file_store.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 lightning==2.6.6 mlflow==3.17.2
cd "$folder"
env -u MLFLOW_TRACKING_URI -u MLFLOW_ALLOW_FILE_STORE "$folder/venv/bin/python" -W ignore - <<'PYTHON'
import logging
import os
from importlib.metadata import version

from lightning.pytorch.loggers import MLFlowLogger

for name in ("lightning.pytorch", "mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.ERROR)
print(f"lightning {version('lightning')}, mlflow {version('mlflow')}")


def fails(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
    return ""


def log_both(*options):
    logger = MLFlowLogger("e", None, *options)
    logger.log_metrics({"a": 1.0}, step=1)
    logger.log_metrics({"a/b": 1.0}, step=1)


refused = fails(MLFlowLogger)
print("MLFlowLogger():", refused)
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
both_in_files = fails(log_both)
print("allowed, metrics a and a/b in files:", both_in_files)
both_in_sqlite = fails(lambda: log_both("sqlite:///mlflow.db"))
print("metrics a and a/b in SQLite:", both_in_sqlite or "taken")
assert "maintenance mode" in refused and both_in_files and not both_in_sqlite
PYTHON
