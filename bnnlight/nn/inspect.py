"""How the rest of the package looks at a network: its binary layers, and the tensors that go in and out.

Callbacks, the summary, an optimizer's parameter groups and deployment look at a network through these
functions alone, so that they work on any model that has binary layers in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


def first_few(names: Sequence[str], count: int = 3) -> str:
    """Names of layers or parameters for a message: the first ones, and how many there are besides."""
    rest = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + rest
