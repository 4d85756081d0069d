"""Binary networks: residual networks, the stacked hourglass, and the stems and blocks that they are made of.

Add your own backbone: a `torch.nn.Module` that builds `BinaryConv2d` layers and ends its constructor with
`factorize(self, latent)` and `restart_alpha(self)`; then name the class in a config under `backbone:`.
"""

from bnnlight.backbones.blocks import BinaryBlock, BinaryUnit, HierarchicalBlock
from bnnlight.backbones.fixed_point import FixedPointBlock, FixedPointResNet
from bnnlight.backbones.hourglass import Hourglass, StackedHourglass
from bnnlight.backbones.resnet import ResNet, ResNet18, ResNet34

__all__ = [
    "BinaryBlock",
    "BinaryUnit",
    "FixedPointBlock",
    "FixedPointResNet",
    "HierarchicalBlock",
    "Hourglass",
    "ResNet",
    "ResNet18",
    "ResNet34",
    "StackedHourglass",
]
