"""A module made another one in place. What this needs to know of torch's modules and tensors stands here alone."""

from __future__ import annotations

from torch import Tensor, nn


def become(module: nn.Module, other: nn.Module) -> None:
    """Makes a module another one, in place.

    Whoever holds the module holds the other one then, under however many names, in lists and closures too. Hooks of
    all kinds stay on it, and the mode (train or eval).

    Args:
        module: is changed.
        other: gives its class, parameters, buffers, children and attributes, and is not to be used again.
    """
    # torch keeps each kind of hook in an attribute of its own, and more kinds come with time
    kept = {name: value for name, value in vars(module).items() if "hook" in name or name == "training"}
    attributes = vars(other) | kept
    vars(module).clear()
    vars(module).update(attributes)
    module.__class__ = type(other)


def has_gradient_hook(tensor: Tensor) -> bool:
    """Whether something was hung on a tensor's gradient: ``register_hook`` and its like."""
    return bool(tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None))
