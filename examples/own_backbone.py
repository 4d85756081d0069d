"""A backbone of your own: two paths of binary convolutions, one with small and one with wide kernels.

Copy this file beside your config and name the class there: ``class_path: own_backbone.TwoPaths``.
"""

import torch
from torch import Tensor, nn

from bnnlight.nn import BinaryConv2d, Dense, LatentFactory, factorize, restart_alpha


def path(channels: int, kernel: int) -> nn.Sequential:
    """Batch norm → binary convolution → PReLU. The convolution takes the sign of its input itself."""
    # the batch norm's bias decides where the sign changes, so it belongs before the convolution
    convolution = BinaryConv2d(channels, channels, kernel, padding=kernel // 2)
    return nn.Sequential(nn.BatchNorm2d(channels), convolution, nn.PReLU(channels))


class TwoPaths(nn.Module):
    """Blocks that add a 3×3 path and a 5×5 path to their input, for small pictures.

    Args:
        num_classes: size of the output.
        in_channels: channels of the picture.
        channels: of the feature maps.
        num_blocks: each halves the resolution.
        latent: makes the latent of each binary convolution from a dense weight.

    Shapes:
        ``(N, in_channels, H, W)`` → logits ``(N, num_classes)``.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        channels: int = 32,
        num_blocks: int = 2,
        latent: LatentFactory = Dense,
    ) -> None:
        super().__init__()
        # the first and the last layer stay real: they have few weights, and accuracy depends on them most
        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.narrow = nn.ModuleList(path(channels, 3) for _ in range(num_blocks))
        self.wide = nn.ModuleList(path(channels, 5) for _ in range(num_blocks))
        self.pool = nn.AvgPool2d(2)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        # Last, once all layers are there: a latent such as Holistic looks at the whole network.
        factorize(self, latent)
        restart_alpha(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for narrow, wide in zip(self.narrow, self.wide, strict=True):
            x = self.pool(x + narrow(x) + wide(x))
        return self.classifier(torch.flatten(self.norm(x).mean((2, 3)), 1))
