"""The stages before a network is binary: Y = α ⊙ (q(X) ⊛ W̃_o / mean|W̃_o|)."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.backbones import ResNet, StackedHourglass
from bnnlight.backbones.blocks import BinaryBlock
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.nn import (
    BinaryConv2d,
    BinaryLinear,
    Dense,
    Holistic,
    Matrix,
    Tucker,
    named_binary_layers,
    real_valued,
    restart_alpha,
    set_stage,
)

RELAXED = ["real", "binary_activations"]
each_stage = pytest.mark.parametrize("stage", RELAXED)


def layer_by_hand(x, layer, stage, alpha):
    """Y in numpy, sum by sum."""
    x, weight = x.detach().numpy(), layer.latent().detach().numpy()
    value = 0
    if stage == "binary_activations":
        x, value = np.where(x >= 0, 1.0, -1.0), layer.padding_value
    weight = np.stack([w / np.mean([abs(v) for v in w.flat]) for w in weight])
    (top, left), (down, right) = layer.padding, layer.stride
    x = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)), constant_values=value)
    height, width = weight.shape[2:]
    rows, columns = (x.shape[2] - height) // down + 1, (x.shape[3] - width) // right + 1
    y = np.zeros((len(x), len(weight), rows, columns))
    for row in range(rows):
        for column in range(columns):
            patch = x[:, :, row * down : row * down + height, column * right : column * right + width]
            y[:, :, row, column] = np.einsum("nihw,oihw->no", patch, weight)
    alpha = np.asarray(alpha, dtype=float)
    return torch.from_numpy(y * (alpha[None, :, None, None] if alpha.ndim == 1 else alpha))


@each_stage
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("padding_value", [0, 1, -1])
@pytest.mark.parametrize("latent", [Dense, lambda w: Matrix(w, 0.5, start="balanced")])
def test_a_convolution_by_hand(stage, training, padding_value, latent):
    layer = BinaryConv2d(3, 4, (3, 2), (2, 1), (1, 2), padding_value=padding_value, latent=latent).double()
    with torch.no_grad():
        layer.scale.alpha.copy_(torch.tensor([0.5, -2.0, 1.5, 0.25]))
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    expected = layer_by_hand(x, layer, stage, layer.scale.alpha.tolist())
    torch.testing.assert_close(set_stage(layer, stage).train(training)(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)


@each_stage
@pytest.mark.parametrize("scale", ["none", "analytic", "spatial"])
def test_each_scale_by_hand(stage, scale):
    layer = BinaryConv2d(3, 4, 3, padding=1, scale=scale, output_size=(5, 4)).double()
    alpha = np.ones(4)
    if scale == "analytic":
        alpha = [np.abs(w).mean() for w in layer.latent.weight.detach().numpy()]
    if scale == "spatial":
        with torch.no_grad():
            for vector in layer.scale.positions:
                vector.copy_(torch.rand(len(vector)) + 0.5)
        channels, height, width = (v.detach().numpy() for v in layer.scale.parameters())
        alpha = channels[:, None, None] * height[:, None] * width
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    expected = layer_by_hand(x, layer, stage, alpha)
    torch.testing.assert_close(set_stage(layer, stage)(x), expected)


@each_stage
def test_linear_layers_by_hand(stage):
    layer = BinaryLinear(6, 3, bias=True).double()
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -2.0, 0.5]))
    x = torch.randn(4, 2, 6, dtype=torch.float64)
    weight = layer.latent.weight.detach().numpy()
    weight = weight / np.abs(weight).mean(1, keepdims=True) * layer.scale.alpha.detach().numpy()[:, None]
    q = x.numpy() if stage == "real" else np.where(x.numpy() >= 0, 1.0, -1.0)
    torch.testing.assert_close(set_stage(layer, stage)(x), torch.from_numpy(q @ weight.T + [1.0, -2.0, 0.5]))


@pytest.mark.parametrize("scale", ["none", "analytic", "channel", "spatial"])
def test_gradients_of_a_real_layer(scale):
    layer = BinaryConv2d(2, 3, 2, scale=scale, output_size=(1, 2), latent=Matrix, bias=True).double()
    set_stage(layer, "real")
    x = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)
    slope = torch.rand(3, dtype=torch.float64, requires_grad=True)

    def run(x, slope, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x, slope))

    assert torch.autograd.gradcheck(run, (x, slope, *values))


def test_gradients_with_binary_activations():
    layer = set_stage(BinaryConv2d(2, 3, 2, activation_gradient="polynomial").double(), "binary_activations")
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    real = copy.deepcopy(set_stage(layer, "real"))
    set_stage(layer, "binary_activations")
    signs = torch.where(x.detach() < 0, -1.0, 1.0).double().requires_grad_()
    layer(x).square().sum().backward()
    real(signs).square().sum().backward()
    # the gradient that arrives at the sign, times 2 - 2|x| within ±1
    torch.testing.assert_close(x.grad, signs.grad * (2 - 2 * x.detach().abs()).clamp_min(0))
    for one, other in zip(layer.parameters(), real.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    weights = [layer.latent.weight, layer.scale.alpha]
    names = ["latent.weight", "scale.alpha"]

    def run(*values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x.detach(),))

    assert torch.autograd.gradcheck(run, weights)


def test_with_alpha_at_its_start_a_real_layer_is_the_convolution():
    layer = set_stage(BinaryConv2d(4, 6, 3, 2, 1, groups=2, padding_value=-1).double(), "real")
    x = torch.randn(2, 4, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.latent.weight, None, 2, 1, groups=2))


def test_a_real_network_is_its_real_valued_twin():
    network = ResNet((1, 1), 5, width=0.25, stem="small", latent=Matrix)
    twin = real_valued(copy.deepcopy(network))
    set_stage(restart_alpha(network), "real")
    x = torch.randn(4, 3, 8, 8)
    for training in (True, False):
        torch.testing.assert_close(network.train(training)(x), twin.train(training)(x), atol=1e-5, rtol=1e-5)


def test_the_binary_stage_is_what_a_layer_was_before():
    network = ResNet((1,), 5, width=0.125, stem="small").eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        before = network(x)
        for stage in RELAXED:
            assert not torch.allclose(set_stage(network, stage)(x), before)
        assert torch.equal(set_stage(network, "binary")(x), before)


@each_stage
@pytest.mark.parametrize("layer", [BinaryConv2d(2, 3, 3), BinaryConv2d(2, 3, 3, scale="none"), BinaryLinear(2, 3)])
def test_filters_of_zeros_and_tiny_ones_give_numbers(stage, layer):
    layer = set_stage(copy.deepcopy(layer), stage)
    with torch.no_grad():
        layer.latent.weight[0] = 0
        layer.latent.weight[1] = 1e-42
    x = torch.randn(2, 2, 5, 5) if isinstance(layer, BinaryConv2d) else torch.randn(5, 2)
    y = layer(x)
    y.square().sum().backward()
    assert y.isfinite().all() and layer.latent.weight.grad.isfinite().all()
    y = y.movedim(1, 0)
    assert (y[0] == 0).all() and (y[2] != 0).any()


@each_stage
def test_every_parameter_has_a_gradient(stage):
    # or training in several processes waits for it
    network = set_stage(StackedHourglass(3, 16, stacks=1, depth=1, latent=Tucker), stage)
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    assert all(p.grad.abs().sum() > 0 for name, p in network.named_parameters() if name.endswith("alpha"))


@each_stage
@pytest.mark.parametrize(
    ("latent", "scale"), [(Dense, "channel"), (Matrix, "analytic"), (Tucker, "spatial"), (Holistic, "none")]
)
def test_lean_training_is_the_same(stage, latent, scale):
    def gradients(lean):
        torch.manual_seed(0)
        network = ResNet((2,), 5, width=0.125, stem="half", latent=latent, image_size=16, lean=lean, scale=scale)
        set_stage(network.train(), stage)
        torch.manual_seed(1)
        for _ in range(2):
            network(torch.randn(4, 3, 16, 16)).square().mean().backward()
        return network, [p.grad for p in network.parameters()]

    (kept, ours), (lean, theirs) = gradients(False), gradients(True)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(kept.buffers(), lean.buffers(), strict=True))
    assert sum(float(g.abs().sum()) for g in ours) > 0


def test_lean_blocks_of_which_one_layer_is_binary():
    # the record then holds the sums of one convolution of two
    blocks = []
    for lean in (False, True):
        torch.manual_seed(0)
        block = BinaryBlock(6, 6, 1, "block", lean)
        block.unit1.conv.latent = Tucker(block.unit1.conv.latent.weight)
        set_stage(block.unit1, "real")
        block(torch.randn(2, 6, 5, 5)).square().mean().backward()
        blocks.append([p.grad for p in block.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*blocks, strict=True))


@each_stage
def test_a_prelu_behind_is_applied(stage):
    layer = set_stage(BinaryConv2d(3, 4, 3), stage)
    x, slope = torch.randn(2, 3, 5, 5), torch.tensor([0.1, 0.5, -1.0, 2.0])
    for training in (True, False):
        torch.testing.assert_close(layer.train(training)(x, slope), F.prelu(layer(x), slope))
    assert (layer(x) < 0).any()


@each_stage
@pytest.mark.parametrize("training", [True, False])
def test_in_half_precision_and_channels_last(stage, training):
    layer = set_stage(BinaryConv2d(8, 16, 3, padding=1, padding_value=1, latent=Tucker), stage).train(training)
    x = torch.randn(2, 8, 6, 6)
    whole = layer(x)
    last = layer(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, whole)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, atol=0.05, rtol=0.05)
    # without autocast, the dtype of the input is that of the output
    assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_a_stage_is_no_part_of_the_state_but_of_copies():
    network = set_stage(nn.Sequential(BinaryConv2d(2, 3, 3), nn.Flatten(), BinaryLinear(12, 2)), "real")
    assert set(network.state_dict()) == {f"{n}.{k}" for n in (0, 2) for k in ("latent.weight", "scale.alpha")}
    for made in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert [layer.stage for _, layer in named_binary_layers(made)] == ["real", "real"]
    assert BinaryConv2d(2, 3, 3).stage == "binary"


def test_unknown_stages_are_an_error_and_change_nothing():
    layer = set_stage(BinaryConv2d(2, 3, 3), "real")
    with pytest.raises(ValueError, match=r"'relaxed'.*real, binary_activations, binary"):
        set_stage(layer, "relaxed")
    assert layer.stage == "real"


@each_stage
def test_only_binary_networks_are_shipped(stage):
    network = ResNet((1,), 5, width=0.125, stem="small")
    set_stage(network.stages[0][0].unit2, stage)
    with pytest.raises(ValueError, match=rf"layer stages\.0\.0\.unit2\.conv is in the stage '{stage}'") as caught:
        freeze(network, (3, 8, 8))
    assert "\n" not in str(caught.value) and "set_stage" in str(caught.value)
    freeze(set_stage(network, "binary"), (3, 8, 8))
