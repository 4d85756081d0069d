"""`AsMatrices`: lets an optimizer that takes only matrices train a whole network, with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bnnlight.nn.compute.product import full_precision
from bnnlight.optim.adamw_inside import MATRICES, AdamWInside
from bnnlight.optim.stack import Stack

_MARKS: tuple[dict[str, Any], ...] = ({}, {"use_muon": True})
"""The second is of the package pytorch_optimizer."""


class AsMatrices(AdamWInside):
    """Steps latents by an optimizer that takes only matrices, such as ``torch.optim.Muon``, and all else by AdamW.

    A latent (O, I, kh, kw) is handed over as the matrix (O, I·kh·kw), a factor as it is, since it is a matrix. A task
    makes this automatically where the optimizer that a config names refuses vectors.

    Args:
        params: groups ``{"params": …, "name": …}``, as :func:`bnnlight.optim.parameter_groups` names them.
        make: makes the optimizer of matrices from groups. Its rate and weight decay are AdamW's too.

    Raises:
        ValueError: no group has latents, or what ``make`` raises.
    """

    def __init__(self, params: Iterable[dict[str, Any]], make: Callable[[list[dict[str, Any]]], Optimizer]) -> None:
        self._make, self._mark = make, _mark(make) or {}
        # of a group: some optimizers have other defaults for matrices than for vectors
        defaults = {key: value for key, value in self._new_inner().param_groups[0].items() if key != "params"}
        adamw = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
        super().__init__(params, adamw | defaults, layers="binary")
        if not any(group[MATRICES] for group in self.param_groups):
            raise ValueError("the optimizer takes matrices alone, and the network has no binary layers")

    @property
    def kind(self) -> type[Optimizer]:
        """The class of the optimizer of matrices."""
        return type(self._inner)

    def _prepare(self) -> None:
        super()._prepare()
        self._inner = self._new_inner()
        self._group = dict(self._inner.param_groups[0])
        self._views: dict[Tensor, nn.Parameter] = {}

    def _new_inner(self) -> Optimizer:
        return self._make([{"params": [nn.Parameter(torch.zeros(2, 2))], **self._mark}])

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_make": self._make, "_mark": self._mark}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._make = state.get("_make", getattr(self, "_make", None))
        self._mark = state.get("_mark", getattr(self, "_mark", {}))
        super().__setstate__(state)

    def _stacked(self, group: dict[str, Any], last: dict[Any, Stack]) -> Iterator[Stack]:
        matrices = [p for p in group["params"] if self._is_matrix(p, group) and p.grad is not None]
        if matrices:
            with full_precision(matrices[0].device):
                self._step_each(matrices, group)
        return iter(())

    def _step_each(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        views = [self._view(p) for p in matrices]
        self._inner.state.clear()
        self._inner.state.update({view: self.state[p] for p, view in zip(matrices, views, strict=True)})
        self._inner.param_groups = [self._group | group | self._mark | {"params": views}]
        self._inner.step()
        for p, view in zip(matrices, views, strict=True):
            self.state[p] = self._inner.state[view]
            if view.data_ptr() != p.data_ptr():  # of another layout than that of a matrix
                p.copy_(view.view_as(p))
        stepped = self._inner.param_groups[0]
        # what it keeps there, such as a number of steps, is saved with the group
        group.update((key, value) for key, value in stepped.items() if key != "params")

    def _view(self, p: Tensor) -> nn.Parameter:
        shape = (-1, p.shape[-1]) if p.ndim == 3 else (p.shape[0], -1)
        view = self._views.setdefault(p, nn.Parameter(p.detach().reshape(shape)))
        view.data = p.detach().reshape(shape)
        view.grad = p.grad.reshape(shape)
        return view

    def _step_matrices(self, stack: Stack, group: dict[str, Any]) -> None:
        raise AssertionError("matrices are stepped by the optimizer inside")


def takes_matrices_alone(make: Callable[[list[dict[str, Any]]], Optimizer]) -> bool:
    """Whether an optimizer that has refused some parameters takes a matrix."""
    return _mark(make) is not None


def _mark(make: Callable[[list[dict[str, Any]]], Optimizer]) -> dict[str, Any] | None:
    """What a group of matrices has to say for an optimizer to take it; None where it takes none at all."""
    for mark in _MARKS:
        try:
            # two groups: some optimizers refuse all but one, whatever is in it
            make([{"params": [nn.Parameter(torch.zeros(2, 2))], **mark} for _ in range(2)])
            return mark
        except Exception:
            continue
    return None
