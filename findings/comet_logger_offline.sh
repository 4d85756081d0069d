#!/usr/bin/env bash
# Comet's offline experiments, by themselves and in Lightning's logger, with lightning 2.6.6 and comet-ml 3.58.8.
#
# lightning: CometLogger(online=False) makes an offline experiment that is disabled. It takes figures, and writes no file
# that could be uploaded, without a word. With the environment variable COMET_START_ONLINE=false in the place of the
# argument the file is written.
#
# comet-ml: the random part of the file's name is drawn from Python's own generator. Two starts of a run that sets the same
# seed (seed_everything) and goes on with the same experiment write files of one name: the second replaces the first.
#
# Exits 0 while this is so. Usage: findings/comet_logger_offline.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 lightning==2.6.6 comet-ml==3.58.8
cd "$folder"
cat > finding.py <<'PYTHON'
import logging
import os
import random
import sys
from importlib.metadata import version
from pathlib import Path

os.environ["COMET_LOGGING_CONSOLE"] = "error"
how = sys.argv[1]
if how == "variable":
    os.environ["COMET_START_ONLINE"] = "false"
from lightning.pytorch.loggers import CometLogger

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
options = {"online": False} if how == "argument" else {}
random.seed(0)
logger = CometLogger(project="p", offline_directory=how, **options)
logger.log_metrics({"loss": 0.5}, step=1)
logger.finalize("success")
experiment = logger.experiment
experiment.end()
files = list(Path(how).glob("*.zip"))
print(f"lightning {version('lightning')}, comet-ml {version('comet-ml')}, offline by {how}:", end=" ")
print(f"{type(experiment).__name__}, disabled {experiment.disabled}, files to upload {len(files)}")
assert experiment.disabled == (how == "argument") and len(files) == (how == "variable")
PYTHON
"$folder/venv/bin/python" -W ignore finding.py argument
"$folder/venv/bin/python" -W ignore finding.py variable
rm -rf argument
first=$(cd variable && ls)
mv variable first
"$folder/venv/bin/python" -W ignore finding.py variable
second=$(cd variable && ls)
echo "two starts with one seed: $first, $second"
[ "${first##*-}" = "${second##*-}" ]
