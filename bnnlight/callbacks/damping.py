"""Logs for how many binary weights Adam's ε shortens the step, and warns where it is most of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.optim import Optimizer

KEY = "bnn/damped"
_MOST = 0.5


class Damping(L.Callback):
    """Logs ``bnn/damped`` at each validation: share of the latents' entries whose steps ε shortens.

    Adam divides a step by √v̂ + ε, where v̂ is the mean of squared gradients. Where √v̂ is below ε, a step is less than
    half as long as it would be without ε, and the smaller the gradient the shorter: the optimizer is SGD there.
    Networks that predict heat maps come close to this: a loss that is a mean over pixels and joints, and a scale α in
    each layer, leave latents gradients of 3e-8 to 3e-7 (LSP, hg_lsp_small.yaml, 150 steps).

    Entries are those in which the optimizer steps: of the latents, or of their gradients in SOAP's bases. Those that
    never had a gradient are left out. RMSprop's are counted likewise, without a correction for its start. Optimizers
    without ε or without a mean of squares log nothing. With several processes, the first one logs what it steps itself.
    Where more than half are shortened, one line on standard error says so, once.

    Source of the step: Kingma & Ba, 2015, https://arxiv.org/abs/1412.6980, algorithm 1.
    """

    def __init__(self) -> None:
        self._has_told = False

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        roots = [entry for optimizer in trainer.optimizers for entry in _roots(optimizer)]
        number = sum(int((root > 0).sum()) for root, _ in roots)
        if not number:
            return
        share = sum(int(((root > 0) & (root < eps)).sum()) for root, eps in roots) / number
        # not averaged over processes: of those that share the work one may have no latents, and would not take part
        pl_module.log(KEY, share, rank_zero_only=True)
        if share > _MOST and not self._has_told:
            eps = max(eps for _, eps in roots)
            print(
                f"optimizer: its eps of {eps:g} makes {100 * share:.0f} % of the binary weights' steps less than half "
                "as long, as their gradients are smaller; with --model.optimizer.eps=1e-15 they have their full length",
                file=sys.stderr,
                flush=True,
            )
            self._has_told = True


def _roots(optimizer: Optimizer) -> Iterator[tuple[Tensor, float]]:
    """√v̂ and ε of each latent."""
    for group in optimizer.param_groups:
        if not str(group.get("name", "")).startswith("latent") or "eps" not in group:
            continue
        for p in group["params"]:
            state: dict[str, Any] = optimizer.state.get(p, {})
            if "square_avg" in state:
                yield state["square_avg"].sqrt(), float(group["eps"])
            elif "exp_avg_sq" in state and "betas" in group:
                steps = float(state.get("step", group.get("step", 1)))
                square = state["exp_avg_sq"] / max(1 - group["betas"][1] ** steps, torch.finfo(torch.float32).eps)
                yield square.sqrt(), float(group["eps"])
