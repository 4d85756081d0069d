"""Compares a shipped model with the network that it was made from, on the same pictures: outputs and signs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from bnnlight.deploy.check import Agreement
from bnnlight.nn.inspect import named_binary_layers


def answers(output: np.ndarray) -> np.ndarray:
    """The best class ``(N, 1)`` of logits ``(N, classes)``, or each joint's best pixel ``(N, J)`` in heat maps."""
    if output.ndim == 2:
        return output.argmax(1)[:, None]
    return output[:, -1].reshape(len(output), output.shape[2], -1).argmax(2)


def count(agreement: Agreement, expected: np.ndarray, actual: np.ndarray, flips: np.ndarray, num_signs: int) -> None:
    """Adds a batch to an agreement.

    Args:
        agreement: to be added to.
        expected, actual: outputs, ``(N, classes)`` or ``(N, stacks, J, h, w)``.
        flips: ``(N,)``, differing signs of each picture.
        num_signs: compared in the batch.
    """
    agreement.num_images += len(expected)
    agreement.num_same += int((answers(expected) == answers(actual)).all(1).sum())
    agreement.num_signs += num_signs
    agreement.num_flipped += int(flips.sum())
    agreement.num_images_flipped += int((flips > 0).sum())
    axes = tuple(range(1, expected.ndim))
    largest = np.maximum(np.abs(expected).max(axes), np.finfo(np.float32).tiny)
    # NaN counts as a difference
    relative = np.nan_to_num(np.abs(expected - actual).max(axes) / largest, nan=np.inf)[flips == 0]
    agreement.output_difference = max(agreement.output_difference, float(relative.max(initial=0.0)))


class SideBySide(nn.Module):
    """Stands in for a network: computes with the shipped model, and compares each batch with the network.

    Args:
        network: in eval mode, on the CPU.
        engine: of the shipped model.
        signs: of the same file; see :func:`bnnlight.deploy.formats.openvino.openvino_signs` and its like.

    Attributes:
        agreement: of all batches so far.
    """

    def __init__(
        self,
        network: nn.Module,
        engine: Callable[[np.ndarray], np.ndarray],
        signs: Callable[[np.ndarray], dict[str, np.ndarray]],
    ) -> None:
        super().__init__()
        self.network, self.engine, self.signs = network, engine, signs
        self.agreement = Agreement()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        images = np.ascontiguousarray(x.numpy())
        expected, expected_signs = observed(self.network, x)
        actual = self.engine(images)
        signs = self.signs(images)
        flips, num_signs = np.zeros(len(images), np.int64), 0
        for name, sign in expected_signs.items():
            flips += (signs[name] != sign).reshape(len(images), -1).sum(1)
            num_signs += sign.size
        count(self.agreement, expected.numpy(), actual, flips, num_signs)
        return torch.from_numpy(actual)


@torch.no_grad()
def observed(network: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, np.ndarray]]:
    """A network's output, and the signs of its binary layers' inputs under the names that a program gives them.

    Args:
        network: with binary layers.
        x: ``(N, C, H, W)``.

    Returns:
        The output, and ``PATH.sign`` → bool, ``PATH.sign@2`` at the second use of a layer.
    """
    signs: dict[str, np.ndarray] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
            name, count = f"{path}.sign", 1
            while name in signs:
                count += 1
                name = f"{path}.sign@{count}"
            x = inputs[0] if inputs else named["x"]
            signs[name] = (module.before_sign(x) >= 0).numpy()

        return hook

    layers = named_binary_layers(network)
    hooks = [layer.register_forward_hook(note(path), with_kwargs=True) for path, layer in layers]
    try:
        return network(x), signs
    finally:
        for hook in hooks:
            hook.remove()
