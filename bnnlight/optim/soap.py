"""`SOAP`: Adam in the eigenbases of the gradients' covariances."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from bnnlight.nn.compute.product import factor_dtype
from bnnlight.optim.adamw_inside import AdamWInside, Layers
from bnnlight.optim.eigenbasis import eigenbasis, renewed
from bnnlight.optim.modes import covariance, rotate
from bnnlight.optim.pieces import INPUT, KERNEL, OUTPUT, Pieces
from bnnlight.optim.products import products as product
from bnnlight.optim.sharing import num_processes
from bnnlight.optim.stack import Stack

Modes = Literal["all", "channels", "output", "input", "kernel", "matrix"]
_MODES = {
    "all": (OUTPUT, KERNEL, INPUT),
    "channels": (OUTPUT, INPUT),
    "output": (OUTPUT,),
    "input": (INPUT,),
    "kernel": (KERNEL,),
    "matrix": (OUTPUT, INPUT),
}
_NAMES = {OUTPUT: "output", KERNEL: "kernel", INPUT: "input"}


_AT_ONCE = 600_000
"""Entries that are turned and stepped together on a CPU: about what its nearer caches hold."""


class SOAP(AdamWInside):
    """Adam in the eigenbases of the gradients' covariances, for latents and real weights; AdamW for vectors.

    A weight (O, I, kh, kw) is the tensor (O, kh·kw, I), cut into pieces of at most b output and b input channels. For a
    gradient G of a piece, with a covariance C_m and a basis Q_m for each mode m:

        C_m ← β C_m + (1 − β) G_(m) G_(m)ᵀ       G_(m): the gradient as a matrix with mode m as its rows
        Q_m ← eigenvectors of C_m                 now and then, by one step of orthogonal iteration
        G′ = G ×_m Q_mᵀ                           the gradient in these bases
        M ← β₁ M + (1 − β₁) G′,   V ← β₂ V + (1 − β₂) G′²
        W ← W − lr · √(1 − β₂ᵗ)/(1 − β₁ᵗ) · (M / (√V + ε)) ×_m Q_m

    M is kept in the bases, and turned with them. The first step only begins the covariances.

    For N weights, a step costs some 4 b N multiply-adds, and 2 b N to update the covariances; renewing a basis costs
    some 15 b³. Each step updates and renews only a few, so that steps take about equally long.
    Each basis takes memory for two b × b matrices. The kernel's basis costs next to nothing.

    Args:
        params: groups ``{"params": …, "name": …}``, as :func:`bnnlight.optim.parameter_groups` names them.
        lr: learning rate.
        betas: β₁ and β₂, of vectors too.
        eps: a part of ε. Small, as gradients of latents are: 1e-8 to 1e-6 in networks that predict heat maps.
        relative_eps: ε is ``eps`` plus this share of the root mean square of √V over the piece. It keeps directions
            whose gradient is only rounding from taking steps as long as others'.
        vector_eps: ε of vectors. Larger, as for some the gradient is only rounding: biases before a batch norm.
        weight_decay: decoupled. A task sets it to 0 for all but real weights.
        modes: what gets a basis: ``all`` modes, ``channels`` (output and input), ``output``, ``input`` or ``kernel``
            (its pixels, as one mode); or both sides of the ``matrix`` (O, I·kh·kw), in which input channels have one
            basis together with their pixels: nine times as many bases for 3×3 px. A matrix, such as a factor, has no
            kernel.
        nesterov: whether the gradient counts once more in a step: β₁ M + (1 − β₁) G′ in place of M.
        covariance_beta: β; β₂ unless given.
        covariance_interval: steps from one update of a piece's covariances to the next.
        interval: steps from one renewal of a basis to the next.
        spread: whether bases are renewed and covariances updated a few at a time, each so many steps after its last
            turn; else all in the same step.
        last_renewal: a weight's own step after which bases and covariances stay as they are; None: they never do.
        block: b: what is longer is cut into equal parts of at most b entries, and the pieces are stepped as
            weights of their own. A matrix's columns that belong to one input channel stay together.
        layers: whose weights are stepped this way: of ``binary`` layers, of ``real`` ones, or of ``all``; the rest by
            AdamW.
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
        eps: float = 1e-15,
        relative_eps: float = 1e-5,
        vector_eps: float = 1e-8,
        weight_decay: float = 1e-2,
        modes: Modes = "all",
        nesterov: bool = False,
        covariance_beta: float | None = None,
        covariance_interval: int = 5,
        interval: int = 10,
        spread: bool = True,
        last_renewal: int | None = None,
        block: int = 128,
        layers: Layers = "all",
        products: Literal["float32", "bfloat16"] = "float32",
        share: bool = False,
    ) -> None:
        if modes not in _MODES:
            raise ValueError(f"modes of SOAP is {modes!r}: choose from {', '.join(_MODES)}")
        factor_dtype(products, "SOAP")  # raises where there is no such type
        if covariance_beta is not None and not 0 <= covariance_beta < 1:
            raise ValueError(f"covariance_beta of SOAP is {covariance_beta}: give a number of at least 0 and below 1")
        for name, value, least in (
            ("covariance_interval", covariance_interval, 1),
            ("interval", interval, 1),
            ("last_renewal", last_renewal, 0),
            ("block", block, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} of SOAP is {value}: give at least {least}")
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "vector_eps": vector_eps, "relative_eps": relative_eps}
        defaults |= {"weight_decay": weight_decay, "modes": modes, "nesterov": nesterov}
        defaults |= {"covariance_beta": covariance_beta, "covariance_interval": covariance_interval}
        defaults |= {"interval": interval, "spread": spread, "last_renewal": last_renewal, "block": block}
        super().__init__(params, defaults | {"products": products}, layers, share)

    def _prepare(self) -> None:
        super()._prepare()
        self._warnings: set[str] = set()

    def _cut(self, shape: tuple[int, ...], group: dict[str, Any]) -> tuple[Pieces, dict[int, str]]:
        """How weights of a shape are cut, and which dimensions of a piece get a basis, with their names."""
        places = _MODES[group["modes"]]
        pieces = Pieces(shape, dict.fromkeys(places, group["block"]), as_matrix=group["modes"] == "matrix")
        return pieces, {place: _NAMES[place] for place in places if pieces.size[place] > 1}

    def _layout(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Output channels first and input channels last: products along both ends are large."""
        return (0, *range(2, len(shape)), 1)

    def _work(self, shape: tuple[int, ...], group: dict[str, Any]) -> int:
        pieces, modes = self._cut(shape, group)
        return math.prod(shape) * (1 + sum(pieces.size[place] for place in modes))

    def _begin(self, stacks: list[tuple[Stack, dict[str, Any]]]) -> None:
        for stack, group in stacks:
            if "step" not in self.state[stack.params[0]]:
                self._plan(stack.params, group)

    def _step_matrices(self, stack: Stack, group: dict[str, Any]) -> None:
        states = [self.state[p] for p in stack.params]
        age = states[0].get("step", 0)
        pieces, modes = self._cut(tuple(stack.params[0].shape), group)
        gradient = pieces.cut(stack.gradients())

        def entry(name: str, make: Callable[[], Tensor]) -> Tensor:
            """Of all pieces; each weight's state holds its own."""
            return stack.entry(states, name, lambda: make().unflatten(0, (len(states), -1))).flatten(0, 1)

        beta1, beta2 = group["betas"]
        beta = beta2 if group["covariance_beta"] is None else group["covariance_beta"]
        covariances = {
            place: entry(f"covariance_{name}", lambda p=place: _zeros(gradient, p)) for place, name in modes.items()
        }
        is_first = age == 0
        if is_first:
            for place, each in covariances.items():
                _take_in(each, gradient, place, 1 - beta, range(len(gradient)))
        bases = {
            place: entry(f"basis_{name}", lambda p=place: eigenbasis(covariances[p].nan_to_num(0.0, 0.0, 0.0)))
            for place, name in modes.items()
        }
        average = entry("exp_avg", lambda: torch.zeros_like(gradient))
        square = entry("exp_avg_sq", lambda: torch.zeros_like(gradient))
        for state in states:
            state["step"] = age + 1
        if is_first:
            return
        dtype = factor_dtype(group["products"], "SOAP")
        update = torch.empty_like(gradient)
        at_once = max(1, _AT_ONCE // gradient[0].numel()) if gradient.device.type == "cpu" else len(gradient)
        for begin in range(0, len(gradient), at_once):
            part = slice(begin, begin + at_once)
            some = {place: basis[part] for place, basis in bases.items()}
            turned = rotate(gradient[part], some, dtype=dtype)
            mean = average[part].lerp_(turned, 1 - beta1)
            if group["nesterov"]:
                mean = mean.lerp(turned, 1 - beta1)
            root = square[part].mul_(beta2).addcmul_(turned, turned, value=1 - beta2).sqrt()
            typical = torch.linalg.vector_norm(root, dim=(1, 2, 3), keepdim=True).mul_(
                group["relative_eps"] / math.sqrt(root[0].numel())
            )
            root.add_(typical.add_(group["eps"]))
            update[part] = rotate(torch.div(mean, root, out=turned), some, back=True, dtype=dtype)
        rate = float(group["lr"])
        size = rate * math.sqrt(1 - beta2**age) / (1 - beta1**age)
        pieces.add(update, stack.weights(), -size)
        stack.shrink(rate * group["weight_decay"])
        if group["last_renewal"] is not None and age > group["last_renewal"]:
            return
        every = group["covariance_interval"]
        # a part of the pieces in each step, so that steps take about equally long
        spread = range(pieces.number) if group["spread"] else [0] * pieces.number
        turns = [(age + s.get("slot_covariance", 0) + piece) % every for s in states for piece in spread]
        due = [i for i, turn in enumerate(turns) if turn == 0]
        for place, each in covariances.items() if due else ():
            _take_in(each, gradient, place, 1 - beta**every, due)
        for place, name in modes.items():
            for i, state in enumerate(states):
                if (age + state[f"slot_{name}"]) % group["interval"] == 0:
                    # a weight's pieces lie together, so that these are views
                    own = slice(i * pieces.number, (i + 1) * pieces.number)
                    self._renew(place, *(x[own] for x in (covariances[place], bases[place], average, square)))

    def _plan(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Gives each weight's bases along a mode a turn among the steps of an interval: that of least work so far."""
        work = [0] * group["interval"]
        planned = [(p, of) for of in self.param_groups for p in of["params"] if self.state.get(p) and p.ndim > 1]
        for p, of in planned:
            others, modes = self._cut(tuple(p.shape), of)
            for place, name in modes.items():
                if f"slot_{name}" in self.state[p]:
                    # counted from now on: those that began earlier are at other steps of theirs
                    turn = (self.state[p].get("step", 0) + self.state[p][f"slot_{name}"]) % len(work)
                    work[turn] += others.number * others.size[place] ** 3
        number = sum(self._cut(tuple(p.shape), of)[0].number for p, of in planned)
        for p in params:
            pieces, modes = self._cut(tuple(p.shape), group)
            self.state[p]["slot_covariance"] = number if group["spread"] else 0
            number += pieces.number
            for place, name in modes.items():
                slot = min(range(len(work)), key=work.__getitem__) if group["spread"] else 0
                self.state[p][f"slot_{name}"] = slot
                work[slot] += pieces.number * pieces.size[place] ** 3

    def _renew(self, place: int, covariances: Tensor, bases: Tensor, average: Tensor, square: Tensor) -> None:
        """One step of iteration for a weight's bases along one mode, with all that is kept in them."""
        finite = covariances.isfinite().flatten(1).all(1)
        if not bool(finite.all()):
            self._warn_once(
                "a covariance of gradients is not finite: it starts again from zero, and its basis stays as it is"
            )
            covariances[~finite] = 0
            for i in finite.nonzero().flatten().tolist():
                self._renew(place, *(x[i : i + 1] for x in (covariances, bases, average, square)))
            return
        new, order = renewed(covariances, bases)
        average.copy_(rotate(average, {place: product(bases.mT, new)}))
        index = order.view(len(bases), *(-1 if d == place else 1 for d in range(square.ndim - 1))).expand_as(square)
        square.copy_(square.gather(place + 1, index))
        bases.copy_(new)

    def _warn_once(self, text: str) -> None:
        """Prints a text once, and once for all processes."""
        is_first = num_processes() == 1 or torch.distributed.get_rank() == 0
        # a matrix that is shared is known of in one process alone
        if text not in self._warnings and (is_first or self._sharing is not None):
            print(f"SOAP: {text}", file=sys.stderr, flush=True)
        self._warnings.add(text)


def _zeros(gradient: Tensor, place: int) -> Tensor:
    size = gradient.shape[place + 1]
    return gradient.new_zeros(len(gradient), size, size)


def _take_in(average: Tensor, gradient: Tensor, place: int, weight: float, due: Sequence[int]) -> None:
    """Renews the running averages of some pieces' covariances."""
    if len(due) == len(average):
        average.lerp_(covariance(gradient, place), weight)
    else:
        average[due] = average[due].lerp_(covariance(gradient[due], place), weight)
