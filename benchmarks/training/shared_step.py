"""One network's training step, and the memory that it holds: what the benchmarks of training share.

Needs torch and torchvision alone, so that another package's environment can run it too (`train_step_peer.py`).
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # asked by torch at its first tensor; as `bnnlight` sets it

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NUM_CLASSES = 1000
"""Of every classifier, as torchvision's ResNet-18 has them."""

PAUSE_S = 0.02
"""Before each step: threads of the one before wait actively for a while, and would take the cores from this one."""

Loss = Callable[[Tensor, Tensor], Tensor]


def keep_freed_memory() -> None:
    """Tells the C library to keep freed memory for the next tensor instead of handing it back to the system.

    By default glibc maps each large buffer anew, and a step spends a part of its time on empty pages. Elsewhere than
    on glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX
    mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def real_resnet18(stem: Literal["imagenet", "small"]) -> nn.Module:
    """torchvision's ResNet-18; ``small``: with a 3×3 convolution of stride 1 and no pooling in front."""
    network = torchvision.models.resnet18(weights=None, num_classes=NUM_CLASSES)
    if stem == "small":
        network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        network.maxpool = nn.Identity()
    return network


def labelled_pictures(batch_size: int, image_size: int) -> tuple[Tensor, Tensor]:
    """Random pictures ``(N, 3, H, W)`` and classes ``(N,)``."""
    return torch.randn(batch_size, 3, image_size, image_size), torch.randint(NUM_CLASSES, (batch_size,))


class Training:
    """A network with its optimizer and one batch that it is trained on again and again.

    Args:
        network: in the memory format that it is to have.
        images: ``(N, 3, H, W)``, in the memory format that the network is to be given.
        targets: what the loss compares the outputs with.
        loss: from outputs and targets to a number.
        dtype: of autocast; None: single precision throughout.
        optimizer: makes one for the network; AdamW in one fused call unless given.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Tensor,
        targets: Tensor,
        loss: Loss = F.cross_entropy,
        dtype: torch.dtype | None = None,
        optimizer: Callable[[nn.Module], Optimizer] | None = None,
    ) -> None:
        self.network = network.train()
        self.images, self.targets, self.loss, self.dtype = images, targets, loss, dtype
        # of a size at which no network of the comparison diverges: what a step costs does not depend on it
        make = optimizer or (lambda network: torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True))
        self.optimizer = make(network)

    def forward(self) -> Tensor:
        """The loss."""
        with torch.autocast(self.images.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return self.loss(self.network(self.images), self.targets)

    def finish(self, loss: Tensor) -> None:
        """Backward pass and update; gradients are freed."""
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """One whole step."""
        self.finish(self.forward())

    def make_state(self) -> None:
        """Lets the optimizer make its state, as a first step would, without a forward pass."""
        for parameter in self.network.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def counted_step(self) -> dict[str, int]:
        """One whole step; what :func:`saved_bytes` finds between its forward and its backward pass."""
        own = (*self.network.parameters(), *self.network.buffers(), self.images, self.targets)
        loss, found = saved_bytes(self.forward, own)
        self.finish(loss)
        return found

    def own_bytes(self) -> int:
        """Bytes of parameters, buffers and the optimizer's state."""
        tensors = *self.network.parameters(), *self.network.buffers()
        return sum(tensor.nbytes for tensor in tensors) + self.optimizer_bytes()

    def optimizer_bytes(self) -> int:
        """Bytes of the optimizer's state."""
        states = tree_leaves(list(self.optimizer.state.values()))
        return sum(tensor.nbytes for tensor in states if isinstance(tensor, Tensor))


class _Storages(TorchDispatchMode):
    """Notes the storage of every tensor that an operation returns, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[int, int] = {}
        self._references: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for output in tree_leaves(outputs):
            if isinstance(output, Tensor):
                self.note(output)
        return outputs

    def note(self, tensor: Tensor) -> int:
        """The storage's key."""
        storage = tensor.untyped_storage()
        # while a weak reference is there, no other storage gets this address
        if storage._cdata not in self._references:
            self._references[storage._cdata] = StorageWeakRef(storage)
        self.bytes[storage._cdata] = storage.nbytes()
        return storage._cdata

    def alive(self) -> set[int]:
        gc.collect()
        return {key for key, reference in self._references.items() if not reference.expired()}


def saved_bytes(forward: Callable[[], Tensor], own: Iterable[Tensor]) -> tuple[Tensor, dict[str, int]]:
    """What a forward pass leaves behind for the backward pass, in bytes of distinct storages.

    ``by_hooks`` are those that autograd saves (``torch.autograd.graph.saved_tensors_hooks``). What selective
    checkpointing caches, or a function of one's own holds as an attribute, no hook sees: ``all`` has every storage too
    that was made in the forward pass and is still alive after it. Left out are the 5 kB of the random generator's state
    that each checkpoint may keep.

    Args:
        forward: returns the loss, which does not count.
        own: tensors that do not count either: parameters, buffers, the batch.

    Returns:
        The loss, not yet differentiated; and the bytes.
    """
    storages, packed = _Storages(), set()

    def pack(tensor: Tensor) -> Tensor:
        packed.add(storages.note(tensor))
        return tensor.detach()  # the tensor itself would refer to the node that saves it

    with storages, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    without = {tensor.untyped_storage()._cdata for tensor in (*own, loss)}
    packed -= without
    everything = (storages.alive() | packed) - without
    return loss, {
        "all": sum(storages.bytes[key] for key in everything),
        "by_hooks": sum(storages.bytes[key] for key in packed),
    }


def take_turns(steps: dict[str, Callable[[], Any]], num_rounds: int) -> dict[str, list[float]]:
    """Seconds of each step of some networks that take turns, so that a slow moment of the machine hits all alike.

    Args:
        steps: name → one whole step. One that returns a number has timed itself, in seconds.
        num_rounds: steps of each.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(num_rounds):
        for name, step in steps.items():
            time.sleep(PAUSE_S)
            begin = time.perf_counter()
            own_time = step()
            times[name].append(time.perf_counter() - begin if own_time is None else own_time)
    return times


def quartiles(values: Sequence[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    if len(values) == 1:
        return 3 * list(values)
    return statistics.quantiles(values, method="inclusive")


def resident_bytes() -> tuple[int, int]:
    """Resident memory of this process, now and at its largest; Linux alone."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(1024 * int(lines[key].split()[0]) for key in ("VmRSS", "VmHWM"))
