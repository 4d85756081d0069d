import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from bnnlight.backbones.blocks import BinaryUnit
from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.program.bits import unpack_signs
from bnnlight.nn import (
    CP,
    BinaryConv2d,
    BinaryLinear,
    Dense,
    Holistic,
    Matrix,
    Rotated,
    TensorTrain,
    Tucker,
    factorize,
    make_spatial,
    named_binary_layers,
)

LATENTS = [Dense, Matrix, Tucker, CP, TensorTrain, Rotated, Holistic]
# (channels in, channels out, kernel, stride, padding, dilation, groups, padding value)
LAYERS = {
    "3×3": (3, 13, 3, 1, 1, 1, 1, 0),
    "3×3, +1": (9, 6, 3, 2, 1, 1, 3, 1),
    "3×3, -1, dilated": (5, 8, 3, 1, (2, 1), (2, 1), 1, -1),
    "1×1": (70, 9, 1, 1, 0, 1, 1, 0),
    "1×1, strided": (66, 5, 1, 2, 0, 1, 1, 0),
    "7×7": (3, 5, 7, 2, 3, 1, 1, 1),
    "depthwise": (11, 22, 3, 1, 1, 1, 11, -1),
    "3×1": (4, 6, (3, 1), (1, 2), (1, 0), 1, 2, 0),
    "no padding": (65, 7, 3, 1, 0, 1, 1, 0),
}


def stack(options, scale, bias, norm=nn.BatchNorm2d):
    """Sign on the input itself, then a second sign behind α, bias, batch norm and PReLU: exact before both."""
    inputs, outputs, kernel, stride, padding, dilation, groups, value = options
    first = BinaryConv2d(
        inputs, outputs, kernel, stride, padding, dilation, groups, padding_value=value, scale=scale, bias=bias
    )
    second = BinaryConv2d(outputs, 10, 3, padding=1, padding_value=value, scale=scale, bias=bias)
    return nn.Sequential(first, nn.PReLU(outputs), norm(outputs), second, nn.PReLU(), nn.BatchNorm2d(10))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", ["none", "analytic", "channel", "spatial"])
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_signs_and_output_are_the_networks(options, scale, bias, randomized, check_frozen):
    model = stack(options, "channel" if scale == "spatial" else scale, bias)
    shape = (options[0], 9, 10)
    if scale == "spatial":
        make_spatial(model, shape)
    randomized(model)
    x = torch.randn(3, *shape)
    x[0, :, :3] = 0.0
    x[1, :, :3] = -0.0
    x[2, 0, 0, 0] = torch.nan
    program = freeze(model, shape)
    check_frozen(model, program, x)
    # the signs are thresholds now: nothing is left in front of the second one but integers, or α for each position
    by_name = {step.name: step for step in program.steps}
    before = by_name["3.sign"].inputs[0]
    assert by_name[before].op == ("binary_conv2d" if scale != "spatial" else "affine")


@pytest.mark.parametrize("latent", LATENTS)
def test_no_factor_is_left(latent, randomized, check_frozen):
    convolutions = [BinaryUnit(10, 10), BinaryUnit(10, 10, padding_value=1), BinaryUnit(10, 10)]
    flat = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(10), BinaryLinear(10, 7, bias=True)]
    model = nn.Sequential(nn.BatchNorm2d(10), *convolutions, *flat, nn.PReLU(7), BinaryLinear(7, 3))
    factorize(model[:4], latent)
    if latent is not Holistic:
        factorize(model[4:], Matrix if latent in (CP, Tucker, TensorTrain) else latent)
    randomized(model)
    program = freeze(model, (10, 6, 6))
    check_frozen(model, program, torch.randn(4, 10, 6, 6))
    assert program.num_binary == 3 * 10 * 10 * 9 + 10 * 7 + 7 * 3
    allowed = {"threshold", "direction", "bits", "scale", "shift", "slope"}
    assert {name for step in program.steps for name in step.tensors} <= allowed
    steps = {step.name: step for step in program.steps}
    for path, layer in named_binary_layers(model):
        bits = unpack_signs(steps[f"{path}.sum"].tensors["bits"], layer.weight_shape)
        np.testing.assert_array_equal(bits, np.where(layer.latent().detach().numpy() >= 0, 1, -1))


