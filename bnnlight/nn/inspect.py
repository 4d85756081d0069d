"""How the rest of the package looks at a network: its binary layers, and the tensors that go in and out.

Callbacks, the summary, an optimizer's parameter groups and deployment look at a network through these
functions alone, so that they work on any model that has binary layers in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bnnlight.nn.latents.unfolding import triangle
from bnnlight.nn.layers import BinaryLayer


def named_binary_layers(model: nn.Module) -> Iterator[tuple[str, BinaryLayer]]:
    """Yields (path, layer) for every binary layer, each once, in the order of registration.

    Args:
        model: any module; a binary layer itself has the path "".
    """
    for name, module in model.named_modules():
        if isinstance(module, BinaryLayer):
            yield name, module


def named_unfoldings(model: nn.Module) -> Iterator[tuple[str, list[Tensor], dict[str, Tensor]]]:
    """Yields (path, unfoldings, factors) for every binary layer, in the order of registration.

    Unfoldings and factors are those of :class:`bnnlight.nn.Latent`; factors that several layers share are
    decomposed once.

    Args:
        model: any module.
    """
    # with the factor itself, since only while it lives its id is its own
    triangles: dict[int, tuple[Tensor, Tensor]] = {}

    def triangle_once(factor: Tensor) -> Tensor:
        if id(factor) not in triangles:
            triangles[id(factor)] = factor, triangle(factor)
        return triangles[id(factor)][1]

    for name, layer in named_binary_layers(model):
        yield name, layer.latent.unfoldings(triangle_once), layer.latent.named_factors()


def named_tensors(nest: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yields (path, tensor) for every tensor in a nest of dictionaries, lists, tuples and data classes.

    Args:
        nest: such as a batch, or what a module takes or returns.
        path: of the nest itself; an entry's is written as one would index it, ``batch['image']``.
    """
    if isinstance(nest, Tensor):
        yield path, nest
    elif isinstance(nest, Mapping):
        for key, value in nest.items():
            yield from named_tensors(value, f"{path}[{key!r}]")
    elif dataclasses.is_dataclass(nest) and not isinstance(nest, type):
        for field in dataclasses.fields(nest):
            yield from named_tensors(getattr(nest, field.name), f"{path}.{field.name}")
    # an array of numpy's would be gone through number by number
    elif isinstance(nest, Collection) and not isinstance(nest, str | bytes) and not hasattr(nest, "__array__"):
        for index, value in enumerate(nest):
            yield from named_tensors(value, f"{path}[{index}]")


def first_few(names: Sequence[str]) -> str:
    """Names of layers or parameters for a message: the first three, and how many more there are."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
