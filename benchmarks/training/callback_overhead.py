"""What watching a binary network costs: each callback's look, and all of them together, against the plain step.

    python benchmarks/training/callback_overhead.py [--pairs N]

Two networks with Tucker latents as their configs have them, trained on one batch of random pictures or drawn people
with the loggers of a real run (metrics.jsonl, and Weights & Biases offline). Blocks of ten steps take turns: in one no
callback is there, in the next all are, and each looks once, in the block's last step. Reported are

- for each callback the seconds of a look (median), with what its hooks on the layers take, and of a step that is not
  looked at; its share of the training time at its default interval;
- the sum of the shares, which must be at most 0.02;
- measured end to end, logging and all: by how many seconds the last step of a block, in which each looks, is longer
  than the block's other steps, less the same difference in the neighbouring block without callbacks (median over the
  pairs), and what share that would be if all looked every 50 steps, the shortest default interval;
- bytes that the callbacks keep, over bytes of the binary layers' real weights, which must be at most 1/16.

Prints JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bnnlight.callbacks import Activations, Alphas, FactorRanks, FlipRates, StepTime
from bnnlight.data import PeopleDataModule
from bnnlight.experiment.experiment import Experiment
from bnnlight.nn import named_binary_layers
from bnnlight.tracking import MetricsFile, WandbRun

CONFIGS = ("configs/resnet_small_cifar10.yaml", "configs/hg_people.yaml")
CALLBACKS = (FlipRates, FactorRanks, Alphas, Activations, StepTime)
BLOCK = 10
"""Steps of a block."""
LIMIT, KEPT_LIMIT = 0.02, 1 / 16


class InTurn(L.Callback):
    """Hands Lightning's calls to the callbacks in every second block of steps, and times calls and blocks."""

    def __init__(self) -> None:
        self.callbacks = [make(interval=BLOCK) for make in CALLBACKS]
        self.looks, self.other_steps = defaultdict(list), defaultdict(list)
        self.begins: list[float] = []
        self.kept_bytes = 0
        self._spent: dict[str, float] = defaultdict(float)
        for callback in self.callbacks:
            if isinstance(callback, Activations):
                callback._see = self._timed(callback, callback._see)

    def _timed(self, callback: L.Callback, function: Callable) -> Callable:
        def call(*args: Any) -> None:
            begin = time.perf_counter()
            function(*args)
            self._spent[type(callback).__name__] += time.perf_counter() - begin

        return call

    def _call(self, hook: str, *args: Any) -> None:
        for callback in self.callbacks:
            self._timed(callback, getattr(callback, hook))(*args)

    def on_train_start(self, *args: Any) -> None:
        self._call("on_train_start", *args)

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        self.begins.append(time.perf_counter())
        if trainer.global_step // BLOCK % 2:
            self._spent.clear()
            self._call("on_train_batch_start", trainer, *args)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        last = trainer.global_step % BLOCK == 0
        if (trainer.global_step - 1) // BLOCK % 2:
            self._call("on_train_batch_end", trainer, *args)
            for name, seconds in self._spent.items():
                (self.looks if last else self.other_steps)[name].append(seconds)
        if last:
            self.kept_bytes = sum(tensor_bytes(vars(callback)) for callback in self.callbacks)

    def on_train_end(self, *args: Any) -> None:
        self.begins.append(time.perf_counter())

    def steps(self) -> list[list[float]]:
        """Seconds of every step, from its beginning to the next one's, block by block."""
        seconds = [after - before for before, after in itertools.pairwise(self.begins)]
        return [seconds[begin : begin + BLOCK] for begin in range(0, len(seconds), BLOCK)]


def tensor_bytes(kept: Any) -> int:
    """Bytes of all tensors in a nest of dictionaries, lists and tuples."""
    if isinstance(kept, Tensor):
        return kept.numel() * kept.element_size()
    if isinstance(kept, dict):
        kept = list(kept.values())
    return sum(map(tensor_bytes, kept)) if isinstance(kept, list | tuple) else 0


class OneBatch(L.LightningDataModule):
    """Yields one batch over and over, so that nothing waits for data."""

    def __init__(self, datamodule: L.LightningDataModule, num_batches: int) -> None:
        super().__init__()
        self.batches = [a_batch(datamodule)] * num_batches
        self.skeleton = getattr(datamodule, "skeleton", None)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)


def a_batch(datamodule: L.LightningDataModule) -> Any:
    """Random pictures with labels, or drawn people with their joints."""
    if isinstance(datamodule, PeopleDataModule):
        datamodule.setup("fit")
        return next(iter(datamodule.train_dataloader()))
    return torch.randn(datamodule.batch_size, 3, 32, 32), torch.randint(10, (datamodule.batch_size,))


def layer_bytes(model: nn.Module) -> int:
    """Bytes of the real weights W̃ of all binary layers, in single precision."""
    return 4 * sum(layer.weight_shape.numel() for _, layer in named_binary_layers(model))


def measure(config: str, num_pairs: int) -> dict[str, Any]:
    """Trains the config's network, first one pair of blocks to warm up, and sums up what was timed."""
    experiment = Experiment("fit", "", ["--config", config])
    num_steps = 2 * BLOCK * (num_pairs + 1)
    data, in_turn = OneBatch(experiment.datamodule, num_steps), InTurn()
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=num_steps,
            logger=[WandbRun(folder), MetricsFile(folder)],
            callbacks=[in_turn],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(experiment.model, data)
        trainer.loggers[0].experiment.finish()
    blocks = in_turn.steps()[2:]
    step_s = statistics.median(second for block in blocks[::2] for second in block)
    results: dict[str, Any] = {}
    for callback in CALLBACKS:
        name, interval = callback.__name__, callback().interval.steps
        look_s = statistics.median(in_turn.looks[name][1:])
        other_s = statistics.median(in_turn.other_steps[name][BLOCK - 1 :])
        share = (look_s / interval + other_s) / step_s
        results[name] = {"interval": interval, "look_s": look_s, "other_step_s": other_s, "share": share}
    last = [block[-1] - statistics.median(block[:-1]) for block in blocks]
    extra_s = statistics.median(b - a for a, b in zip(last[::2], last[1::2], strict=True))
    shortest = min(entry["interval"] for entry in results.values())
    return {
        "num_binary_layers": len(list(named_binary_layers(experiment.model))),
        "step_s": step_s,
        "callbacks": results,
        "share_of_all": sum(entry["share"] for entry in results.values()),
        "end_to_end": {
            "extra_s_per_look_of_all": extra_s,
            "sum_of_looks_s": sum(entry["look_s"] for entry in results.values()),
            "share_if_all_looked_every_50_steps": extra_s / (shortest * step_s),
        },
        "kept_bytes": in_turn.kept_bytes,
        "kept_over_weights": in_turn.kept_bytes / layer_bytes(experiment.model),
    }


def main() -> None:
    """Measures both networks, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--pairs", type=int, default=10, help="pairs of blocks, after one pair to warm up")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ |= {"WANDB_SILENT": "true", "WANDB_MODE": "offline"}
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    results = {config: measure(config, args.pairs) for config in CONFIGS}
    record = {
        "machine": platform.machine(),
        "torch": torch.__version__,
        "threads": args.threads,
        "pairs": args.pairs,
        "limits": {"share_of_all": LIMIT, "kept_over_weights": KEPT_LIMIT},
        "within_limits": all(
            r["share_of_all"] <= LIMIT and r["kept_over_weights"] <= KEPT_LIMIT for r in results.values()
        ),
        "results": results,
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