def test_numbers_counted_by_hand(randomized):
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        BinaryConv2d(6, 5, 3),
        nn.PReLU(5),
        nn.BatchNorm2d(5),
        BinaryConv2d(5, 4, 1, scale="none"),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(4 * 4 * 4, 2),
    )
    program = freeze(randomized(model), (3, 8, 8))
    assert program.num_binary == 6 * 5 * 9 + 5 * 4
    steps = {step.name: step for step in program.steps}
    assert list(steps) == ["0", "2.sign", "2.sum", "5.sign", "5.sum", "6", "7", "8"]
    # the first batch norm is a threshold, so the real convolution has no bias
    assert set(steps["0"].tensors) == {"weight"}
    turned = sum(5 if name == "5.sign" else 6 for name in ("2.sign", "5.sign") if "direction" in steps[name].tensors)
    assert program.num_real == 3 * 6 * 9 + 6 + 5 + turned + 2 * 4 + 64 * 2 + 2


def test_negative_slopes_are_not_folded(check_frozen):
    slopes = torch.tensor([-0.5, 0.2, 0.0])
    model = nn.Sequential(BinaryConv2d(3, 3, 1, scale="none"), nn.PReLU(3), nn.BatchNorm2d(3), BinaryConv2d(3, 2, 1))
    with torch.no_grad():
        model[1].weight.copy_(slopes)
        # |x| above 1 or so is +1, below -1: no comparison with one number says so
        model[2].running_mean.fill_(1.2)
    program = freeze(model.eval(), (3, 8, 8))
    assert "1" in [step.name for step in program.steps]
    check_frozen(model, program, torch.randn(5, 3, 8, 8))


def test_scale_and_bias_are_rounded_one_after_the_other(check_frozen):
    # three times α, rounded, and its negative: exactly 0, which a single rounding of both would often miss
    first = BinaryConv2d(3, 64, 1, bias=True, weight=torch.ones(64, 3, 1, 1))
    with torch.no_grad():
        first.scale.alpha.normal_()
        first.bias.copy_(-(first.scale.alpha * 3))
    model = nn.Sequential(first, BinaryConv2d(64, 2, 1)).eval()
    x = torch.ones(1, 3, 1, 1)
    assert (first(x) == 0).all()
    check_frozen(model, freeze(model, (3, 1, 1)), x)


@pytest.mark.parametrize("seed", range(12))
def test_random_stacks(seed, randomized, check_frozen):
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    channels, size = int(rng.integers(1, 20)), 12
    shape = (channels, size, size)
    layers = []
    for _ in range(4):
        groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
        after, kernel = groups * int(rng.integers(1, 5)), int(rng.choice([1, 3]))
        value, scale = int(rng.integers(-1, 2)), str(rng.choice(["none", "analytic", "channel"]))
        options = {"padding_value": value, "scale": scale, "bias": bool(rng.integers(2))}
        layers += [BinaryConv2d(channels, after, kernel, int(rng.integers(1, 3)), kernel // 2, 1, groups, **options)]
        makers = [lambda c: nn.PReLU(c), lambda c: nn.PReLU(), nn.BatchNorm2d, lambda c: nn.Hardtanh(-20, 30)]
        makers += [lambda c: nn.ReLU(), lambda c: nn.LeakyReLU(0.1), lambda c: nn.ReLU6(), lambda c: nn.Identity()]
        layers += [makers[i](after) for i in rng.choice(len(makers), int(rng.integers(0, 4)))] + [nn.BatchNorm2d(after)]
        channels = after
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3)).eval()
    model(torch.zeros(1, *shape))
    randomized(model)
    check_frozen(model, freeze(model, shape), torch.randn(4, *shape))


@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_as_it_is(training, randomized):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), BinaryUnit(4, 4), nn.Dropout(0.5), nn.PReLU())
    factorize(randomized(model), Tucker)
    model.train(training)
    model[2].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    identities = [id(p) for p in model.parameters()]
    random = torch.get_rng_state()
    program = freeze(model, (3, 7, 7))
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert [id(p) for p in model.parameters()] == identities
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert {n: torch.equal(v, state[n]) for n, v in model.state_dict().items()} == dict.fromkeys(state, True)
    x = torch.randn(2, 3, 7, 7)
    torch.testing.assert_close(FrozenNetwork(program)(x), model.eval()(x).detach(), rtol=1e-5, atol=1e-6)


