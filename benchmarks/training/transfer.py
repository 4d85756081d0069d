"""Steps that a start from a trained pose network saves on another skeleton: Leeds Sports Pose → drawn people.

    python benchmarks/training/transfer.py --start CHECKPOINT … [--output results/transfer]

A small binary hourglass (64 features, 64×64 px, dense latents, learned α, SOAP) learns 16 joints on 2,000 drawn people,
from scratch and from the checkpoints of `bnnlight fit --config configs/hg_lsp_small.yaml` in that form, which know 14
joints of photos; the heads start anew. Seed s takes the checkpoint s. Each run has a length and a schedule of its own,
whose rate falls to zero. Rates are searched alike for both, on other people than those of the results. Then PCKh@0.5 on
1,000 people to test on is drawn against the number of steps.

Each run is a line of OUTPUT.runs.jsonl; the same command goes on where it was stopped. `--report` writes page and
picture from what there is.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from transfer_report import report

from bnnlight.backbones import StackedHourglass
from bnnlight.data import PeopleDataModule
from bnnlight.experiment.save_config import provenance
from bnnlight.nn import start_from
from bnnlight.optim import SOAP
from bnnlight.tasks import PoseTask

NUM_TRAIN, BATCH_SIZE = 2000, 16
DATA_SEED, SEARCH_DATA_SEED, SEARCH_SEED = 0, 1, 100
STARTS = ("scratch", "transfer")
Run = dict[str, Any]


class DrawnOnce(PeopleDataModule):
    """Drawn people that are drawn once for all runs."""

    def setup(self, stage: str | None = None) -> None:
        if self.train_set is None:
            super().setup(stage)
            for view in (self.train_set, self.val_set, self.test_set):
                view.items = [view.items[index] for index in range(len(view.items))]


def people(seed: int) -> DrawnOnce:
    """2,000 to train on, and those to measure on."""
    return DrawnOnce(num_train=NUM_TRAIN, image_size=64, batch_size=BATCH_SIZE, num_workers=0, seed=seed)


def task(start: str | None, lr: float) -> PoseTask:
    """The network of `hg_lsp_small.yaml` at 64×64 px, with 16 joints, to be trained as there."""
    network = StackedHourglass(num_joints=16, features=64, depth=2)
    if start:
        network = start_from(network, start, leave_out=["heads.*"])
    return PoseTask(network, loss="mse", optimizer=partial(SOAP, lr=lr, weight_decay=1e-4), warmup=0.1)


def train(run: Run, checkpoint: str | None, data: DrawnOnce) -> Run:
    """Trains, and adds steps and PCKh@0.5 to the run: the search's on held-out people, else on those to test on."""
    begin = time.time()
    L.seed_everything(run["seed"], workers=True)
    module = task(checkpoint, run["lr"])
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(
        max_epochs=run["epochs"], accelerator="cpu", limit_val_batches=0, num_sanity_val_steps=0, **quiet
    )
    trainer.fit(module, data)
    steps = trainer.global_step
    # a trainer without validation while it fits has none behind it either
    measure = L.Trainer(accelerator="cpu", **quiet)
    split = "val" if run["part"] == "search" else "test"
    (figures,) = (measure.validate if split == "val" else measure.test)(module, data, verbose=False)
    return run | {"steps": steps, "pckh": figures[f"{split}/pckh"], "seconds": round(time.time() - begin)}


def best_rate(runs: list[Run], start: str) -> float:
    """Of the search."""
    return max((run for run in runs if run["part"] == "search" and run["start"] == start), key=lambda run: run["pckh"])[
        "lr"
    ]


def main() -> None:
    """Makes the runs that are not there yet, and writes page and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--start", nargs="+", help="checkpoints of pose networks with 14 joints, one a seed")
    parser.add_argument("--output", type=Path, default=Path("results/transfer"), help="path without ending")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.01, 0.03, 0.1])
    parser.add_argument("--search_epochs", type=int, nargs=2, default=[6, 2], help="from scratch, and of the transfer")
    parser.add_argument("--scratch", type=int, nargs="+", default=[3, 6, 12], help="lengths of runs, epochs")
    parser.add_argument("--transfer", type=int, nargs="+", default=[1, 2, 4], help="lengths of runs, epochs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="make no run")
    options = parser.parse_args()
    file = options.output.with_name(f"{options.output.name}.runs.jsonl")
    runs: list[Run] = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if not options.report:
        if not options.start:
            parser.error("--start: name at least one checkpoint")
        warnings.filterwarnings("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        make(options, runs, file)
    begun_from = {"start": f"{len(options.start)} checkpoints"} if options.start else {}
    report(runs, options.output, {"threads": torch.get_num_threads(), "torch": torch.__version__} | begun_from)


def make(options: argparse.Namespace, runs: list[Run], file: Path) -> None:
    """The search first, then seed by seed; each run is added to the list and to the file."""
    commit = provenance()["commit"]
    data = {"search": people(SEARCH_DATA_SEED), "curve": people(DATA_SEED)}

    def once(run: Run) -> None:
        if any(run.items() <= old.items() for old in runs):
            return
        checkpoint = options.start[run["seed"] % len(options.start)] if run["start"] == "transfer" else None
        runs.append(train(run, checkpoint, data[run["part"]]) | {"commit": commit})
        print(json.dumps(runs[-1]), flush=True)
        with file.open("a") as lines:
            lines.write(json.dumps(runs[-1]) + "\n")

    for start, epochs in zip(STARTS, options.search_epochs, strict=True):
        for lr in options.rates:
            once({"part": "search", "start": start, "epochs": epochs, "lr": lr, "seed": SEARCH_SEED})
    for seed in options.seeds:
        for start, lengths in zip(STARTS, (options.scratch, options.transfer), strict=True):
            for epochs in lengths:
                lr = best_rate(runs, start)
                once({"part": "curve", "start": start, "epochs": epochs, "lr": lr, "seed": seed})


if __name__ == "__main__":
    main()
