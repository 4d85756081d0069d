"""Functions of torch that are not public may be gone, changed or wrong in another version: results stay."""

import copy
import itertools
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures.plain_layers import PlainConv2d
from fixtures.processes import LIMIT_S
from torch.utils.flop_counter import FlopCounterMode

import bnnlight
from bnnlight.nn import BinaryConv2d, Tucker
from bnnlight.nn.compute import kernels
from bnnlight.nn.compute.kernels import Kernel

ROOT = Path(bnnlight.__file__).parent


def matrices():
    a, b = torch.randint(-9, 9, (32, 40)), torch.randint(-9, 9, (24, 40))
    return a, b, torch.from_numpy(a.numpy() @ b.numpy().T)


def int_mm_case():
    a, b, expected = matrices()
    return (a.to(torch.int8), b.to(torch.int8).T), [expected.int()]


def mm_case():
    a, b, expected = matrices()
    return (a.float(), b.float()), [expected.float()]


def conv_case():
    options = (2, 1), (1, 2), (2, 1), 2
    x, weight = torch.randn(2, 4, 7, 8), torch.randn(6, 2, 3, 2)
    grad = torch.randn_like(F.conv2d(x, weight, None, *options))

    def derivative(of, run):
        # y is linear in each: its derivative to an entry is what the entry alone gives
        ones = torch.eye(of.numel(), dtype=torch.float64).view(-1, *of.shape)
        return torch.stack([(run(one) * grad).sum() for one in ones]).view(of.shape).float()

    to_x = derivative(x, lambda one: F.conv2d(one, weight.double(), None, *options))
    to_weight = derivative(weight, lambda one: F.conv2d(x.double(), one, None, *options))
    return (grad, x, weight, *options, (True, True)), [to_x, to_weight]


def clamp_case():
    grad, x = torch.randn(50), torch.linspace(-3, 3, 50)
    x[:2] = torch.tensor([-2.0, 1.5])  # the bounds themselves
    return (grad, x, -2.0, 1.5), [torch.from_numpy(np.where((x.numpy() > -2) & (x.numpy() < 1.5), grad.numpy(), 0))]


def relu_case():
    grad, x = torch.randn(51), torch.linspace(-1, 1, 51)
    return (grad, x), [torch.from_numpy(np.where(x.numpy() > 0, grad.numpy(), 0))]


def copy_case():
    values = [torch.arange(3), torch.arange(4)]
    return ([torch.zeros(3, dtype=torch.int64), torch.ones(4, dtype=torch.int64)], values), values


# the kernel, where torch has its function, and arguments with the result by another way
KERNELS = {
    "int_mm": (kernels.int_mm, "_int_mm", int_mm_case),
    "mm_by_onednn": (kernels.mm_by_onednn, "ops.mkldnn._linear_pointwise", mm_case),
    "conv_backward": (kernels.conv_backward, "ops.aten.convolution_backward", conv_case),
    "clamp_backward": (kernels.clamp_backward, "ops.aten.hardtanh_backward", clamp_case),
    "relu_backward": (kernels.relu_backward, "ops.aten.threshold_backward", relu_case),
    "copy_all": (kernels.copy_all, "_foreach_copy_", copy_case),
}
each_kernel = pytest.mark.parametrize("name", KERNELS)


class Without:
    """A namespace with something in the place of one of its functions, or without it."""

    def __init__(self, real, name, function):
        self.real, self.name, self.function = real, name, function

    def __getattr__(self, name):
        if name != self.name:
            return getattr(self.real, name)
        if self.function is None:
            raise AttributeError(name)
        return self.function


def refuses(real):
    def changed(*args):
        raise TypeError("takes other arguments")

    return changed


def is_wrong(real):
    def changed(*args):
        found = real(*args)
        for one in [found] if isinstance(found, torch.Tensor) else found or args[0]:
            if one is not None:
                one += 1
        return found

    return changed


FAULTS = {"missing": lambda real: None, "other signature": refuses, "wrong numbers": is_wrong}
each_fault = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


@pytest.fixture
def untried(monkeypatch):
    for kernel, *_ in KERNELS.values():
        monkeypatch.setattr(kernel, "_verdicts", {})


def spoil(name, fault, monkeypatch):
    _, path, _ = KERNELS[name]
    *spaces, function = path.split(".")
    if spaces:
        space = getattr(torch.ops, spaces[1])
        monkeypatch.setattr(torch.ops, spaces[1], Without(space, function, fault(getattr(space, function))))
    elif fault is FAULTS["missing"]:
        monkeypatch.delattr(torch, function)
    else:
        monkeypatch.setattr(torch, function, fault(getattr(torch, function)))


