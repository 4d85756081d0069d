"""`ConvertedConv2d`: batch norm and binary convolution in the place of a `torch.nn.Conv2d`."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from bnnlight.nn.layers import BinaryConv2d


class ConvertedConv2d(nn.Sequential):
    """Batch norm (``norm``), then binary convolution (``conv``), where a ``torch.nn.Conv2d`` was.

    Code that asks the convolution for its ``weight``, ``bias``, ``stride`` … still gets them. ``weight`` is W̃, the
    real weight behind the binary one: it can be read, and gradients flow through it; what is written into it is lost
    unless the latent is :class:`bnnlight.nn.Dense`.

    Args:
        norm: of the inputs.
        conv: the binary convolution.
        attributes: of the convolution, which stay: its geometry, and what users added to it.
    """

    def __init__(self, norm: nn.BatchNorm2d, conv: BinaryConv2d, attributes: dict[str, object]) -> None:
        super().__init__(OrderedDict(norm=norm, conv=conv))
        for name, value in attributes.items():
            vars(self).setdefault(name, value)

    @property
    def weight(self) -> Tensor:
        """W̃ ``(O, I/groups, kh, kw)``."""
        return self.conv.weight

    @property
    def bias(self) -> nn.Parameter | None:
        """``(O,)`` or None."""
        return self.conv.bias
