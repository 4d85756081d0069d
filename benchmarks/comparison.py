"""What the comparisons of latents and scales share: a search for each method's learning rate, final runs, a table.

Every run is an ordinary `bnnlight fit` of one config on one thread, `--jobs` at a time; methods differ in the
backbone alone. First each method is trained once at each learning rate, and the rate with the best figure on
held-out training pictures is kept; then the final runs follow, and only they see the test pictures. Runs that are
done already are not run again. Prints JSON, and writes OUTPUT.json and OUTPUT.md.
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

    def run(self, name: str, lr: float, seed: int, epochs: int, args: argparse.Namespace, *options: str) -> dict:
        """One `bnnlight fit`; returns its results.json with the seconds it took."""
        slug = "".join(c if c.isalnum() else "-" for c in name.replace(" α", "").lower()).replace("--", "-")
        kind = "search" if "--test_after_fit=false" in options else f"epochs{epochs}"
        run_dir = Path(args.runs) / f"{slug}_lr{lr:g}_{kind}_seed{seed}"
        done = run_dir / "results.json"
        if not done.exists():
            backbone = yaml.safe_load(Path(self.config).read_text())["model"]["init_args"]["backbone"]
            command = [
                *(sys.executable, "-m", "bnnlight", "fit", "--config", self.config),
                *("--data.num_workers=0", f"--seed_everything={seed}", f"--trainer.max_epochs={epochs}"),
                *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
                f"--model.init_args.backbone={json.dumps(self.methods[name](backbone))}",
                *(f"--model.init_args.optimizer.init_args.lr={lr}", "--trainer.accelerator=cpu"),
                *(f"--run_dir={run_dir}", *args.data, *options),
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
        figure = record["results"].get(f"test/{self.metric}", record["results"][f"best val/{self.metric}"])
        print(f"{name:<22} lr {lr:<6g} seed {seed} {epochs} epochs: {100 * figure:.2f} %", file=sys.stderr, flush=True)
        return record

    def report(self, args: argparse.Namespace) -> dict:
        """Search, final runs, rows of the table."""
        # asked before the runs: they take an hour, in which work on the code may go on
        git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
        short = ["--test_after_fit=false", *args.search_options]
        with ThreadPoolExecutor(args.jobs) as pool:
            trials = [(m, lr) for lr in args.rates for m in self.methods]
            found = pool.map(lambda t: self.run(*t, args.search_seed, args.search_epochs, args, *short), trials)
            search = {t: r["results"][f"best val/{self.metric}"] for t, r in zip(trials, found, strict=True)}
            chosen = {m: max(args.rates, key=lambda lr, m=m: search[m, lr]) for m in self.methods}
            finals = [(m, s) for s in args.seeds for m in self.methods]
            records = list(pool.map(lambda f: self.run(f[0], chosen[f[0]], f[1], args.epochs, args), finals))
        rows = []
        for method in self.methods:
            own = [r for (m, _), r in zip(finals, records, strict=True) if m == method]
            figures = [100 * r["results"][f"test/{self.metric}"] for r in own]
            rows.append(
                {
                    "method": method,
                    "lr": chosen[method],
                    "search": {f"{lr:g}": 100 * search[method, lr] for lr in args.rates},
                    "test": figures,
                    "mean": statistics.mean(figures),
                    "std": statistics.stdev(figures) if len(figures) > 1 else 0.0,
                    "seconds": statistics.mean(r["seconds"] for r in own),
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
            "search_epochs": args.search_epochs,
            "search_options": args.search_options,
            "search_seed": args.search_seed,
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
        parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the final runs")
        parser.add_argument("--search-seed", type=int, default=100, help="seed of the search's runs")
        parser.add_argument("--search-epochs", type=int, default=1)
        parser.add_argument("--search-options", nargs="*", default=[], help="more options of the search's runs")
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
    rates = list(report["rows"][0]["search"])
    extra = f" ({' '.join(report['search_options'])})" if report["search_options"] else ""
    lines = [
        f"# {report['title']}",
        "",
        f"`{report['config']}`, {report['epochs']} epochs, seeds {', '.join(map(str, report['seeds']))}. "
        f"{report['metric']} on the test pictures, in %, of the checkpoint that is best on held-out training "
        "pictures; mean and standard deviation over the seeds; difference from "
        f"“{report['baseline']}” paired by seed, with its standard error. Learning rates: searched with seed "
        f"{report['search_seed']} and {report['search_epochs']} epochs{extra} on the held-out pictures; figures of "
        f"the search at {', '.join(rates)} stand last.",
        "",
        *([note, ""] if note else []),
        f"| method | learning rate | {report['metric']} | by seed | difference | seconds a run | search |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        differences = [a - b for a, b in zip(row["test"], base["test"], strict=True)]
        error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
        difference = "" if row is base else f"{statistics.mean(differences):+.2f} ± {error:.2f}"
        lines.append(
            f"| {row['method']} | {row['lr']:g} | {row['mean']:.2f} ± {row['std']:.2f} "
            f"| {', '.join(f'{a:.2f}' for a in row['test'])} | {difference} | {row['seconds']:.0f} "
            f"| {', '.join(f'{a:.1f}' for a in row['search'].values())} |"
        )
    lines += [
        "",
        f"Command: `{report['command']}`, commit {report['commit']}, on {report['machine']}, "
        f"{report['jobs']} runs at a time, each on one thread. The seconds are no benchmark: other work ran on "
        "the machine meanwhile.",
        "",
    ]
    return "\n".join(lines)
