"""Adam in the basis in which its step for each entry means most."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from bnnlight.optim.adamw_inside import AdamWInside, Layers
from bnnlight.optim.eigenbasis import eigenbasis, renewed
from bnnlight.optim.modes import covariance, rotate
from bnnlight.optim.products import products as product
from bnnlight.optim.stack import Stack

Modes = Literal["all", "channels", "output", "input", "kernel"]
_MODES = {"channels": slice(0, 2), "output": slice(0, 1), "input": slice(1, 2), "kernel": slice(2, None)}


class SOAP(AdamWInside):
    """Adam in the eigenbases of the gradients' covariances, for latents and real weights; AdamW for vectors.

    For a gradient G of a weight (O, I, kh, kw), with a covariance C_m and a basis Q_m for each mode m that gets one:

        C_m ← β C_m + (1 − β) G_(m) G_(m)ᵀ       G_(m): the gradient as a matrix with mode m as its rows
        Q_m ← eigenvectors of C_m                 now and then, by one step of orthogonal iteration
        G′ = G ×_m Q_mᵀ                           the gradient in these bases
        M ← β₁ M + (1 − β₁) G′,   V ← β₂ V + (1 − β₂) G′²
        W ← W − lr · √(1 − β₂ᵗ)/(1 − β₁ᵗ) · (M / (√V + ε)) ×_m Q_m

    M is kept in the bases, and turned with them. The first step only begins the covariances.

    It costs, for n output and n input channels and 3×3 px, 36 n³ multiply-adds a step, and 18 n³ where the covariances
    are updated; a basis costs some 15 n³ when it is renewed, and of all bases only a few are in one step, so that steps
    take about equally long. Each basis takes memory for two n × n matrices. The kernel's modes cost next to nothing.

    Args:
        params: groups ``{"params": …, "name": …}``, as :func:`bnnlight.optim.parameter_groups` names them.
        lr: learning rate.
        betas: β₁ and β₂, of vectors too.
        eps: ε.
        weight_decay: decoupled. A task sets it to 0 for all but real weights.
        modes: which modes of a weight get a basis: ``all``, ``channels`` (output and input), ``output``, ``input`` or
            ``kernel`` (height and width). A matrix, such as a factor, has the first two alone.
        covariance_beta: β; β₂ unless given.
        covariance_interval: steps from one update of the covariances to the next.
        interval: steps from one renewal of a basis to the next.
        spread: whether the bases are renewed a few at a time, each ``interval`` steps after its last renewal; else all
            are in the same step.
        last_renewal: a weight's own step, behind which bases and covariances stay as they are; None: they never do.
        max_size: a mode with more entries gets no basis, and a line says so.
        layers: whose weights are stepped so: of ``binary`` layers, of ``real`` ones, or of ``all``; the rest by AdamW.
        products: ``bfloat16`` rotates with factors of that type, which is quicker where the processor or GPU has such
            instructions; statistics stay as they are.
        share: whether processes that train together step a part of the matrices each, instead of all of them.

    Raises:
        ValueError: a number is out of range, or the device cannot compute eigenvectors.

    Source: Vyas et al., 2024, https://arxiv.org/abs/2409.11321.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-3,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        modes: Modes = "all",
        covariance_beta: float | None = None,
        covariance_interval: int = 1,
        interval: int = 10,
        spread: bool = True,
        last_renewal: int | None = None,
        max_size: int = 4096,
        layers: Layers = "all",
        products: Literal["float32", "bfloat16"] = "float32",
        share: bool = False,
    ) -> None:
        if modes not in ("all", *_MODES):
            raise ValueError(f"modes of SOAP is {modes!r}: choose all, {', '.join(_MODES)}")
        if products not in ("float32", "bfloat16"):
            raise ValueError(f"products of SOAP is {products!r}: choose float32 or bfloat16")
        if covariance_beta is not None and not 0 <= covariance_beta < 1:
            raise ValueError(f"covariance_beta of SOAP is {covariance_beta}: give a number of at least 0 and below 1")
        for name, value, least in (
            ("covariance_interval", covariance_interval, 1),
            ("interval", interval, 1),
            ("last_renewal", last_renewal, 0),
            ("max_size", max_size, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} of SOAP is {value}: give at least {least}")
        self._said: set[str] = set()
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "modes": modes}
        defaults |= {"covariance_beta": covariance_beta, "covariance_interval": covariance_interval}
        defaults |= {"interval": interval, "spread": spread, "last_renewal": last_renewal, "max_size": max_size}
        super().__init__(params, defaults | {"products": products}, layers, share)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._said = set()

    def _modes(self, shape: tuple[int, ...], group: dict[str, Any]) -> list[int]:
        """The dimensions that get a basis."""
        asked = range(len(shape))[_MODES.get(group["modes"], slice(None))]
        large = [mode for mode in asked if shape[mode] > group["max_size"]]
        if large:
            size = "×".join(map(str, shape))
            self._say(
                f"a weight of {size} gets no basis for its {shape[large[0]]} entries of mode "
                f"{large[0]}, more than max_size {group['max_size']}"
            )
        # of a single entry the basis would be ±1
        return [mode for mode in asked if 1 < shape[mode] <= group["max_size"]]

    def _layout(self, shape: tuple[int, ...], group: dict[str, Any]) -> tuple[int, ...]:
        """Output channels first and input channels last: products along both ends are large."""
        return (0, *range(2, len(shape)), 1)

    def _begin(self, stacks: list[tuple[Stack, dict[str, Any]]]) -> None:
        for stack, group in stacks:
            if "step" not in self.state[stack.params[0]]:
                self._plan(stack.params, group)

    def _step_matrices(self, stack: Stack, group: dict[str, Any]) -> None:
        states = [self.state[p] for p in stack.params]
        gradient = stack.gradients()
        age = states[0].get("step", 0)
        shape = tuple(stack.params[0].shape)
        modes = {stack.order.index(mode): mode for mode in self._modes(shape, group)}
        beta1, beta2 = group["betas"]
        beta = beta2 if group["covariance_beta"] is None else group["covariance_beta"]
        covariances = {
            place: stack.entry(states, f"covariance{mode}", lambda p=place: _zeros(gradient, p))
            for place, mode in modes.items()
        }
        is_first = age == 0
        if is_first:
            for place, each in covariances.items():
                _take_in(each, gradient, place, 1 - beta)
        bases = {
            place: stack.entry(states, f"basis{mode}", lambda p=place: eigenbasis(_finite(covariances[p])))
            for place, mode in modes.items()
        }
        average = stack.entry(states, "exp_avg", lambda: torch.zeros_like(gradient), is_shaped=True)
        square = stack.entry(states, "exp_avg_sq", lambda: torch.zeros_like(gradient), is_shaped=True)
        for state in states:
            state["step"] = age + 1
        if is_first:
            return
        dtype = torch.bfloat16 if group["products"] == "bfloat16" else None
        turned = rotate(gradient, bases, dtype=dtype)
        average.lerp_(turned, 1 - beta1)
        square.mul_(beta2).addcmul_(turned, turned, value=1 - beta2)
        update = rotate(average / square.sqrt().add_(group["eps"]), bases, back=True, dtype=dtype)
        rate = float(group["lr"])
        size = rate * math.sqrt(1 - beta2**age) / (1 - beta1**age)
        stack.move(update, -size)
        stack.shrink(rate * group["weight_decay"])
        if group["last_renewal"] is not None and age > group["last_renewal"]:
            return
        if age % group["covariance_interval"] == 0:
            for place, each in covariances.items():
                _take_in(each, gradient, place, 1 - beta ** group["covariance_interval"])
        for place, mode in modes.items():
            due = [i for i, s in enumerate(states) if (age + s[f"slot{mode}"]) % group["interval"] == 0]
            if due:
                self._renew(due, place, covariances[place], bases[place], average, square)

    def _plan(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Gives each basis a turn among the steps of an interval: that of least work so far."""
        work = [0] * group["interval"]
        for p, state in self.state.items():
            for name, slot in state.items():
                if name.startswith("slot"):
                    # counted from now on: those that began earlier are at other steps of theirs
                    turn = (state.get("step", 0) + slot) % len(work)
                    work[turn] += p.shape[int(name.removeprefix("slot"))] ** 3
        for p in params:
            for mode in self._modes(tuple(p.shape), group):
                slot = min(range(len(work)), key=work.__getitem__) if group["spread"] else 0
                self.state[p][f"slot{mode}"] = slot
                work[slot] += p.shape[mode] ** 3

    def _renew(
        self, due: list[int], place: int, covariances: Tensor, bases: Tensor, average: Tensor, square: Tensor
    ) -> None:
        """One step of iteration for some bases along one mode, with all that is kept in them."""
        finite = covariances[due].isfinite().all(-1).all(-1)
        if not bool(finite.all()):
            self._say("a covariance of gradients is not finite: it begins anew, and its basis stays as it is")
            for index, is_finite in zip(due, finite.tolist(), strict=True):
                if not is_finite:
                    covariances[index].zero_()
            due = [index for index, is_finite in zip(due, finite.tolist(), strict=True) if is_finite]
            if not due:
                return
        old = bases[due]
        new, order = renewed(covariances[due], old)
        average[due] = rotate(average[due], {place: product(old.mT, new)})
        kept = square[due]
        index = order.view(len(due), *(-1 if d == place else 1 for d in range(kept.ndim - 1))).expand_as(kept)
        square[due] = kept.gather(place + 1, index)
        bases[due] = new

    def _say(self, what: str) -> None:
        """Once for each text, and once for all processes."""
        dist = torch.distributed
        is_first = not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0
        if what not in self._said and is_first:
            print(f"SOAP: {what}", file=sys.stderr, flush=True)
        self._said.add(what)


def _zeros(gradient: Tensor, place: int) -> Tensor:
    size = gradient.shape[place + 1]
    return gradient.new_zeros(len(gradient), size, size)


def _take_in(average: Tensor, gradient: Tensor, place: int, weight: float) -> None:
    average.lerp_(covariance(gradient, place), weight)


def _finite(matrix: Tensor) -> Tensor:
    return matrix.nan_to_num(0.0, 0.0, 0.0)
