"""Compares feature maps of a network with those of its teacher, as they are or by where they are large."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnnlight.nn.inspect import first_few, named_binary_layers


def attention_map(maps: Tensor) -> Tensor:
    """Q / ‖Q‖₂ of each picture, Q being the sum of the squares over the channels: where feature maps are large.

    Args:
        maps: ``(N, C, H, W)``.

    Returns:
        ``(N, H·W)`` of norm 1, float32 at least; zeros where all maps are zero.
    """
    wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return F.normalize(wide.square().sum(1).flatten(1), dim=1)


def attention_loss(maps: Tensor, taught: Tensor) -> Tensor:
    """‖Q/‖Q‖₂ − Q'/‖Q'‖₂‖₂ of :func:`attention_map`, mean over the pictures: from 0 to √2.

    Args:
        maps: ``(N, C, H, W)``, of the network that learns.
        taught: ``(N, C', H, W)``, the teacher's.

    Source: Martinez et al., ICLR 2020, https://arxiv.org/abs/2003.11535; after Zagoruyko & Komodakis 2017,
    https://arxiv.org/abs/1612.03928.
    """
    return torch.linalg.vector_norm(attention_map(maps) - attention_map(taught), dim=1).mean()


def feature_loss(maps: Tensor, taught: Tensor) -> Tensor:
    """Mean squared difference of two sets of feature maps ``(N, C, H, W)``.

    Source: Romero et al., ICLR 2015, https://arxiv.org/abs/1412.6550, here without a layer between the two.
    """
    wide = torch.promote_types(maps.dtype, torch.float32)
    return F.mse_loss(maps.to(wide), taught.to(wide))


LOSSES = {"attention": attention_loss, "features": feature_loss}


class FeatureMatching:
    """Sums, over blocks of a network, how far their outputs are from those of the teacher's blocks.

    Args:
        weights: of :func:`attention_loss` and of :func:`feature_loss`, by ``attention`` and ``features``; those of
            weight 0 are not computed.
        blocks: the network's module → the teacher's, by their paths. None: the smallest modules that hold more than
            one binary layer, and in the teacher the modules with the same paths.

    Raises:
        ValueError: a weight is not a finite number of at least 0.
    """

    def __init__(self, weights: Mapping[str, float], blocks: Mapping[str, str] | None = None) -> None:
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"the teacher's {name} is {weight}: give a finite number of at least 0")
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.blocks = None if blocks is None else dict(blocks)
        self._pairs: dict[str, str] = {}
        self._seen: dict[str, dict[str, Tensor]] = {"own": {}, "taught": {}}

    @property
    def keys(self) -> set[str]:
        """What is logged."""
        return {f"train/loss_{name}" for name in self.weights}

    def find(self, network: nn.Module, teacher: nn.Module) -> None:
        """Looks for the blocks of both networks.

        Raises:
            ValueError: there are none, or one of them is missing.
        """
        if not self.weights:
            return
        self._pairs = {path: path for path in blocks_of(network)} if self.blocks is None else self.blocks
        if not self._pairs:
            raise ValueError("teacher: the network has no blocks of binary layers: name some in teacher.blocks")
        for owner, paths, model in (("network", self._pairs, network), ("teacher", self._pairs.values(), teacher)):
            there = dict(model.named_modules())
            if missing := [path for path in paths if path not in there]:
                raise ValueError(
                    f"teacher: the {owner} has no module {first_few(missing)}: name those whose feature maps are to be "
                    "compared in teacher.blocks, the network's and the teacher's"
                )

    @contextlib.contextmanager
    def watched(self, model: nn.Module, whose: str) -> Iterator[None]:
        """Keeps, within, what the blocks of a network return.

        Args:
            model: the network that learns, or the teacher.
            whose: ``own`` or ``taught``.
        """
        if not self._pairs:
            yield
            return
        seen = self._seen[whose] = {}
        paths = self._pairs if whose == "own" else dict.fromkeys(self._pairs.values())

        def keep(path: str):
            def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
                seen[path] = output

            return hook

        modules = dict(model.named_modules())
        hooks = [modules[path].register_forward_hook(keep(path)) for path in paths]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def losses(self) -> dict[str, Tensor]:
        """The sum of each kind over the blocks that were watched last, by its name; nothing is kept then.

        Raises:
            ValueError: a block did not run, or the two feature maps cannot be compared.
        """
        own, taught = self._seen["own"], self._seen["taught"]
        self._seen = {"own": {}, "taught": {}}
        return {
            name: sum(_compare(name, path, own.get(path), taught.get(other)) for path, other in self._pairs.items())
            for name in self.weights
        }


def blocks_of(network: nn.Module) -> list[str]:
    """Paths of the smallest modules inside a network that hold more than one binary layer, in order."""
    layers = [path for path, _ in named_binary_layers(network)]
    holders = [
        path
        for path, _ in network.named_modules()
        if path and sum(layer.startswith(f"{path}.") for layer in layers) > 1
    ]
    return [path for path in holders if not any(other.startswith(f"{path}.") for other in holders)]


def _compare(name: str, path: str, own: Tensor | None, taught: Tensor | None) -> Tensor:
    maps = [x for x in (own, taught) if isinstance(x, Tensor) and x.ndim == 4]
    shapes = [tuple(x.shape) for x in maps]
    # attention has no channels any more
    parts = [(shape[0], *shape[2:]) if name == "attention" else shape for shape in shapes]
    if len(maps) < 2 or parts[0] != parts[1]:
        found = " and ".join(map(str, shapes)) or "none"
        raise ValueError(
            f"teacher: feature maps of {path} in the network and the teacher are {found}: {name} compares two of the "
            f"same {'height and width' if name == 'attention' else 'shape'}; name others in teacher.blocks"
        )
    return LOSSES[name](*maps)
