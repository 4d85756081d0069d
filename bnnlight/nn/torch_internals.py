"""Adapter for what is private to torch and has no public counterpart: modules, hooks, versions, transforms.

No other file of ``nn`` and ``deploy`` touches such, but for kernels, which ``compute/kernels.py`` has.
``tests/nn/test_torch_internals.py`` fails where another version of torch has another layout.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BatchNorm = _BatchNorm
"""The base of all batch norms, of any number of dimensions."""

_transforms_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)


def transformed() -> bool:
    """Whether a transform of ``torch.func`` is running: ``grad``, ``vmap``, ``jacrev`` and their like.

    Functions with a backward pass of their own, and what is computed again in it, are left out then: transforms derive
    plain operations. Where torch does not tell, they raise torch's own message.
    """
    return not torch.compiler.is_compiling() and _transforms_active()


def become(module: nn.Module, other: nn.Module) -> None:
    """Turns a module into another one, in place.

    Whoever holds the module holds the other one then, under however many names, in lists and closures too. Hooks of
    all kinds stay on it, and the mode (train or eval).

    Args:
        module: is changed.
        other: gives its class, parameters, buffers, children and attributes, and is not to be used again.
    """
    # torch keeps each kind of hook in an attribute of its own, and more kinds come with time
    hooks_and_mode = {name: value for name, value in vars(module).items() if "hook" in name or name == "training"}
    attributes = vars(other) | hooks_and_mode
    vars(module).clear()
    vars(module).update(attributes)
    module.__class__ = type(other)


def has_gradient_hook(tensor: Tensor) -> bool:
    """Whether something was hung on a tensor's gradient: ``register_hook`` and its like."""
    return bool(tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None))


def has_forward_hook(module: nn.Module) -> bool:
    """Whether something was hung on a module's forward pass, before or behind it."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def forward_hooks(model: nn.Module) -> list[int]:
    """Numbers of all hooks on the forward passes of a network's modules, in order: new hooks have new numbers."""
    kinds = ((module._forward_pre_hooks, module._forward_hooks) for module in model.modules())
    return [number for hooks in itertools.chain(*kinds) for number in hooks]


def version(tensor: Tensor) -> int:
    """How often a tensor, or another view of it, was changed in place."""
    return tensor._version


def check_dims(norm: BatchNorm, x: Tensor) -> None:
    """Raises ValueError, torch's own, where an input has a number of dimensions that the batch norm does not take."""
    norm._check_input_dim(x)


class OwnBatchNorm(BatchNorm):
    """Base of batch norms that torch does not have; a subclass says in :meth:`check_dims` what it takes."""

    def check_dims(self, x: Tensor) -> None:
        """Raises ValueError where an input has a number of dimensions that this layer does not take."""
        raise NotImplementedError

    def _check_input_dim(self, input: Tensor) -> None:
        self.check_dims(input)