def results(kernel, args):
    found = kernel(*args)
    return [found] if isinstance(found, torch.Tensor) else list(found)


@each_kernel
def test_equals_another_way(name, untried):
    kernel, _, case = KERNELS[name]
    args, expected = case()
    for way in (kernel, kernel.private, kernel.public):
        torch.testing.assert_close(results(way, copy.deepcopy(args)), expected)
    # of integers also speed decides, which depends on the processor
    assert name == "int_mm" or list(kernel._verdicts.values()) == [True]


@each_fault
@each_kernel
def test_where_it_does_not_work_the_public_way_is_taken(name, fault, monkeypatch, untried):
    kernel, _, case = KERNELS[name]
    args, expected = case()
    spoil(name, fault, monkeypatch)
    torch.testing.assert_close(results(kernel, args), expected)
    assert list(kernel._verdicts.values()) == [False]


@each_fault
def test_training_without_any_of_them(fault, monkeypatch, untried):
    # its products are beyond the small ones
    layer, slope = BinaryConv2d(128, 160, 3, padding=1, latent=Tucker), torch.full((160,), 0.25, requires_grad=True)
    x, grad = torch.randn(2, 128, 12, 12, requires_grad=True), torch.randn(2, 160, 12, 12)
    inputs = [x, slope, *layer.parameters()]
    expected = torch.autograd.grad(F.prelu(PlainConv2d.forward(layer, x), slope), inputs, grad)
    for name, (kernel, *_) in KERNELS.items():
        kernel._verdicts.clear()
        spoil(name, fault, monkeypatch)
    found = torch.autograd.grad(layer(x, slope), inputs, grad)
    tried = [name for name, (kernel, *_) in KERNELS.items() if kernel._verdicts]
    assert tried == [name for name in KERNELS if name != "copy_all"]
    for one, two in zip(found, expected, strict=True):
        assert (one - two).norm() <= 1e-4 * two.norm()


def test_tried_at_the_first_use_and_never_again():
    made = []

    def examples(device, dtype):
        made.append((device, dtype))
        yield (torch.ones(2, dtype=dtype),)

    kernel = Kernel(lambda x: x + 1, lambda x: 1 + x, examples)
    assert made == []
    for dtype in (torch.float32, torch.float64, torch.float32, torch.float64):
        kernel(torch.zeros(3, dtype=dtype))
    # of each dtype for both ways
    cpu = torch.device("cpu")
    assert made == [(cpu, torch.float32)] * 2 + [(cpu, torch.float64)] * 2


def test_threads_that_try_it_at_once_agree():
    together, answers, found = threading.Barrier(4, timeout=LIMIT_S), itertools.cycle([True, False]), []

    def quick():
        together.wait()  # each thread is in a trial of its own
        return next(answers)

    kernel = Kernel(lambda x: x, lambda x: x, lambda device, dtype: [(torch.ones(2),)], quick=quick)
    threads = [
        threading.Thread(target=lambda: found.append(kernel.works(torch.device("cpu"), torch.float32)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert kernel.works(torch.device("cpu"), torch.float32) is found[0]


@each_kernel
def test_what_the_caller_is_in_does_not_mislead_the_trial(name, monkeypatch, untried):
    kernel, _, case = KERNELS[name]
    args, _ = case()
    monkeypatch.setattr(kernel, "quick", lambda: True)  # which depends on the processor
    state = torch.get_rng_state()
    like = args[0] if isinstance(args[0], torch.Tensor) else args[0][0]
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        assert kernel.works(like.device, like.dtype)
    assert counter.get_total_flops() == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_a_compiled_network_tries_nothing(untried):
    torch.compiler.reset()
    layer = BinaryConv2d(4, 6, 3, padding=1)
    x, slope = torch.randn(2, 4, 6, 6, requires_grad=True), torch.full((6,), 0.25)

    def gradients(run):
        return torch.autograd.grad(run(x, slope).square().sum(), [x, *layer.parameters()])

    # traced, and not made into machine code
    found = gradients(torch.compile(layer, backend="eager", fullgraph=True))
    assert not any(kernel._verdicts for kernel, *_ in KERNELS.values())
    torch.testing.assert_close(found, gradients(layer))


def test_no_other_file_touches_them():
    private = re.compile(r"\btorch\._[a-z]|\btorch\.ops\b")
    found = {str(p.relative_to(ROOT)) for p in ROOT.rglob("*.py") if private.search(p.read_text(encoding="utf-8"))}
    # the plain engine takes one for its roundings, not for speed
    assert found == {"nn/compute/kernels.py", "deploy/formats/plain.py"}