def test_frozen_network_does_not_change_with_the_model(randomized):
    model = randomized(nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(), BinaryConv2d(4, 2, 3)))
    program = freeze(model, (3, 9, 9))
    before = {(s.name, name): t.copy() for s in program.steps for name, t in s.tensors.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7.0)
    after = {(s.name, name): t for s in program.steps for name, t in s.tensors.items()}
    assert all(np.array_equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_signs_are_those_of_the_networks_own_dtype(dtype):
    model = nn.Sequential(BinaryConv2d(16, 16, 3, padding=1), BinaryConv2d(16, 16, 3))
    factorize(model, lambda w: Tucker(w, 0.7))
    with torch.no_grad():
        model[0].scale.alpha.fill_(1e-60 if dtype == torch.float64 else 0.3)
        narrow = [layer.latent().to(torch.bfloat16) >= 0 for layer in model]
    model.to(dtype).eval()
    program = freeze(model, (16, 8, 8))
    for (_, layer), step in zip(named_binary_layers(model), program.binary_steps, strict=True):
        np.testing.assert_array_equal(
            unpack_signs(step.tensors["bits"], layer.weight_shape), layer.binary_weight().float().numpy()
        )
    if dtype == torch.bfloat16:
        # rebuilt in float32 some would have other signs
        assert any((a != (layer.binary_weight() > 0)).any() for a, layer in zip(narrow, model, strict=True))


def test_tiny_weights_of_float64_keep_their_signs():
    weight = torch.tensor([1e-60, -1e-60, 1.0, -1.0], dtype=torch.float64).view(2, 2, 1, 1)
    layer = BinaryConv2d(2, 2, 1, weight=weight.float(), scale="none").double()
    with torch.no_grad():
        layer.latent.weight.copy_(weight)
    program = freeze(nn.Sequential(layer), (2, 3, 3))
    assert unpack_signs(program.steps[1].tensors["bits"], (2, 2)).tolist() == [[1, -1], [1, -1]]


def test_model_in_inference_mode():
    with torch.inference_mode():
        model = nn.Sequential(nn.Conv2d(3, 4, 3), BinaryConv2d(4, 2, 3))
        program = freeze(model, (3, 6, 6))
        x = torch.randn(1, 3, 6, 6)
        torch.testing.assert_close(FrozenNetwork(program)(x), model.eval()(x))


def test_input_that_is_no_number_is_minus_one():
    model = nn.Sequential(BinaryConv2d(2, 1, 1, scale="none", weight=torch.tensor([[[[1.0]], [[1.0]]]]))).eval()
    x = torch.tensor([[torch.nan, 3.0], [torch.nan, torch.nan]]).view(2, 2, 1, 1)
    assert FrozenNetwork(freeze(model, (2, 1, 1)))(x).flatten().tolist() == [0, -2] == model(x).flatten().tolist()


def test_one_layer_in_two_places(randomized, check_frozen):
    layer = BinaryConv2d(5, 5, 3, padding=1)
    model = randomized(nn.Sequential(layer, nn.BatchNorm2d(5), layer, nn.PReLU(5)))
    program = freeze(model, (5, 4, 4))
    names = [step.name for step in program.steps]
    assert [name for name in names if "sign" in name] == ["0.sign", "0.sign@2"]
    check_frozen(model, program, torch.randn(2, 5, 4, 4))


def test_real_layers(randomized, check_frozen):
    options = itertools.cycle([{"groups": 2}, {"padding": "same", "dilation": 2}, {"padding": (1, 0), "stride": 2}])
    layers = [nn.Conv2d(6, 6, 3, **next(options), bias=bool(i % 2)) for i in range(6)]
    mixed = [m for conv in layers for m in (conv, nn.BatchNorm2d(6), nn.Tanh())]
    model = nn.Sequential(*mixed, BinaryConv2d(6, 3, 1), nn.Flatten(), nn.LazyLinear(5), nn.Sigmoid()).eval()
    model(torch.zeros(1, 6, 48, 48))
    randomized(model)
    program = freeze(model, (6, 48, 48))
    # every batch norm is a multiply-add of its own, rounded as torch rounds it
    assert [step.op for step in program.steps if step.name.isdigit()][:18] == ["conv2d", "affine", "tanh"] * 6
    check_frozen(model, program, torch.randn(2, 6, 48, 48))


def test_copy_of_a_frozen_network_is_one():
    frozen = FrozenNetwork(freeze(nn.Sequential(BinaryConv2d(3, 4, 3)), (3, 5, 5)))
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(copy.deepcopy(frozen)(x), frozen(x))
