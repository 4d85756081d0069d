"""`AdamWInside`, the base of optimizers that step matrices in their own way, and all else by AdamW."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from bnnlight.nn.compute.product import full_precision
from bnnlight.optim.sharing import Sharing, num_processes
from bnnlight.optim.stack import Stack

Layers = Literal["all", "binary", "real"]

MATRICES = "matrices"
"""Option of a group: whether its parameters are stepped as matrices. It also keeps groups of both kinds apart."""

_STEPPED_IN = {"weight": ("all", "real"), "norm": (), "alpha": ()}
"""The first word of a group's name → the choices of ``layers`` with which its parameters are matrices."""

_FUSED = ("cpu", "cuda")
"""Types of devices with a kernel that steps all vectors in one call."""


class AdamWInside(Optimizer):
    """Steps latents as matrices, and vectors by AdamW; a subclass defines how a matrix is stepped.

    Latents are the groups whose name begins with ``latent``, real weights those whose name begins with ``weight``, as
    :func:`bnnlight.optim.parameter_groups` names them. Those with two dimensions or more are matrices. Groups
    named ``norm`` or ``alpha`` have none. Groups without a name, or with another one, count as latents.

    Weight decay is AdamW's: decoupled, and relative to the learning rate.

    Args:
        params: parameters, or groups of them.
        defaults: options of a group; with ``lr``, ``betas``, ``eps`` and ``weight_decay``, and with ``vector_eps`` if
            AdamW is to have an ε of its own.
        layers: whose weights are stepped as matrices: of ``binary`` layers the latents, of ``real`` ones the weights,
            or of ``all``.
        share: whether processes that train together step a part of the matrices each, see
            :class:`bnnlight.optim.sharing.Sharing`; else each of them steps all.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any], layers: Layers, share: bool = False) -> None:
        name = type(self).__name__
        if layers not in ("all", "binary", "real"):
            raise ValueError(f"layers of {name} is {layers!r}: choose all, binary or real")
        if not (math.isfinite(defaults["lr"]) and defaults["lr"] > 0):
            raise ValueError(f"lr of {name} is {defaults['lr']}: give a number above 0")
        if len(defaults["betas"]) != 2:
            raise ValueError(f"betas of {name} are {list(defaults['betas'])}: give two numbers")
        for number, beta in enumerate(defaults["betas"]):
            if not 0 <= beta < 1:
                raise ValueError(f"betas[{number}] of {name} is {beta}: give a number of at least 0 and below 1")
        for option in ("eps", "relative_eps", "vector_eps", "weight_decay"):
            if option in defaults and not (math.isfinite(defaults[option]) and defaults[option] >= 0):
                raise ValueError(f"{option} of {name} is {defaults[option]}: give a number of at least 0")
        self._layers, self._sharing = layers, Sharing() if share else None
        self._prepare()
        super().__init__(params, defaults)

    def _prepare(self) -> None:
        """What is not part of a saved state."""
        self._adamw = AdamW([torch.zeros(0)])
        self._stacks: dict[Any, Stack] = {}
        self._gathered: dict[Tensor, Any] | None = None

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._prepare()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_layers": self._layers, "_sharing": self._sharing}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, whose name tells whether its parameters are latents.

        Raises:
            ValueError: its matrices are sharded over processes.
        """
        role = str(param_group.get("name", "latent")).split("/")[0]
        matrices = self._layers in _STEPPED_IN.get(role, ("all", "binary"))
        params = param_group["params"]
        if isinstance(params, Iterator):
            params = param_group["params"] = list(params)
        # public of torch's DTensor, whose import takes its time
        if matrices and any(hasattr(p, "device_mesh") and p.ndim > 1 for p in params):
            name = type(self).__name__
            raise ValueError(
                f"{name} steps whole matrices, and fully_shard has divided them among processes: take "
                f"torch.optim.AdamW, or train by DDP with {name}'s share: true, which divides its work and memory"
            )
        super().add_param_group({MATRICES: matrices} | param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state of an optimizer of the same class.

        Raises:
            ValueError: it is the state of an optimizer of another class.
        """
        lacking = {key for group in state_dict["param_groups"] for key in self.defaults.keys() - group.keys()}
        if lacking:
            raise ValueError(
                f"the checkpoint is of another optimizer than {type(self).__name__}, its groups have no "
                f"{min(lacking)}: go on with the optimizer that the run began with"
            )
        super().load_state_dict(state_dict)
        self._stacks = {}

    @property
    def consolidate_state_dict(self) -> Callable[..., None]:
        """Gathers the states of all processes in one, ``to=0``, for its :meth:`state_dict`; all have to call it.

        Lightning does so for each checkpoint, by this name, which an optimizer that shares nothing does not have.
        """
        if self._sharing is None:
            raise AttributeError("consolidate_state_dict")
        return self._gather

    def _gather(self, to: int = 0) -> None:
        self._gathered = {}
        if num_processes() > 1:
            params = [p for group in self.param_groups for p in group["params"]]
            self._gathered = self._sharing.gathered(params, self.state, to)

    def state_dict(self) -> dict[str, Any]:
        """As torch's; of processes that share work, once after each :meth:`consolidate_state_dict`.

        Raises:
            ValueError: parts of the state are only in other processes.
        """
        gathered, self._gathered = self._gathered, None
        if gathered is None and self._sharing is not None and self._sharing.is_divided():
            raise ValueError(
                f"{type(self).__name__} has a part of its state in each process: call consolidate_state_dict in all of "
                "them before state_dict"
            )
        own = {p: self.state[p] for p in gathered or ()}
        self.state.update(gathered or {})
        try:
            return super().state_dict()
        finally:
            self.state.update(own)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step of all parameters that have a gradient.

        Args:
            closure: recomputes the loss and its gradients, if given.

        Returns:
            What the closure returns.
        """
        self._gathered = loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        inside = []
        for group in self.param_groups:
            vectors = [p for p in group["params"] if not self._is_matrix(p, group)]
            if vectors:
                inside.append(self._for_adamw(group, vectors) | {"params": vectors})
        # groups and state are this optimizer's own: to be saved, loaded, scheduled and added to
        self._adamw.param_groups, self._adamw.state = inside, self.state
        self._adamw.step()
        last, self._stacks = self._stacks, {}
        stacks = [(stack, group) for group in self.param_groups for stack in self._stacked(group, last)]
        self._begin(stacks)
        shares = self._sharing is not None and num_processes() > 1
        if shares:
            self._sharing.assign(
                {
                    p: self._work(tuple(p.shape), group)
                    for group in self.param_groups
                    for p in group["params"]
                    if self._is_matrix(p, group) and not self._sharing.has(p)
                }
            )
        for stack, group in self._sharing.own(stacks, self._stack) if shares else stacks:
            # a step may be taken where autocast is on; states keep their type
            with full_precision(stack.params[0].device):
                self._step_matrices(stack, group)
        if shares:
            self._sharing.exchange(stacks, self.state)
        for stack in last.values():  # of other sets of parameters than have a gradient now
            stack.leave([self.state.get(p, {}) for p in stack.params])
        return loss

    def _for_adamw(self, group: dict[str, Any], vectors: list[Tensor]) -> dict[str, Any]:
        options = {key: group[key] for key in ("lr", "betas", "weight_decay")}
        options["eps"] = group.get("vector_eps", group["eps"])
        fused = all(map(self._is_fusible, vectors))
        for p in vectors if fused else ():
            state = self.state.get(p, {})
            if "step" in state and state["step"].device != p.device:  # loaded: torch leaves it where it was
                state["step"] = state["step"].to(p.device)
        return self._adamw.defaults | options | {"fused": fused, "foreach": None}

    def _is_fusible(self, p: Tensor) -> bool:
        """Whether the fused kernel takes it; that of a CPU reads all tensors as if they lay in memory as p does."""
        if p.device.type not in _FUSED or not p.is_floating_point():
            return False
        state = self.state.get(p, {})
        others = (p.grad, state.get("exp_avg"), state.get("exp_avg_sq"))
        return all(other is None or other.stride() == p.stride() or _strides(other) == _strides(p) for other in others)

    def _stacked(self, group: dict[str, Any], last: dict[Any, Stack]) -> Iterator[Stack]:
        """The matrices of a group that have a gradient, those of one shape and age together.

        Args:
            group: one of this optimizer's.
            last: stacks of the last step, from which those that are used again are taken.
        """
        alike: dict[Any, list[Tensor]] = {}
        for p in group["params"]:
            if p.grad is not None and self._is_matrix(p, group):
                if p.grad.is_sparse:
                    size = "×".join(map(str, p.shape))
                    raise ValueError(
                        f"{type(self).__name__} takes no sparse gradient, and a weight of {size} has one: make its "
                        "embedding with sparse=False"
                    )
                age = self.state[p].get("step", 0)
                alike.setdefault((tuple(p.shape), p.dtype, p.device, age), []).append(p)
        for members in alike.values():
            key = tuple(map(id, members))
            self._stacks[key] = last.pop(key, None) or self._stack(members)
            yield self._stacks[key]

    def _stack(self, params: list[Tensor]) -> Stack:
        return Stack(params, self._layout(tuple(params[0].shape)))

    def _is_matrix(self, p: Tensor, group: dict[str, Any]) -> bool:
        return group[MATRICES] and p.ndim > 1

    def _work(self, shape: tuple[int, ...], group: dict[str, Any]) -> int:
        """About how much it takes to step a matrix of that shape, relative to others: multiply-adds along each side."""
        return math.prod(shape) * sum(shape)

    def _begin(self, stacks: list[tuple[Stack, dict[str, Any]]]) -> None:
        """What there is to do before any of the matrices is stepped; each comes with its group."""

    def _layout(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The order of dimensions in which matrices of that shape are stepped: their own, unless overridden."""
        return tuple(range(len(shape)))

    @abstractmethod
    def _step_matrices(self, stack: Stack, group: dict[str, Any]) -> None:
        """One step of matrices of one shape."""


def _strides(x: Tensor) -> list[int]:
    """Without those of a single entry, which may be any."""
    return [stride for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1]
