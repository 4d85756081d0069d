"""`hg_mpii.yaml` on drawn people in MPII's layout, for 200 steps, killed once by SIGKILL and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from drawn_mpii import draw_mpii
from part import Findings, fit_command, options, rows_of


def main() -> int:
    """Runs it."""
    asked = options(__doc__)
    findings = Findings(asked.output)
    steps = 16 if asked.small else 200
    size = (
        ("--data.image_size=64", "--data.batch_size=4", "--model.backbone.features=32", "--model.backbone.depth=2")
        if asked.small
        else ("--trainer.precision=bf16-mixed",)
    )
    with tempfile.TemporaryDirectory() as folder:
        root = draw_mpii(Path(folder, "mpii"), *(32, 8) if asked.small else (768, 64))
        run_dir = Path(folder, "run")
        # a cosine whose length does not depend on where the run was stopped
        command = fit_command(
            *("configs/hg_mpii.yaml", run_dir, asked.device, f"--data.root={root}", f"--trainer.max_steps={steps}"),
            *("--resume", f"--last_checkpoint.steps={steps // 8}", "--trainer.log_every_n_steps=1", *size),
            "--data.boxes=raw",
            f"--trainer.check_val_every_n_epoch={1 if asked.small else 4}",
        )
        process = subprocess.Popen(command, start_new_session=True)
        try:
            while process.poll() is None and _step(run_dir) < steps // 2:
                time.sleep(0.1)
            at, finished = _step(run_dir), process.poll() is not None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        findings.check("pose: killed in mid-run", f"behind step {steps // 2}", at, not finished and at >= steps // 2)
        begin = time.monotonic()
        code = subprocess.run(command).returncode
        findings.figure("seconds of the second half", time.monotonic() - begin)
        rows = rows_of(run_dir)
        logged = [row["step"] for row in rows if "train/loss" in row]
        findings.check("pose: resumed to the end", f"step {steps}, exit code 0", [_step(run_dir), code], code == 0)
        findings.check("pose: no step twice, none missing", "each once", len(logged), logged == sorted(set(logged)))
        losses = [row["train/loss"] for row in rows if "train/loss" in row]
        findings.check(
            "pose: the loss falls",
            "last below first",
            losses[:1] + losses[-1:],
            bool(losses) and losses[-1] < losses[0],
        )
        for key in ("time/step", "time/data", "mem/peak"):
            found = [row[key] for row in rows if key in row]
            if found:
                findings.figure(key, found[-1])
        results = run_dir / "results.json"
        if results.is_file():
            figures = json.loads(results.read_text())["results"]
            findings.figure("PCKh@0.5 on drawn people", figures.get("best val/pckh"))
    return 0


def _step(run_dir: Path) -> int:
    return max((row["step"] for row in rows_of(run_dir)), default=0)


if __name__ == "__main__":
    sys.exit(main())
