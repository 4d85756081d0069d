#!/usr/bin/env bash
# Collects what the acceptance needs on a machine without an index, into one folder of at most 60 MiB.
#
#   benchmarks/gpu/carry.sh FOLDER [CIFAR10.tar.xz]
#   PYTHON=3.12 benchmarks/gpu/carry.sh FOLDER            for another Python than this one
#
# torch, torchvision, lightning, torchmetrics, scikit-learn, matplotlib, rich, pytest and what comes with them are taken
# to be there. There:
#
#   python -m pip install --no-index --no-deps --target /tmp/site FOLDER/*.whl && export PYTHONPATH=/tmp/site
#   python benchmarks/gpu/acceptance.py                          # with the archive unpacked: --data DIR
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
folder=$1
mkdir -p "$folder"
# with all that they need: a list of our own would lack what the next version of wandb brings
python3 -m pip download --quiet --only-binary=:all: --dest "$folder" \
  ${PYTHON:+--python-version "$PYTHON" --implementation cp --platform manylinux_2_28_x86_64} \
  ${PYTHON:+--platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64} \
  tensorly 'jsonargparse[signatures]' wandb argcomplete
for there in numpy scipy protobuf requests urllib3 certifi idna charset_normalizer click packaging pyyaml \
  typing_extensions; do
  rm -f "$folder/$there"-*.whl
done
[ $# -lt 2 ] || cp "$2" "$folder/"
size=$(du -sm "$folder" | cut -f1)
echo "$folder: $(find "$folder" -type f | wc -l) files, $size MiB"
[ "$size" -le 60 ] || { echo "carry.sh: $folder has $size MiB, and may have 60: leave the archive out" >&2; exit 1; }
