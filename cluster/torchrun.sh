#!/usr/bin/env bash
# Trains in one process for each GPU, on one machine or on several that are started by hand.
#
#   cluster/torchrun.sh --config configs/resnet18_imagenet.yaml --data.root DATA --run_dir RUNS/a
#   NODES=2 HEAD=node1 cluster/torchrun.sh --config … --run_dir /shared/RUNS/a     on two machines, the same line
#
# What follows its name goes to `bnnlight fit`. Set by variables:
#   DEVICES       processes on this machine, 1 for each GPU of it by default
#   NODES, HEAD   number of machines, and the one (host or host:port) where they meet; port 29400 must be open
#   ADDRESS       of this machine, where the others do not find it by its full name
#   JOB           a name that tells runs apart which meet at the same host
#   MAX_RESTARTS  how often all are started anew, from the last checkpoint, after one has died; 3 by default
# Needs: bnnlight on each machine; a folder for --run_dir that all of them see.
# Stop: Ctrl-C, or `kill` this script: the step is finished and saved. Resume: the same line again.
# Exit code: bnnlight's; 75 means that the same line is to be started again.
set -euo pipefail

devices=${DEVICES:-$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)}
[ "$devices" -gt 0 ] || devices=1
nodes=${NODES:-1}
if [ "$nodes" = 1 ]; then
  # the name of the machine itself may lead nowhere, as in some containers
  meet=(--standalone --local-addr localhost)
else
  head=${HEAD:?set HEAD to the machine where all of them meet, such as HEAD=node1}
  [[ $head == *:* ]] || head=$head:29400
  meet=(--nnodes "$nodes" --rdzv-backend c10d --rdzv-endpoint "$head" --rdzv-id "${JOB:-bnnlight}")
  [ -z "${ADDRESS:-}" ] || meet+=(--local-addr "$ADDRESS")
fi

# exec: signals reach Python, not a shell in front of it
exec python3 -m bnnlight.commands.torchrun "${meet[@]}" --nproc-per-node "$devices" \
  --max-restarts "${MAX_RESTARTS:-3}" --no-python \
  bnnlight fit "$@" --resume --trainer.devices "$devices" --trainer.num_nodes "$nodes"
