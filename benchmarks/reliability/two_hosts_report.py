"""The record of two_hosts.py as Markdown."""

from __future__ import annotations

from typing import Any

_WAYS = {
    "killed": "B: all processes killed at once",
    "cut": "B: cable pulled, nothing closed; processes killed later",
    "first": "A, which has rank 0 (the rendezvous is on B): cable pulled",
    "worker": "B: the training process killed, torchrun alive",
    "rendezvous": "B, which holds the rendezvous: cable pulled; both hosts started again",
}


def report(record: dict[str, Any]) -> str:
    """Differences of weights, then a row for each way to die."""
    results = record["results"]
    lines = [
        "# Training on two hosts, and the death of one",
        "",
        "Two network namespaces on one machine, with addresses and host names of their own, joined by a switch; gloo "
        "on CPUs, one process a host, `configs/quickstart.yaml` with `--model.backbone.width 0.125 "
        "--trainer.sync_batchnorm true` and 32 pictures a process.",
        "",
    ]
    if "same" in results:
        lines += [
            "## Two hosts learn what one process learns",
            "",
            "Trained weights after 20 steps on 64 pictures, on two hosts and in one process: the largest difference, "
            "and the largest over the largest number of the same tensor (tensors of nothing but rounding, below 1e-6, "
            "left out). float64 with the config's AdamW, float32 with SGD. In float32 a sign turns over where rounding "
            "moves a value past zero, which batch norms' running statistics show.",
            "",
            "| | largest difference of weights | largest relative | of running statistics |",
            "|---|---|---|---|",
        ]
        lines += [f"| {name} | {_differences(apart)} |" for name, apart in results["same"].items()]
        lines.append("")
    deaths = {name: found for name, found in results.items() if name in _WAYS}
    if deaths:
        lines += [
            "## A host dies",
            "",
            f"In the second of three epochs, with `--heartbeat.timeout_s {record['timeout_s']:g}` and "
            "`--last_checkpoint.steps 5`, torchrun with `--max-restarts 3 --rdzv-backend c10d` and "
            "`TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1` in the environment. Seconds: until the "
            "job on the other host printed its error, and until none of its processes was left. Then the dead host "
            "came back, and the run went on from its last checkpoint; its weights beside those of an unbroken run.",
            "",
            "| what happened | error after | processes gone after | torchrun there | exit statuses in the end "
            "| W&B runs | largest difference of weights | largest relative | of running statistics |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for name, found in deaths.items():
            seconds = f"{found['seconds']} s | {found['gone_after']} s"
            codes = ", ".join(map(str, found["exit"]))
            apart = _differences(found["differences"])
            lines.append(
                f"| {_WAYS[name]} | {seconds} | {found['torchrun']} | {codes} | {found['wandb_runs']} | {apart} |"
            )
        lines += ["", "What the user of the other host reads:", ""]
        lines += [f"- {_WAYS[name]}: `{found['error']}`" for name, found in deaths.items()]
        if error := deaths.get("rendezvous", {}).get("torchrun_error"):
            lines += ["", f"And of torchrun, where the rendezvous is lost: `{error}`"]
        lines.append("")
    command = f"python benchmarks/reliability/{record['command']}"
    lines += [f"Command: `{command}`, commit {record['commit']}, {record['machine']}.", ""]
    return "\n".join(lines)


def _differences(apart: dict[str, float]) -> str:
    return " | ".join(f"{apart[name]:.1e}" for name in ("largest", "relative", "statistics"))
