"""Code that gives arguments by name is shipped as code that gives them by place."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.proof.verify import observed
from bnnlight.nn import BinaryConv2d, BinaryLinear
from bnnlight.nn.compute.sync_norm import synchronize


class Net(nn.Module):
    """A binary layer behind and before what a case does, a function of (network, value)."""

    def __init__(self, between):
        super().__init__()
        self.between = between
        self.entry = BinaryConv2d(3, 4, 3, padding=1, bias=True)
        self.inner = BinaryConv2d(4, 4, 3, padding=1)
        self.conv, self.wide = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.norm, self.prelu, self.pool = nn.BatchNorm2d(4), nn.PReLU(4), nn.MaxPool2d(2)
        self.first, self.second = nn.Linear(4, 5), BinaryLinear(5, 3)
        self.register_buffer("gain", torch.rand(4, 1, 1) + 0.5)

    def forward(self, x):
        y = self.between(self, self.entry(x=x))
        return self.second(x=self.first(input=y.mean(axis=(2, 3))))


def functions(net, x):
    x = F.conv2d(input=x, weight=net.conv.weight, bias=net.conv.bias, padding=1)
    x = F.batch_norm(x, running_mean=net.norm.running_mean, running_var=net.norm.running_var, weight=net.norm.weight)
    return F.prelu(input=x, weight=net.prelu.weight)


WAYS = {
    "torch's modules": lambda net, x: net.pool(input=net.prelu(input=net.norm(input=net.conv(input=x)))),
    "functions with numbers": functions,
    "function of one value": lambda net, x: F.relu(input=x),
    "options before the value": lambda net, x: F.max_pool2d(kernel_size=2, stride=1, input=x),
    "average pool": lambda net, x: F.avg_pool2d(x, kernel_size=2, count_include_pad=False, padding=1, stride=2),
    "adaptive pool": lambda net, x: F.adaptive_avg_pool2d(output_size=(4, 2), input=x),
    "interpolation": lambda net, x: F.interpolate(mode="nearest", scale_factor=2, input=x),
    "dropout": lambda net, x: F.dropout(training=False, input=x, p=0.5),
    "bounds": lambda net, x: torch.clamp(max=1, input=x, min=-0.5),
    "bounds of a method": lambda net, x: x.clamp(max=0.5),
    "hard tanh": lambda net, x: F.hardtanh(max_val=0.5, input=x),
    "concatenation": lambda net, x: net.wide(input=torch.cat(dim=1, tensors=(x, net.norm(x)))),
    "concatenation along an axis": lambda net, x: torch.cat((x,), axis=1),
    "sum, the other one first": lambda net, x: torch.add(other=x * 2, input=x),
    "difference, the other one first": lambda net, x: torch.sub(other=x, input=net.gain),
    "product": lambda net, x: torch.mul(x, other=net.gain),
    "quotient": lambda net, x: torch.div(input=x, other=net.gain),
    "method of two values": lambda net, x: x.sub(other=net.norm(x)),
    "numpy's names": lambda net, x: torch.add(torch.mul(x1=x, x2=net.gain), x2=net.gain),
    "choice": lambda net, x: torch.where(other=-1.0, condition=torch.ge(input=x, other=0.25), self=1.0),
    "choice of a method": lambda net, x: (x >= 0.25).float().mul(other=2),
    "sigmoid": lambda net, x: torch.sigmoid(input=x),
    "a slope behind the layer": lambda net, x: net.inner(slope=net.prelu.weight, x=x),
    "a slope by place": lambda net, x: net.inner(x, net.prelu.weight),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_arguments_by_name(way, randomized, check_frozen):
    model, shape = randomized(Net(way)), (3, 8, 8)
    check_frozen(model, freeze(model, shape), torch.randn(3, *shape))


def test_synchronized_norm_by_name(randomized, check_frozen):
    model = randomized(synchronize(Net(lambda net, x: net.norm(input=x))))
    check_frozen(model, freeze(model, (3, 8, 8)), torch.randn(2, 3, 8, 8))


def test_signs_are_seen_of_a_layer_that_is_called_by_name(randomized):
    model = randomized(Net(lambda net, x: net.inner(slope=net.prelu.weight, x=x)))
    x = torch.randn(2, 3, 8, 8)
    y, signs = observed(model, x)
    torch.testing.assert_close(y, model(x))
    assert list(signs) == ["entry.sign", "inner.sign", "second.sign"]
    assert (signs["entry.sign"] == (x >= 0).numpy()).all()
    assert (signs["inner.sign"] == (model.entry(x) >= 0).numpy()).all()
