"""Has `torch.compile` make the network and the optimizer's step quicker."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from torch.optim import Optimizer

from bnnlight.callbacks.schedules.layer_by_layer import LayerByLayer
from bnnlight.callbacks.sharpen import Sharpen
from bnnlight.nn.running import forward_hooks, uncompiled

Mode = Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]

_CHANGING = (Sharpen, LayerByLayer)
"""Callbacks that change what layers compute at each step: each time the network would be compiled anew."""
_OWN_STEPS = ("LBFGS", "SparseAdam")
"""torch's optimizers that cannot be compiled: one calls its closure many times, the other has gradients of its own."""


@dataclass(frozen=True)
class CompileOptions:
    """What is compiled, and how.

    Args:
        network: the task's ``backbone``.
        optimizer: the step of an optimizer of ``torch.optim``. One with ``fused: true`` is refused: it is a
            single kernel, which torch leaves as it is.
        backend: which compiler: ``inductor``, which makes kernels for GPUs and CPUs, or another one that
            ``torch.compiler.list_backends()`` names. ``aot_eager`` makes none, and shows whether a network can be
            compiled at all.
        mode: of ``inductor``: what it spends time and memory on.
        dynamic: whether sizes of batches and pictures may change without another compilation; unless given, only those
            that were seen to change.

    Raises:
        ValueError: neither is to be compiled, or a mode is given to another backend than ``inductor``.
    """

    network: bool = True
    optimizer: bool = False
    backend: str = "inductor"
    mode: Mode | None = None
    dynamic: bool | None = None

    def __post_init__(self) -> None:
        if not (self.network or self.optimizer):
            raise ValueError("compile: neither network nor optimizer is true: set one of them, or compile to false")
        if self.mode is not None and self.mode not in get_args(Mode):
            raise ValueError(f"compile has no mode {self.mode!r}: choose one of {', '.join(get_args(Mode))}")
        if self.mode is not None and self.backend != "inductor":
            raise ValueError(f"compile.mode is for the backend inductor, and compile.backend is {self.backend}")


class Compile(L.Callback):
    """Compiles a task's network, its optimizer's step, or both, by ``torch.compile``, while it trains and is measured.

    Weights, checkpoints and their names stay what they are. The first batch of each kind (training, validation, a batch
    of another size) takes longer. A step in which a callback looks at what layers get, such as
    :class:`bnnlight.callbacks.Activations`, runs uncompiled: compiled code does not show what happens inside it.

    On the command line ``--compile`` (or ``--compile.optimizer true``, ``--compile.mode max-autotune``); from Python::

        Trainer(callbacks=[Compile(CompileOptions(optimizer=True))])

    Args:
        options: what is compiled, and how.

    Raises:
        ValueError: as training starts: torch is older than 2.6 or does not know the backend; the task has no network
            named ``backbone``; a callback changes the network from step to step; a teacher compares feature
            maps; or the optimizer cannot be compiled.
    """

    def __init__(self, options: CompileOptions = CompileOptions()) -> None:
        self.options = options
        self._hooks: list[int] = []
        self._stance = contextlib.ExitStack()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if not hasattr(torch.compiler, "set_stance"):
            raise ValueError(f"compile needs torch 2.6 or newer, and this is torch {torch.__version__}")
        check_backend(self.options.backend)
        if self.options.network:
            self._network(trainer, pl_module).compile(**self._arguments())
            rank_zero_info("compile: the first batch of each kind takes longer, up to minutes")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.options.network:
            self._hooks = forward_hooks(pl_module)
        for optimizer in trainer.optimizers if self.options.optimizer else ():
            _check_optimizer(optimizer)
            optimizer.compile_step(**self._arguments())

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._stance.close()  # of a batch that was begun and skipped
        if self.options.network and forward_hooks(pl_module) != self._hooks:
            self._stance.enter_context(uncompiled())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self._stance.close()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stance.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._stance.close()

    def _arguments(self) -> dict[str, Any]:
        mode = {} if self.options.mode is None else {"mode": self.options.mode}
        return {"backend": self.options.backend, "dynamic": self.options.dynamic} | mode

    def _network(self, trainer: L.Trainer, task: L.LightningModule) -> nn.Module:
        network = getattr(task, "backbone", None)
        if not isinstance(network, nn.Module):
            raise ValueError(
                f"compile: {type(task).__name__} has no network named `backbone`: name it so, or compile it yourself "
                "and set compile.network to false"
            )
        if changing := next((type(c).__name__ for c in trainer.callbacks if isinstance(c, _CHANGING)), None):
            raise ValueError(
                f"compile: {changing} changes the network at each step, and each change would recompile it: leave "
                "the callback out, or set compile.network to false"
            )
        matching = getattr(getattr(task, "teacher", None), "matching", None)
        if matching is not None and matching.weights:
            raise ValueError(
                "compile: the teacher compares feature maps, which a compiled network does not show: leave "
                "teacher.attention and teacher.features out, or set compile.network to false"
            )
        if self.options.backend == "eager" and any(getattr(m, "lean", False) for m in network.modules()):
            raise ValueError("compile: the backend eager cannot run lean blocks: set compile.backend to aot_eager")
        return network


def check_backend(name: str) -> None:
    """
    Raises:
        ValueError: torch knows no such backend.
    """
    known = torch.compiler.list_backends(exclude_tags=())
    if name not in known:
        usual = ", ".join(name for name in ("inductor", "aot_eager", "eager", "cudagraphs") if name in known)
        raise ValueError(f"compile.backend is {name}, which torch does not know: it has {usual}")


def _check_optimizer(optimizer: Optimizer) -> None:
    """
    Raises:
        ValueError: its step cannot be compiled, or it is none that a task makes.
    """
    name, package = type(optimizer).__name__, type(optimizer).__module__
    if not package.startswith("torch.optim.") or name in _OWN_STEPS or not hasattr(optimizer, "compile_step"):
        raise ValueError(
            f"compile.optimizer is for optimizers of torch.optim such as AdamW and SGD, and {name} is not one that can "
            "be compiled: set compile.optimizer to false"
        )
    if any(group.get("fused") for group in optimizer.param_groups):
        raise ValueError(
            f"compile.optimizer: {name} has fused: true, and torch does not compile fused steps: leave one of them out"
        )
