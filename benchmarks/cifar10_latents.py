"""Compares latent weights and scales on CIFAR-10, each at a learning rate from one small search.

    python benchmarks/cifar10_latents.py --root DIR --output results/cifar10_latents

Every run is an ordinary `bnnlight fit` of configs/resnet_small_cifar10.yaml on one thread, `--jobs` at a time;
methods differ only in the options named in METHODS. First each method is trained once at each learning rate
for `--search-epochs`, and the rate with the best accuracy on held-out training images is kept; then the final runs
follow, and only they see the test images. Runs that are done already are not run again. Prints JSON, and
writes OUTPUT.json and OUTPUT.md.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CONFIG = "configs/resnet_small_cifar10.yaml"
BASELINE = "dense, channel α"
METHODS: dict[str, tuple[str, str, dict[str, object]]] = {
    "dense, analytic α": ("Dense", "analytic", {}),
    "dense, channel α": ("Dense", "channel", {}),
    "Matrix, channel α": ("Matrix", "channel", {"start": "svd", "factor_lr": 0.7}),
    "Tucker, channel α": ("Tucker", "channel", {"start": "hosvd", "factor_lr": 0.1}),
    "Holistic, channel α": ("Holistic", "channel", {"start": "hosvd", "factor_lr": 0.1}),
}
"""Name of a method → latent class, scale, options of the latent."""


def run(name: str, lr: float, seed: int, epochs: int, test: bool, args: argparse.Namespace) -> dict:
    """One `bnnlight fit`; returns its results.json with the seconds it took."""
    slug = name.replace(", ", "-").replace(" α", "").replace(" ", "-").lower()
    run_dir = Path(args.runs) / f"{slug}_lr{lr:g}_epochs{epochs}_seed{seed}"
    done = run_dir / "results.json"
    if not done.exists():
        latent, scale, options = METHODS[name]
        # given whole: with the class alone, options of the config's class would stay where names agree
        latent_option = json.dumps({"class_path": f"bnnlight.nn.{latent}", "init_args": options})
        backbone = "--model.init_args.backbone.init_args"
        command = [
            *(sys.executable, "-m", "bnnlight", "fit", "--config", CONFIG),
            *(f"--data.root={args.root}", "--data.num_workers=0", f"--seed_everything={seed}"),
            *(f"--trainer.max_epochs={epochs}", "--trainer.enable_progress_bar=false"),
            *("--trainer.accelerator=cpu", "--trainer.enable_model_summary=false"),
            *(f"{backbone}.latent={latent_option}", f"{backbone}.scale={scale}"),
            *(f"--model.init_args.optimizer.init_args.lr={lr}", f"--test_after_fit={str(test).lower()}"),
            f"--run_dir={run_dir}",
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
    figure = record["results"].get("test/acc1", record["results"]["best val/acc1"])
    print(f"{name:<22} lr {lr:<6g} seed {seed} {epochs} epochs: {100 * figure:.2f} %", file=sys.stderr, flush=True)
    return record


def main() -> None:
    """Search, final runs, table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--root", required=True, help="CIFAR-10's folder")
    parser.add_argument("--output", default="results/cifar10_latents", help="path of the table without its ending")
    parser.add_argument("--runs", default="runs/cifar10_latents", help="folder of the run directories")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.003, 0.01, 0.03], help="learning rates to try")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the final runs")
    parser.add_argument("--search-seed", type=int, default=100, help="seed of the search's runs")
    parser.add_argument("--search-epochs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread")
    args = parser.parse_args()
    # asked before the runs: they take an hour, in which work on the code may go on
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    commit = git.stdout.strip()
    with ThreadPoolExecutor(args.jobs) as pool:
        trials = [(m, lr) for lr in args.rates for m in METHODS]
        found = pool.map(lambda t: run(*t, args.search_seed, args.search_epochs, False, args), trials)
        search = {t: r["results"]["best val/acc1"] for t, r in zip(trials, found, strict=True)}
        chosen = {m: max(args.rates, key=lambda lr, m=m: search[m, lr]) for m in METHODS}
        finals = [(m, s) for s in args.seeds for m in METHODS]
        records = list(pool.map(lambda f: run(f[0], chosen[f[0]], f[1], args.epochs, True, args), finals))
    rows = []
    for method in METHODS:
        own = [r for (m, _), r in zip(finals, records, strict=True) if m == method]
        accuracies = [100 * r["results"]["test/acc1"] for r in own]
        rows.append(
            {
                "method": method,
                "lr": chosen[method],
                "search_val_acc1": {f"{lr:g}": 100 * search[method, lr] for lr in args.rates},
                "test_acc1": accuracies,
                "mean": statistics.mean(accuracies),
                "std": statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0,
                "seconds": statistics.mean(r["seconds"] for r in own),
            }
        )
    report = {
        "data": "CIFAR-10 (JPEG)" if (Path(args.root) / "train").is_dir() else "CIFAR-10",
        "command": " ".join(["python", *sys.argv]).replace(str(args.root), "DIR"),
        "commit": commit,
        "machine": f"{os.cpu_count()} CPU cores ({platform.machine()}), {args.jobs} runs at a time, one thread each",
        "epochs": args.epochs,
        "search_epochs": args.search_epochs,
        "search_seed": args.search_seed,
        "seeds": args.seeds,
        "rows": rows,
    }
    output = Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    output.with_suffix(".md").write_text(as_markdown(report))
    print(json.dumps(report, indent=2, ensure_ascii=False))


def as_markdown(report: dict) -> str:
    """The report as a page with one table."""
    base = next(row for row in report["rows"] if row["method"] == BASELINE)
    rates = list(report["rows"][0]["search_val_acc1"])
    lines = [
        f"# Latent weights and scales on {report['data']}",
        "",
        f"`{CONFIG}`: {report['epochs']} epochs of 45,000 training images, seeds "
        f"{', '.join(map(str, report['seeds']))}; 5,000 training images held out. Test accuracy in % of the "
        "checkpoint that is best on the held-out images, mean and standard deviation over the seeds; difference "
        f"from “{BASELINE}” paired by seed, with its standard error. Learning rates: searched with seed "
        f"{report['search_seed']} and {report['search_epochs']} epochs on the held-out images; accuracies of the "
        f"search at {', '.join(rates)} stand last.",
        "",
        "| method | learning rate | test accuracy | by seed | difference | seconds a run | search |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        differences = [a - b for a, b in zip(row["test_acc1"], base["test_acc1"], strict=True)]
        error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else 0.0
        difference = "" if row is base else f"{statistics.mean(differences):+.2f} ± {error:.2f}"
        lines.append(
            f"| {row['method']} | {row['lr']:g} | {row['mean']:.2f} ± {row['std']:.2f} "
            f"| {', '.join(f'{a:.2f}' for a in row['test_acc1'])} | {difference} | {row['seconds']:.0f} "
            f"| {', '.join(f'{a:.1f}' for a in row['search_val_acc1'].values())} |"
        )
    lines += [
        "",
        f"Command: `{report['command']}`, commit {report['commit']}, on {report['machine']}. The seconds are no "
        "benchmark: other work ran on the machine meanwhile.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
