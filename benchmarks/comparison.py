"""What the comparisons of latents and scales share: runs of every method at every learning rate, and a table.

Every run is an ordinary `bnnlight fit` of one config on one thread, `--jobs` at a time; methods differ in the
backbone alone. Of each method the learning rate counts that is best on held-out training pictures, in the mean over
the seeds; what the others gave on the test pictures is not looked at. Runs that are done already are not run again.
Prints JSON, and writes OUTPUT.json and OUTPUT.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

Backbone = dict[str, object]


def factorized(latent: str, scale: str, **options: object) -> Callable[[Backbone], Backbone]:
    """The config's backbone with another latent and scale."""

    def change(backbone: Backbone) -> Backbone:
        chosen = {"class_path": f"bnnlight.nn.{latent}", "init_args": options}
        return {**backbone, "init_args": {**backbone["init_args"], "latent": chosen, "scale": scale}}

    return change


def real_valued(backbone: Backbone) -> Backbone:
    """The config's network with real weights and activations."""
    dense = factorized("Dense", "channel")(backbone)
    return {"class_path": "bnnlight.nn.real_valued", "init_args": {"model": dense}}


@dataclass(frozen=True)
class Comparison:
    """What is compared on what.

    Attributes:
        title: of the page.
        config: path of the experiment's YAML.
        metric: name behind ``val/`` and ``test/``.
        metric_name: for the table.
        baseline: the method that differences are taken from.
        methods: name → change of the config's backbone.
        note: paragraphs that stand above the table.
    """

    title: str
    config: str
    metric: str
    metric_name: str
    baseline: str
    methods: dict[str, Callable[[Backbone], Backbone]]
    note: str = ""

    def run(self, name: str, lr: float, seed: int, args: argparse.Namespace) -> dict:
        """One `bnnlight fit`; returns its results.json with the seconds it took."""
        slug = "".join(c if c.isalnum() else "-" for c in name.replace(" α", "").lower()).replace("--", "-")
        run_dir = Path(args.runs) / f"{slug}_lr{lr:g}_epochs{args.epochs}_seed{seed}"
        done = run_dir / "results.json"
        if not done.exists():
            backbone = yaml.safe_load(Path(self.config).read_text())["model"]["init_args"]["backbone"]
            command = [
                *(sys.executable, "-m", "bnnlight", "fit", "--config", self.config),
                *("--data.num_workers=0", f"--seed_everything={seed}", f"--trainer.max_epochs={args.epochs}"),
                *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
                f"--model.init_args.backbone={json.dumps(self.methods[name](backbone))}",
                *(f"--model.init_args.optimizer.init_args.lr={lr}", "--trainer.accelerator=cpu"),
                *(f"--run_dir={run_dir}", *args.data),
            ]
            env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
            start = time.monotonic()
            run_dir.mkdir(parents=True, exist_ok=True)
            (run_dir / "config.yaml").unlink(missing_ok=True)  # of a run that was stopped half-way
            with (run_dir / "log.txt").open("w") as log:
                code = subprocess.run(command, env=env, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
            if code:
                raise RuntimeError(f"{name}, seed {seed}, ended with {code}: see {run_dir}/log.txt")
            record = json.loads(done.read_text()) | {"seconds": time.monotonic() - start}
            done.write_text(json.dumps(record, indent=2))
        record = json.loads(done.read_text())
        figure = record["results"][f"test/{self.metric}"]
        print(f"{name:<22} lr {lr:<6g} seed {seed}: {100 * figure:.2f} %", file=sys.stderr, flush=True)
        return record

    def report(self, args: argparse.Namespace) -> dict:
        """All runs, and the rows of the table."""
        # asked before the runs: they take an hour, in which work on the code may go on
        git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        jobs = [(m, lr, s) for s in args.seeds for lr in args.rates for m in self.methods]
        with ThreadPoolExecutor(args.jobs) as pool:
            records = dict(zip(jobs, pool.map(lambda job: self.run(*job, args), jobs), strict=True))

        def figures(method: str, lr: float, key: str) -> list[float]:
            return [100 * records[method, lr, s]["results"][f"{key}/{self.metric}"] for s in args.seeds]

        rows = []
        for method in self.methods:
            held_out = {lr: statistics.mean(figures(method, lr, "best val")) for lr in args.rates}
            lr = max(held_out, key=held_out.get)
            test = figures(method, lr, "test")
            rows.append(
                {
                    "method": method,
                    "lr": lr,
                    "held_out": {f"{rate:g}": value for rate, value in held_out.items()},
                    "test": test,
                    "mean": statistics.mean(test),
                    "std": statistics.stdev(test) if len(test) > 1 else None,
                    "seconds": statistics.mean(records[method, lr, s]["seconds"] for s in args.seeds),
                }
            )
        return {
            "title": self.title,
            "config": self.config,
            "metric": self.metric_name,
            "baseline": self.baseline,
            "command": " ".join(["python", *sys.argv]),
            "commit": git.stdout.strip(),
            "machine": f"{os.cpu_count()} CPU cores ({platform.machine()})",
            "jobs": args.jobs,
            "epochs": args.epochs,
            "rates": args.rates,
            "seeds": args.seeds,
            "rows": rows,
        }

    def main(self, parser: argparse.ArgumentParser, data: Callable[[argparse.Namespace], list[str]]) -> None:
        """The script: options, runs, table.

        Args:
            parser: with the options that name the data.
            data: from the parsed options to options of `bnnlight fit`.
        """
        parser.add_argument("--output", required=True, help="path of the table without its ending")
        parser.add_argument("--runs", required=True, help="folder of the run directories")
        parser.add_argument("--rates", type=float, nargs="+", required=True, help="learning rates to try")
        parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the runs")
        parser.add_argument("--epochs", type=int, required=True)
        parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread")
        args = parser.parse_args()
        args.data = data(args)
        report = self.report(args)
        output = Path(args.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.with_suffix(".json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        output.with_suffix(".md").write_text(as_markdown(report, self.note))
        print(json.dumps(report, indent=2, ensure_ascii=False))


def as_markdown(report: dict, note: str) -> str:
    """The report as a page with one table."""
    base = next(row for row in report["rows"] if row["method"] == report["baseline"])
    several = len(report["seeds"]) > 1
    spread = "mean and standard deviation over the seeds; difference paired by seed, with its standard error"
    lines = [
        f"# {report['title']}",
        "",
        f"`{report['config']}`, {report['epochs']} epochs, seeds {', '.join(map(str, report['seeds']))}: "
        f"{report['metric']} in % on the test pictures, of the checkpoint best on held-out training pictures; "
        f"{spread if several else 'one seed, so a first look: how far seeds spread is not known'}. The learning rate "
        "is the one best on the held-out pictures, whose figures stand last.",
        "",
        *([note, ""] if note else []),
        f"| method | learning rate | {report['metric']} | by seed | against {report['baseline']} | seconds a run "
        f"| held out at {', '.join(f'{rate:g}' for rate in report['rates'])} |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        differences = [a - b for a, b in zip(row["test"], base["test"], strict=True)]
        difference = "" if row is base else f"{statistics.mean(differences):+.2f}"
        if several and row is not base:
            difference += f" ± {statistics.stdev(differences) / len(differences) ** 0.5:.2f}"
        mean = f"{row['mean']:.2f}" + (f" ± {row['std']:.2f}" if several else "")
        lines.append(
            f"| {row['method']} | {row['lr']:g} | {mean} | {', '.join(f'{a:.2f}' for a in row['test'])} "
            f"| {difference} | {row['seconds']:.0f} | {', '.join(f'{a:.1f}' for a in row['held_out'].values())} |"
        )
    lines += [
        "",
        f"Command: `{report['command']}`, commit {report['commit']}, on {report['machine']}, "
        f"{report['jobs']} runs at a time, each on one thread. The seconds are no benchmark: other work ran on "
        "the machine meanwhile.",
        "",
    ]
    return "\n".join(lines)
