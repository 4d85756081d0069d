"""Knowledge distillation: a trained network, usually a real-valued one, whose answers another learns to give."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
import torch.nn.functional as F
import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from bnnlight.nn.compute.kept_weights import KeptWeights
from bnnlight.tasks.checkpoints import check_fits, read_saved
from bnnlight.tasks.dry_run import answer
from bnnlight.tasks.feature_matching import FeatureMatching
from bnnlight.tasks.ranks import mean_over_ranks


def divergence(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(taught / T) ‖ softmax(logits / T)), mean over the pictures.

    T² keeps the gradient's size as T grows. For large T it is half the mean, over classes, of the squared difference of
    the two, each less its mean (Hinton, Vinyals, Dean 2015, https://arxiv.org/abs/1503.02531).

    Args:
        logits: ``(N, classes)``, of the network that learns.
        taught: ``(N, classes)``, the teacher's.
        temperature: T, above 0.
    """
    # half precision is too coarse for what is left of two nearly equal answers
    wide = torch.promote_types(logits.dtype, torch.float32)
    own, theirs = (F.log_softmax(x.to(wide) / temperature, 1) for x in (logits, taught))
    return temperature**2 * F.kl_div(own, theirs, reduction="batchmean", log_target=True)


class Teacher:
    """A frozen network that a task holds beside its backbone; it is not part of the task.

    It is not a submodule: its weights are neither trained, nor saved, nor counted, nor sent between processes, and it
    stays in eval mode whatever the task does. It is read from its file when training begins, and not at all for what
    comes later: a trained network is measured, shipped and used without its teacher. In a config one line is enough::

        teacher: {checkpoint: runs/real/20260101-120000/checkpoints/best.ckpt, weight: 0.5, temperature: 4}

    The teacher sees the very pictures that the learning network sees, so it should have been trained on pictures
    prepared alike.

    Besides its answer, its feature maps can be imitated, after each block: where they are large (``attention``), or as
    they are (``features``). The task minimizes

        (1 − weight) · its own loss + weight · imitation of the answer + attention · L_a + features · L_f

    with L_a and L_f the sums over the blocks of :func:`bnnlight.tasks.feature_matching.attention_loss` and
    :func:`~bnnlight.tasks.feature_matching.feature_loss`.

    Args:
        checkpoint: of ``bnnlight fit``, or a plain ``state_dict`` of the backbone as ``torch.save`` writes it.
        backbone: the network that the weights are for. None: as the config of the checkpoint's run has it, which is
            ``RUN/config.yaml`` for ``RUN/checkpoints/best.ckpt``.
        weight: share of the teacher in the loss, in [0, 1]; the rest is the task's own.
        temperature: what logits are divided by, above 0; the larger it is, the more the unlikely classes count.
        attention, features: weights of L_a and L_f, at least 0. The teacher's feature maps must have the same height
            and width, and for ``features`` the same number of channels too.
        blocks: which modules' outputs are compared, the network's path → the teacher's, in their backbones. None:
            the smallest modules with more than one binary layer, and the teacher's of the same paths, which a
            :func:`bnnlight.nn.real_valued` network of the same kind has.

    Raises:
        ValueError: a weight or the temperature is out of range.
    """

    def __init__(
        self,
        checkpoint: str,
        backbone: nn.Module | None = None,
        weight: float = 0.5,
        temperature: float = 1.0,
        attention: float = 0.0,
        features: float = 0.0,
        blocks: dict[str, str] | None = None,
    ) -> None:
        if not 0 <= weight <= 1:
            raise ValueError(f"the teacher's weight is {weight}: give its share of the loss, from 0 to 1")
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"the teacher's temperature is {temperature}: give a number above 0")
        self.checkpoint, self.weight, self.temperature = checkpoint, weight, temperature
        self.matching = FeatureMatching({"attention": attention, "features": features}, blocks)
        self._backbone = backbone
        self._network: nn.Module | None = None
        self._names: list[str] = []
        self._format = torch.contiguous_format
        self._weights = KeptWeights()
        self._place: tuple[torch.device, torch.dtype] | None = None

    def load(self) -> None:
        """Reads the network, unless that has been done. Random numbers continue as if nothing had been built.

        Raises:
            FileNotFoundError: checkpoint or config does not exist.
            ValueError: one of them is damaged, or they are of different networks.
        """
        if self._network is not None:
            return
        try:
            content = read_saved(self.checkpoint)
            network = self._built() if self._backbone is None else self._backbone
            state = _weights(content)
            check_fits(state, network, self.checkpoint)
            if not all(tensor.isfinite().all() for tensor in state.values()):
                raise ValueError(f"{self.checkpoint} holds weights that are not finite: take another checkpoint")
        except (OSError, ValueError) as error:
            raise type(error)(f"teacher: {error}") from error
        network.load_state_dict(state)
        self._network = network.eval().requires_grad_(False)
        skeleton = content.get("skeleton") or {}
        self._names = list(content.get("class_names") or skeleton.get("joints") or [])

    @property
    def keys(self) -> set[str]:
        """What :meth:`mix` logs."""
        return {"train/loss_task", "train/loss_teacher", *self.matching.keys}

    def prepare(self, names: Sequence[str], memory_format: torch.memory_format, network: nn.Module) -> None:
        """What a task calls as training begins.

        Args:
            names: of its classes or joints, in their order; empty where they are not known.
            memory_format: in which convolutions get their pictures.
            network: the backbone that learns.

        Raises:
            FileNotFoundError, ValueError: see ``load``; or the teacher knows other classes or joints, or has them in
                another order; or a block whose feature maps are to be compared is missing.
        """
        self.load()
        self.matching.find(network, self._network)
        self._format = memory_format
        self._network.to(memory_format=memory_format)
        if not names or not self._names or list(names) == self._names:
            return
        if len(names) != len(self._names):
            apart = f"it knows {len(self._names)} classes or joints, the data have {len(names)}"
        else:
            place = next(i for i, name in enumerate(names) if name != self._names[i])
            apart = f"its number {place} is {self._names[place]!r}, the data's is {names[place]!r}"
        raise ValueError(f"teacher: {self.checkpoint} was trained for other classes or joints: {apart}")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """The teacher's answer to ``(N, C, H, W)``, without gradient.

        Raises:
            ValueError: it does not take pictures of that shape.
        """
        self.load()
        place = images.device, images.dtype
        first = place != self._place
        if first:
            self._network.to(images.device, images.dtype if images.is_floating_point() else None)
            self._place = place
            self._weights.begin()  # nothing trains them
        try:
            with self._weights.used(), self.matching.watched(self._network, "taught"):
                return self._network(images.contiguous(memory_format=self._format))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            if not first:
                raise
            text = str(error).splitlines()[0]
            shape = "×".join(map(str, images.shape[1:]))
            raise ValueError(f"teacher: {self.checkpoint} does not take pictures of {shape}: {text}") from error

    def check(self, taught: Tensor, own: Tensor, num_free: int = 0) -> None:
        """Makes sure that the two answers can be compared.

        Args:
            taught: the teacher's.
            own: that of the network that learns.
            num_free: first dimensions that may differ.

        Raises:
            ValueError: the shapes differ elsewhere.
        """
        if taught.ndim != own.ndim or taught.shape[num_free:] != own.shape[num_free:]:
            raise ValueError(
                f"teacher: {self.checkpoint} answers {tuple(taught.shape)} where the network answers "
                f"{tuple(own.shape)}: take one for the same classes or joints and the same size of heat maps"
            )

    def watching(self, network: nn.Module) -> contextlib.AbstractContextManager[None]:
        """Within, the feature maps of the network that learns are kept for :meth:`mix`."""
        return self.matching.watched(network, "own")

    def check_network(self, task: L.LightningModule, shape: tuple[int, int, int], own: Tensor, num_free: int) -> None:
        """Makes sure, by one picture of zeros, that answers and feature maps of teacher and network can be compared.

        Args:
            task: it holds the network as its ``backbone``.
            shape: of a picture, ``(C, H, W)``.
            own: the network's answer to such a picture.
            num_free: first dimensions of the answer that may differ.

        Raises:
            ValueError: they cannot.
        """
        self.check(self(torch.zeros(1, *shape)), own, num_free)
        if self.matching.weights:
            with self.watching(task.backbone):
                answer(task, shape)
            self.matching.losses()

    def mix(self, task: L.LightningModule, loss: Tensor, imitation: Tensor) -> Tensor:
        """The loss to minimize; its parts, without their weights, are logged as ``train/loss_task``,
        ``train/loss_teacher``, ``train/loss_attention`` and ``train/loss_features``.

        Args:
            task: it logs.
            loss: its own.
            imitation: of the teacher's answer.
        """
        matched = self.matching.losses()
        # in one message between the processes
        logged = mean_over_ranks(torch.stack((loss, imitation, *matched.values())))
        names = ("task", "teacher", *matched)
        task.log_dict({f"train/loss_{name}": value for name, value in zip(names, logged, strict=True)})
        total = (1 - self.weight) * loss + self.weight * imitation
        return sum((self.matching.weights[name] * value for name, value in matched.items()), total)

    def _built(self) -> nn.Module:
        config = Path(self.checkpoint).resolve().parent.parent / "config.yaml"
        if not config.is_file():
            raise FileNotFoundError(f"config of its run not found: {config}; name the network as teacher.backbone")
        parser = ArgumentParser(exit_on_error=False)
        parser.add_argument("--backbone", type=nn.Module)
        try:
            entry = yaml.safe_load(config.read_text())["model"]["init_args"]["backbone"]
            # not the GPUs' random numbers, whose states would be asked of every GPU of the machine
            with isolate_rng(include_cuda=False):
                return parser.instantiate(parser.parse_object({"backbone": entry})).backbone
        except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, ArgumentError) as error:
            cause = " ".join(str(error).split())
            raise ValueError(f"{config} names no network that can be built: {cause}") from error


def _weights(content: dict) -> dict[str, Tensor]:
    """The backbone's entries of a task's checkpoint; what is not a checkpoint is taken as it is."""
    if not isinstance(content.get("state_dict"), dict):
        return content
    return {k.removeprefix("backbone."): v for k, v in content["state_dict"].items() if k.startswith("backbone.")}


def watching(teacher: Teacher | None, network: nn.Module) -> contextlib.AbstractContextManager[None]:
    """:meth:`Teacher.watching`, where there is a teacher."""
    return teacher.watching(network) if teacher else contextlib.nullcontext()
