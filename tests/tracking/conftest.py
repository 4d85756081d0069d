import json
import subprocess
import sys

import pytest

_WRITE = """
import json, os, signal, sys
import wandb
from bnnlight.tracking import WandbRun
run_dir, rows, options, end = sys.argv[1], *map(json.loads, sys.argv[2:])
logger = WandbRun(run_dir, **options)
logger.log_hyperparams({"lr": 0.1, "nested": {"rank": 2}})
for step, row in rows:
    logger.log_metrics(row, step)
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
logger.experiment.finish()
"""


@pytest.fixture
def write_offline():
    """Log rows [(step, {key: value})] with a WandbRun in a process of its own, offline; end: finished or killed."""

    def write(run_dir, rows, end="finished", env=(), **options):
        import os

        run_dir.mkdir(exist_ok=True, parents=True)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        done = subprocess.run(
            [sys.executable, "-c", _WRITE, str(run_dir), json.dumps(rows), json.dumps(options), json.dumps(end)],
            env={**clean, "WANDB_MODE": "offline", "WANDB_SILENT": "true", **dict(env)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == (0 if end == "finished" else -9), done.stderr

    return write
