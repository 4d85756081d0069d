"""`SyncBatchNorm`: batch norm over the batches of all processes, on any device."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bnnlight.nn.torch_internals import BatchNorm, OwnBatchNorm, check_dims

_TENSORS = "weight", "bias", "running_mean", "running_var", "num_batches_tracked"


class _SumOverRanks(torch.autograd.Function):
    """Sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(OwnBatchNorm):
    """A batch norm whose mean and variance are those of all processes' batches together.

    ``torch.nn.SyncBatchNorm`` does the same on GPUs and refuses other devices. With n_r values of a channel on rank
    r, of mean m_r and summed squared deviation s_r, n = Σ n_r:

        mean = Σ n_r m_r / n,    variance = Σ (s_r + n_r (m_r − mean)²) / n

    so the processes' batches may differ in size, and one may be empty. The running variance takes n − 1 in place of
    n, as the plain layer does. When measuring, and outside of a run of several processes, it is the plain layer;
    measuring therefore never communicates.

    Args:
        norm: the layer to stand in for, whose parameters and buffers are this one's, under the same names, until
            :meth:`plain` gives them back.
    """

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__(norm.num_features, affine=False, track_running_stats=False)
        _hand_over(norm, self)
        # in a tuple, or it would be a submodule with names of its own
        self._norm = (norm,)

    def plain(self) -> BatchNorm:
        """The layer that this one stands in for, in its present state."""
        return _hand_over(self, self._norm[0])

    def forward(self, input: Tensor) -> Tensor:
        """Normalizes ``(N, C, …)``; N may differ between the processes.

        Raises:
            ValueError: a wrong number of dimensions, or only one value a channel to train on in all processes.
        """
        x = input  # named as by the layer that it stands in for, which code may call by name
        self.check_dims(x)
        if not (self.training and dist.is_available() and dist.is_initialized()):
            return super().forward(x)
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        # half precision is too coarse to sum in
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean, variance, count = _statistics(wide, axes, shape)
        if count <= 1:
            raise ValueError(f"batch norm cannot train on one value a channel, {tuple(x.shape)}: enlarge the batch")
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        factor = (variance + self.eps).rsqrt()
        if self.weight is not None:
            factor = factor * self.weight
        y = (wide - mean.view(shape)) * factor.view(shape)
        if self.bias is not None:
            y = y + self.bias.view(shape)
        return y.to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if not self.track_running_stats:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)

    def check_dims(self, x: Tensor) -> None:
        check_dims(self._norm[0], x)


def _hand_over(norm: BatchNorm, other: BatchNorm) -> BatchNorm:
    """Gives a batch norm the mode, options, parameters and buffers of another one."""
    for name in ("eps", "momentum", "affine", "track_running_stats", *_TENSORS):
        setattr(other, name, getattr(norm, name))
    return other.train(norm.training)


def _statistics(x: Tensor, axes: list[int], shape: list[int]) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance ``(C,)`` over all processes, and the number of values a channel."""
    count = x.numel() // x.shape[1]
    mean = x.sum(axes) / max(count, 1)
    squares = (x - mean.view(shape)).square().sum(axes)
    rows = x.new_zeros(dist.get_world_size(), 2 * x.shape[1] + 1)
    rows[dist.get_rank()] = torch.cat((mean, squares, mean.new_tensor([count])))
    # each rank fills in its own row: the sum gathers them, in one message each way
    means, squares, counts = _SumOverRanks.apply(rows).split((x.shape[1], x.shape[1], 1), dim=1)
    shares = counts / counts.sum()
    mean = (shares * means).sum(0)
    variance = squares.sum(0) / counts.sum() + (shares * (means - mean).square()).sum(0)
    return mean, variance, counts.sum().item()


def synchronize(model: nn.Module) -> nn.Module:
    """Puts a :class:`SyncBatchNorm` in the place of each batch norm; returns the model, or what replaces it."""
    if isinstance(model, BatchNorm) and not isinstance(model, (SyncBatchNorm, nn.SyncBatchNorm)):
        return SyncBatchNorm(model)
    for name, child in model.named_children():
        setattr(model, name, synchronize(child))
    return model


def desynchronize(model: nn.Module) -> nn.Module:
    """Puts the plain layers back: undoes :func:`synchronize`."""
    if isinstance(model, SyncBatchNorm):
        return model.plain()
    for name, child in model.named_children():
        setattr(model, name, desynchronize(child))
    return model
