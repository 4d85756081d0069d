"""Image transforms: from a picture to a network's input, with size, channels, normalization and augmentation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from bnnlight.imaging.reading import as_grey_or_rgb

Picture = Image.Image | torch.Tensor


class ToChannels(nn.Module):
    """Brings any picture to one grey or three colour channels.

    Args:
        num_channels: 1 or 3.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def forward(self, picture: Picture) -> Picture:
        """Convert one picture.

        Args:
            picture: PIL image, or uint8 tensor (H, W) or (C, H, W), C from 1 to 4; a second
                or fourth channel is taken for opacity. What is transparent is put on white.

        Returns:
            PIL image, or uint8 tensor (num_channels, H, W).

        Raises:
            ValueError: If a tensor is not uint8, or an image has 32 bits per channel.
        """
        if isinstance(picture, Image.Image):
            return as_grey_or_rgb(picture, self.num_channels)
        if picture.dtype != torch.uint8:
            # Floats may be 0..1 or 0..255: guessing wrong would only show as poor accuracy.
            raise ValueError(f"expected a PIL image or a uint8 tensor, got a tensor of {picture.dtype}")
        if picture.ndim == 2:
            picture = picture.unsqueeze(0)
        if picture.shape[0] in (2, 4):
            opacity = picture[-1].int()
            # rounded as Pillow does it
            picture = ((picture[:-1] * opacity + 255 * (255 - opacity) + 127) // 255).to(torch.uint8)
        return functional.rgb_to_grayscale(picture) if self.num_channels == 1 else functional.grayscale_to_rgb(picture)


class ToNormalized(nn.Module):
    """Turns a picture into a float tensor, (value / 255 - mean) / std for each channel.

    Args:
        mean: of each channel, on the scale 0..1.
        std: of each channel, on the scale 0..1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        # torchvision's own would make tensors of them for each picture, which takes as long as all the rest
        self.mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)

    def forward(self, picture: Picture) -> torch.Tensor:
        """Convert one picture: PIL or uint8 tensor (C, H, W) to float32 tensor (C, H, W)."""
        pixels = functional.pil_to_tensor(picture) if isinstance(picture, Image.Image) else picture
        is_bytes = pixels.dtype == torch.uint8
        floats = pixels.float().mul_(1 / 255) if is_bytes else functional.to_dtype(pixels, torch.float32, scale=True)
        # Torchvision's tensor subclass would slow down every later operation on the batch.
        return floats.as_subclass(torch.Tensor).sub(self.mean).div_(self.std)


class UnlessSized(nn.Module):
    """Applies ``resize`` to pictures that are not already size_px × size_px.

    An augmentation that crops to the final size is thus left alone, and a list without one
    still gives pictures that can be stacked to a batch.

    Args:
        size_px: desired width and height.
        resize: brings any picture to that size.
    """

    def __init__(self, size_px: int, resize: nn.Module) -> None:
        super().__init__()
        self.size_px = size_px
        self.resize = resize

    def forward(self, picture: Picture) -> Picture:
        """Return the picture, size_px × size_px."""
        return picture if functional.get_size(picture) == [self.size_px, self.size_px] else self.resize(picture)


@dataclass(frozen=True)
class ImageFormat:
    """What a network trained on a data set expects of its input.

    Attributes:
        num_channels: 1 (grey) or 3 (RGB).
        image_size: width and height, px.
        mean: of each channel, on the scale 0..1.
        std: of each channel, on the scale 0..1.
        resize_px: length to which the shorter side is brought before the middle is cut out;
            image_size cuts only what is not square.
    """

    num_channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_px: int

    def eval_transform(self) -> nn.Module:
        """Build the transform without randomness, for any PIL image or uint8 tensor.

        Returns:
            A callable that gives a float32 tensor (num_channels, image_size, image_size).
        """
        return v2.Compose([ToChannels(self.num_channels), *self._resize(), ToNormalized(self.mean, self.std)])

    def train_transform(self, augmentation: Sequence[nn.Module]) -> nn.Module:
        """Build the transform of the training images.

        Args:
            augmentation: transforms of PIL images, applied in order; may be empty.

        Returns:
            A callable that gives a float32 tensor (num_channels, image_size, image_size).
        """
        fit = UnlessSized(self.image_size, v2.Compose(self._resize()))
        return v2.Compose([*augmentation, fit, ToNormalized(self.mean, self.std)])

    def _resize(self) -> list[nn.Module]:
        return [v2.Resize(self.resize_px), v2.CenterCrop(self.image_size)]
