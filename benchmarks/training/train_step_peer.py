"""ResNet-18 made binary by the package `bnn` of PyPI, trained step by step as it is told on standard input.

Runs in an environment of its own, started by `train_step.py --peer-python ENV/bin/python`:

    python -m venv ENV && ENV/bin/pip install bnn==0.1.2 torch torchvision

The first line that it prints names versions. Then, for each line that it reads: `count` takes a step and prints what
it saves, `step` takes one and prints its seconds, `memory` prints the resident memory after the imports and at its
largest.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import version

import torch
from bnn import BConfig, prepare_binary_model
from bnn.ops import BasicInputBinarizer, BasicScaleBinarizer, XNORWeightBinarizer
from shared_step import Training, keep_freed_memory, labelled_pictures, real_resnet18, resident_bytes


def main() -> None:
    """Answers one line with one line of JSON until there are no more."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--stem", choices=("imagenet", "small"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    imported = resident_bytes()[0]
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    # as the package's README has it, but the last layer stays real: its analytic α of linear layers is changed in
    # place after the norm that needs it, which torch refuses to differentiate
    config = BConfig(
        activation_pre_process=BasicInputBinarizer,
        activation_post_process=BasicScaleBinarizer,
        weight_pre_process=XNORWeightBinarizer.with_args(center_weights=True),
    )
    real = {"conv1": BConfig(), "fc": BConfig()}
    network = prepare_binary_model(real_resnet18(args.stem), config, custom_config_layers_name=real)
    training = Training(network, *labelled_pictures(args.batch_size, args.image_size))
    print(json.dumps({"bnn": version("bnn"), "torch": torch.__version__}), flush=True)
    for line in sys.stdin:
        if line.strip() == "count":
            answer = training.counted_step()
        elif line.strip() == "step":
            begin = time.perf_counter()
            training.step()
            answer = time.perf_counter() - begin
        else:
            answer = {"imported": imported, "peak": resident_bytes()[1]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
