"""One process under NCCL (gloo on a CPU), and the same under torchrun, against a run without either."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from shared_part import Findings, fit_command, options, run


def main() -> int:
    """Runs it."""
    asked = options(__doc__)
    findings = Findings(asked.output)
    few = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--model.backbone.width=0.125")
    # AdamW divides rounding by rounding where a gradient is zero, as that of a bias in front of a batch norm
    few += ("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.05")
    with tempfile.TemporaryDirectory() as folder:
        weights = {}
        for name, words in {"alone": (), "DDP": ("--trainer.strategy=ddp", "--trainer.sync_batchnorm=true")}.items():
            command = fit_command("configs/quickstart.yaml", Path(folder, name), asked.device, *few, *words)
            run(command)
            weights[name] = _weights(Path(folder, name))
        torchrun = [sys.executable, "-m", "bnnlight.commands.torchrun", "--nproc_per_node=1", "--standalone", "-m"]
        command = fit_command("configs/quickstart.yaml", Path(folder, "torchrun"), asked.device, *few, *words)
        run([*torchrun, *command[2:]])
        weights["torchrun"] = _weights(Path(folder, "torchrun"))
    for name in ("DDP", "torchrun"):
        apart = float((weights[name] - weights["alone"]).norm() / weights["alone"].norm())
        findings.check(f"processes: weights under {name}", "those without, to 1e-3", apart, apart < 1e-3)
    return 0


def _weights(run_dir: Path) -> torch.Tensor:
    state = torch.load(run_dir / "checkpoints/last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    return torch.cat([value.double().flatten() for value in state.values()])


if __name__ == "__main__":
    sys.exit(main())
