"""ResNet-18 on CIFAR-10-shaped pictures by `resnet18_cifar10_recu.yaml`, with accuracy by minute.

One epoch tells how many fit into the time, and the learning-rate schedule is as long as they take.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from part import Findings, draw_classes, fit_command, options, rows_of, run

CONFIG = "configs/resnet18_cifar10_recu.yaml"


def main() -> int:
    """Runs it."""
    asked = options(__doc__)
    findings = Findings(asked.output)
    with tempfile.TemporaryDirectory() as folder:
        root = asked.data or draw_classes(Path(folder, "drawn"), *(160, 40) if asked.small else (10000, 1000))
        findings.figure("pictures", "CIFAR-10" if asked.data else "drawn stripes of ten directions")
        words = [f"--data.root={root}"]
        if not asked.data:
            words.append(f"--data.val_size={40 if asked.small else 1000}")
        if asked.small:
            words += ["--trainer.precision=32-true", "--model.backbone.width=0.125", "--data.batch_size=32"]
            words += ["--data.num_workers=0"]
        begin = time.monotonic()
        run(fit_command(CONFIG, Path(folder, "first"), asked.device, *words, "--trainer.max_epochs=1"))
        whole_s = time.monotonic() - begin
        run(fit_command(CONFIG, Path(folder, "second"), asked.device, *words, "--trainer.max_epochs=3"))
        # two epochs more, the start being the same
        epoch_s = max((time.monotonic() - begin - 2 * whole_s) / 2, 0.05)
        findings.figure("seconds an epoch", epoch_s)
        left = asked.end - time.monotonic() - (whole_s - epoch_s) - 5
        epochs = max(2, min(int(0.9 * left / epoch_s), 4 if asked.small else 600))
        findings.figure("epochs", epochs)
        warmup = min(5 / epochs, 0.1)
        run_dir = Path(folder, "run")
        process = subprocess.Popen(
            fit_command(
                CONFIG, run_dir, asked.device, *words, f"--trainer.max_epochs={epochs}", f"--model.warmup={warmup}"
            )
        )
        begin, seen = time.monotonic(), 0
        try:
            while process.poll() is None:
                seen = _note(findings, run_dir, seen, begin)
                time.sleep(0.5)
        finally:
            process.kill()
        _note(findings, run_dir, seen, begin)
        findings.check("classify: to its end", "exit code 0", process.returncode, process.returncode == 0)
        test = [row["test/acc1"] for row in rows_of(run_dir) if "test/acc1" in row]
        findings.check(
            "classify: test accuracy", "above chance, 0.1", test, bool(test) and (test[-1] > 0.15 or asked.small)
        )
    return 0


def _note(findings: Findings, run_dir: Path, seen: int, begin: float) -> int:
    """Notes the last validation of each minute; returns how many there are."""
    found = [row["val/acc1"] for row in rows_of(run_dir) if "val/acc1" in row]
    if len(found) > seen:
        minutes = (time.monotonic() - begin) / 60
        findings.figure(f"minute {int(minutes) + 1}", {"epoch": len(found), "held-out accuracy": found[-1]})
    return len(found)


if __name__ == "__main__":
    sys.exit(main())
