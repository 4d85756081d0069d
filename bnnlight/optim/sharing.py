"""`Sharing`: divides the steps of matrices among the processes that train together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bnnlight.optim.stack import Stack

State = dict[str, Any]
Stacks = list[tuple[Stack, dict[str, Any]]]
"""Stacks, each with its group."""


class Sharing:
    """Who steps what: each matrix has an owner, which keeps its state and hands its new values to all others.

    Every process chooses the same owners: the largest work first, each to the process that has the least so far.
    They never change, so a state stays where it is; what is added later gets an owner then. The other processes keep
    those entries of a state that are not tensors, such as the number of steps.

    All processes of the default group take part, and have gradients for the same parameters, as under DDP.
    """

    def __init__(self) -> None:
        self._owners: dict[Tensor, int] = {}
        self._work: list[int] = []
        self._parts: dict[Any, Stack] = {}
        self._left: list[Stack] = []

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_parts": {}, "_left": []}

    def has(self, p: Tensor) -> bool:
        """Whether a matrix has an owner."""
        return p in self._owners

    def assign(self, works: dict[Tensor, int]) -> None:
        """Chooses owners for matrices that have none.

        Args:
            works: how much it takes to step each matrix, in an order that all processes have.
        """
        self._work = self._work or [0] * num_processes()
        for p in sorted((p for p in works if p not in self._owners), key=works.__getitem__, reverse=True):
            rank = min(range(len(self._work)), key=self._work.__getitem__)
            self._owners[p] = rank
            self._work[rank] += works[p]

    def own(self, stacks: Stacks, make: Callable[[list[Tensor]], Stack]) -> Stacks:
        """The parts of stacks that this process is to step.

        Args:
            stacks: of all matrices that are to be stepped.
            make: makes a stack of some parameters of one shape.
        """
        last, self._parts = self._parts, {}
        own = []
        for stack, group in stacks:
            params = [p for p in stack.params if self._is_own(p)]
            if params:
                key = tuple(map(id, params))
                self._parts[key] = last.pop(key, None) or make(params)
                own.append((self._parts[key], group))
        self._left = list(last.values())
        return own

    def exchange(self, stacks: Stacks, states: dict[Tensor, State]) -> None:
        """Gives every process the new values of all matrices of a step, and drops the states of others' matrices.

        Args:
            stacks: as :meth:`own` was given them, those of this process stepped since.
            states: of the optimizer.
        """
        params = [p for stack, _ in stacks for p in stack.params]
        sent = []
        for rank in range(len(self._work)):
            for alike in _by_type(p for p in params if self._owners[p] == rank):
                # as bytes: not every backend sends every type
                if self._is_own(alike[0]):
                    buffer = torch.cat([p.detach().reshape(-1) for p in alike])
                else:
                    buffer = alike[0].new_empty(sum(p.numel() for p in alike))
                buffer = buffer.view(torch.uint8)
                sent.append((alike, buffer, dist.broadcast(buffer, rank, async_op=True)))
        for alike, buffer, work in sent:
            work.wait()
            parts = buffer.view(alike[0].dtype).split([p.numel() for p in alike])
            for p, part in zip(alike, parts, strict=True):
                if not self._is_own(p):
                    p.copy_(part.view(p.shape))
                    numbers = {key: value for key, value in states[p].items() if not isinstance(value, Tensor)}
                    states[p] = numbers | {"step": numbers.get("step", 0) + 1}
        for stack in self._left:
            stack.leave([states.get(p, {}) for p in stack.params])
        self._left = []

    def gathered(self, params: Sequence[Tensor], states: dict[Tensor, State], to: int) -> dict[Tensor, State] | None:
        """The states of others' matrices, on the CPU. All processes have to call it together.

        Args:
            params: all of the optimizer's, in an order that all processes have.
            states: of the optimizer.
            to: the process that gets them; the others get None.
        """
        own = {i: _on_cpu(states.get(p, {})) for i, p in enumerate(params) if self._is_own(p)}
        parts: list[Any] | None = [None] * num_processes() if dist.get_rank() == to else None
        dist.gather_object(own if parts is None else {}, parts, dst=to)
        return None if parts is None else {params[i]: state for part in parts for i, state in part.items()}

    def is_divided(self) -> bool:
        """Whether some states may be only in other processes."""
        return len(self._work) > 1

    def _is_own(self, p: Tensor) -> bool:
        return self._owners.get(p) == dist.get_rank()


def num_processes() -> int:
    """How many processes train together; 1 for a process that trains alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _by_type(params: Iterable[Tensor]) -> list[list[Tensor]]:
    groups: dict[Any, list[Tensor]] = {}
    for p in params:
        groups.setdefault((p.dtype, p.device), []).append(p)
    return list(groups.values())


def _on_cpu(state: State) -> State:
    # a copy each: a part of a stack would be sent with the whole stack behind it
    return {key: value.detach().cpu().clone() if isinstance(value, Tensor) else value for key, value in state.items()}
