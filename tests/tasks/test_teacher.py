"""A teacher in both tasks: losses and their gradients by hand."""

import math

import numpy as np
import pytest
import torch
from fixtures.teaching import Scaled, trainer
from scipy.special import log_softmax
from torch import nn
from torch.utils.data import DataLoader

from bnnlight.imaging.skeletons import Skeleton
from bnnlight.tasks import ClassificationTask, PoseTask
from bnnlight.tasks.teacher import divergence

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*", "ignore:.*LeafSpec.*")


def divergence_by_hand(logits, taught, temperature):
    own, theirs = (log_softmax(np.asarray(x, np.float64) / temperature, 1) for x in (logits, taught))
    return temperature**2 * (np.exp(theirs) * (theirs - own)).sum(1).mean()


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_divergence_by_hand_and_its_gradient_by_finite_differences(temperature):
    torch.manual_seed(1)
    logits, taught = (3 * torch.randn(5, 7, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()
    loss = divergence(logits, taught, temperature)
    assert loss.item() == pytest.approx(divergence_by_hand(logits.detach(), taught, temperature), rel=1e-12)
    loss.backward()
    values, step = logits.detach().numpy(), 1e-5
    for index in np.ndindex(5, 7):
        moved = np.zeros_like(values)
        moved[index] = step
        up, down = (divergence_by_hand(values + sign * moved, taught, temperature) for sign in (1, -1))
        assert logits.grad[index].item() == pytest.approx((up - down) / (2 * step), abs=1e-8)
    assert divergence(taught, taught, temperature).item() == pytest.approx(0, abs=1e-14)


def test_divergence_at_high_temperature_is_that_of_centred_logits():
    logits, taught = (torch.randn(6, 5, dtype=torch.float64) for _ in range(2))
    apart = (logits - logits.mean(1, keepdim=True)) - (taught - taught.mean(1, keepdim=True))
    expected = apart.square().mean(1).mean() / 2
    assert divergence(logits, taught, 1e4).item() == pytest.approx(expected.item(), rel=1e-3)


def test_divergence_of_half_precision_is_computed_in_single():
    logits, taught = (torch.randn(4, 10).bfloat16() for _ in range(2))
    loss = divergence(logits, taught, 8.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(divergence_by_hand(logits.float(), taught.float(), 8.0), rel=1e-4)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_step_of_a_class_network_by_hand(teacher, weight):
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    factors = [2.0, -1.0, 0.5, 3.0]
    made = teacher(Scaled(factors), weight=weight, temperature=3)
    task = ClassificationTask(Scaled([1.0] * 4), sgd, warmup=0.0, label_smoothing=0.1, teacher=made)
    run = trainer(max_epochs=1)
    run.fit(task, DataLoader([(logits[:, :, None, None], labels)], batch_size=None))

    x = logits.double().numpy()
    target = 0.9 * np.eye(4)[labels.numpy()] + 0.1 / 4
    plain = -(target * log_softmax(x, 1)).sum(1).mean()
    imitation = divergence_by_hand(x, x * np.array(factors), 3)
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert logged["train/loss_task"] == pytest.approx(plain, rel=1e-5)
    assert logged["train/loss_teacher"] == pytest.approx(imitation, rel=1e-5)
    assert logged["train/loss"] == pytest.approx((1 - weight) * plain + weight * imitation, rel=1e-5)

    # and one step of SGD from it: T · (softmax(own / T) − softmax(taught / T)) is the gradient of the second part
    def softened(z, t):
        return np.exp(log_softmax(z / t, 1))

    of_logits = (1 - weight) * (softened(x, 1) - target)
    of_logits += weight * 3 * (softened(x, 3) - softened(x * np.array(factors), 3))
    expected = 1 - 0.1 * (of_logits * x).mean(0)
    np.testing.assert_allclose(task.backbone.factors.detach(), expected, rtol=1e-5)


SKELETON = Skeleton(joints=("left hand", "right hand", "nose"), limbs=((0, 2), (1, 2)), torso=(0, 1))


class Maps(nn.Module):
    """Heat maps are the image's three channels, one value for each 4×4 px, times a number for each stack."""

    def __init__(self, factors):
        super().__init__()
        self.factors = nn.Parameter(torch.tensor(factors))

    def forward(self, x):
        maps = nn.functional.avg_pool2d(x, 4)
        return torch.stack([maps * factor for factor in self.factors], 1)


def pose_batch(size=16):
    generator = torch.Generator().manual_seed(3)
    weight = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    return {
        "image": 2 * torch.randn(2, 3, size, size, generator=generator),
        "joints": size * torch.rand(2, 3, 2, generator=generator),
        "weight": weight,
    }


def pose_step(factors, batch, **options):
    """What a step of a task logs, and its loss."""
    task = PoseTask(Maps(factors), **options)
    task.skeleton = SKELETON
    logged = {}
    task.log = lambda name, value, **_: logged.update({name: float(value)})
    task.log_dict = lambda values: [task.log(name, value) for name, value in values.items()]
    return task, task.training_step(batch, 0), logged


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_step_of_a_pose_network_by_hand(teacher, loss):
    batch = pose_batch()
    _, plain, only = pose_step([0.5, 1.5], batch, loss=loss)
    # three stacks against two: the last of them is what both learn
    made = teacher(Maps([9.0, -9.0, 0.7]), weight=0.3)
    task, total, logged = pose_step([0.5, 1.5], batch, loss=loss, teacher=made)

    maps = nn.functional.avg_pool2d(batch["image"], 4).double().numpy()
    imitation = 0.0
    for n, j in ((0, 0), (0, 2), (1, 0), (1, 1)):
        for factor in (0.5, 1.5):
            for value in maps[n, j].flatten():
                own, theirs = factor * value, 0.7 * value
                if loss == "mse":
                    imitation += (own - theirs) ** 2
                else:
                    t = 1 / (1 + math.exp(-theirs))
                    imitation += t * math.log1p(math.exp(-own)) + (1 - t) * math.log1p(math.exp(own))
    imitation /= 16 * 4  # pixels, joints that count
    assert set(only) == {"train/loss"}
    assert logged["train/loss_task"] == pytest.approx(plain.item(), rel=1e-6)
    assert logged["train/loss_teacher"] == pytest.approx(imitation, rel=1e-5)
    assert logged["train/loss"] == total.item() == pytest.approx(0.7 * plain.item() + 0.3 * imitation, rel=1e-5)

    total.backward()
    step = 1e-2
    for stack in range(2):
        ends = []
        for sign in (1, -1):
            factors = [0.5, 1.5]
            factors[stack] += sign * step
            ends.append(pose_step(factors, batch, loss=loss, teacher=made)[1].item())
        slope = task.backbone.factors.grad[stack].item()
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=2e-3)
