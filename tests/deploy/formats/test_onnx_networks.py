import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime import InferenceSession
from torch import nn

from bnnlight.deploy.formats.onnx import OnnxEngine, onnx_signs, save_onnx
from bnnlight.deploy.formats.onnx_graph import to_onnx
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program.operations import OPERATIONS
from bnnlight.nn import BinaryConv2d, BinaryLinear, FixedPoint

MANIFEST = Manifest("classification", "tests.Net", PictureInput(3, 8, (0.5,) * 3, (0.25,) * 3, 9), ("ant", "bee"))
SEEDS = range(40)


class Part(nn.Module):
    """Layers whose results are added to, or joined with, what they are given."""

    def __init__(self, layers, join):
        super().__init__()
        self.layers, self.join = layers, join

    def forward(self, x):
        y = self.layers(x)
        if self.join == "gate":
            # a factor for each pixel, of two values: exact
            groups = next(n for n in range(2, 20) if y.shape[1] % n == 0)
            return torch.channel_shuffle(y * torch.where(x[:, :1] >= 0.25, 1.0, -0.5), groups)
        return {"add": lambda: x + y, "concat": lambda: torch.cat([y, x, y], 1)}[self.join]()


class Maps(nn.Module):
    """Ends as a stacked hourglass does, in maps (N, 7, C, 5, 7)."""

    def forward(self, x):
        x = x * 2.0**-8  # or all would be 0 or 1 behind the sigmoid
        x = F.adaptive_avg_pool2d(x, (5, 7))
        smooth = [F.silu(x), F.gelu(x), F.gelu(x, approximate="tanh"), F.hardswish(x), F.hardsigmoid(x)]
        return torch.stack([x, torch.tanh(x), *smooth], 1).sigmoid()


def eighths(rng, *shape, largest=8):
    """Numbers n/8: sums and products of a few of them are exact in float32, in any order."""
    return torch.tensor(rng.integers(-largest, largest + 1, shape) / 8, dtype=torch.float32)


@torch.no_grad()
def make_exact(rng, layer):
    """Gives a layer's own numbers values that make its arithmetic exact."""
    if isinstance(layer, BinaryConv2d | BinaryLinear):
        if hasattr(layer.scale, "alpha"):
            layer.scale.alpha.copy_(eighths(rng, *layer.scale.alpha.shape))
    elif isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
        n = layer.num_features
        layer.running_mean.copy_(eighths(rng, n))
        layer.running_var.copy_(torch.tensor(rng.choice([0.25, 1.0, 4.0], n)))
        # among them none at all, and hardly any
        layer.weight.copy_(torch.tensor(rng.choice([-2, -1, -0.5, -(2.0**-8), 0, 2.0**-8, 0.5, 1, 2], n)))
        layer.bias.copy_(eighths(rng, n, largest=2))
    elif hasattr(layer, "weight"):
        layer.weight.copy_(eighths(rng, *layer.weight.shape, largest=4))
    if getattr(layer, "bias", None) is not None:
        layer.bias.copy_(eighths(rng, *layer.bias.shape, largest=2))


def some_pair(rng, *choices):
    return [int(n) for n in rng.choice(choices, 2)]


def some_binary(rng, inputs, outputs, keep=False):
    """A binary convolution of any kind; one that keeps the size if that is asked."""
    kernel = int(rng.choice([1, 3, 7]))
    dilation = int(rng.choice([1, 2])) if kernel == 3 else 1
    padding = [dilation * (kernel // 2)] * 2
    options = dict(
        stride=(1, 1) if keep else some_pair(rng, 1, 2),
        padding=padding if keep else [p + more for p, more in zip(padding, some_pair(rng, 0, 1), strict=True)],
        dilation=dilation,
        groups=int(rng.choice([g for g in (1, 1, 2, 3, 5) if inputs % g == outputs % g == 0])),
        padding_value=int(rng.choice([-1, 0, 1])),
        scale=str(rng.choice(["none", "channel"])),
        bias=bool(rng.integers(2)),
    )
    return BinaryConv2d(inputs, outputs, kernel, **options)


def some_layers(rng, inputs, outputs, keep=False):
    after = [nn.Identity, nn.ReLU, nn.Hardtanh, nn.PReLU, lambda: nn.PReLU(outputs), lambda: nn.LeakyReLU(0.25)]
    after.append(lambda: FixedPoint(9, 2))
    layers = [some_binary(rng, inputs, outputs, keep)]
    if rng.integers(3):
        layers.append(nn.BatchNorm2d(outputs, eps=0))
    layers.append(after[rng.integers(len(after))]())
    return nn.Sequential(*layers)


def some_network(seed):
    """A small network of any kind, and pictures for it."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    channels, kernel = int(rng.choice([3, 5, 6, 10, 13, 16])), int(rng.choice([1, 3, 7]))
    pictures = eighths(rng, 3, int(rng.choice([1, 3])), *map(int, rng.integers(19, 26, 2)))
    stem = nn.Conv2d(pictures.shape[1], channels, kernel, some_pair(rng, 1, 2), some_pair(rng, 0, kernel // 2))
    layers = [stem, nn.BatchNorm2d(channels, eps=0)][: 1 + int(rng.integers(2))]
    for _ in range(4):
        kind = rng.choice(
            ["plain", "add", "gate", "concat", "max", "mean", "up"], p=[0.3, 0.2, 0.1, 0.15, 0.1, 0.1, 0.05]
        )
        if kind == "plain":
            outputs = int(rng.choice([4, 6, 10, 15]))
            layers += some_layers(rng, channels, outputs)
            channels = outputs
        elif kind in ("add", "gate", "concat"):
            layers.append(Part(some_layers(rng, channels, channels, keep=True), kind))
            channels *= 3 if kind == "concat" else 1
        elif kind == "max":
            layers.append(nn.MaxPool2d(3, 2, 1, ceil_mode=bool(rng.integers(2))))
        elif kind == "mean":
            layers.append(nn.AvgPool2d(2, 2, ceil_mode=True))  # halves and quarters are exact
        else:
            layers.append(nn.Upsample(scale_factor=(2, 3)))
    if rng.integers(3):
        layers += [some_binary(rng, channels, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        layers += [BinaryLinear(4, 11, bias=bool(rng.integers(2))), nn.BatchNorm1d(11, eps=0), nn.Linear(11, 3)]
    else:
        layers += [nn.Conv2d(channels, 2, 1), Maps()]
    network = nn.Sequential(*layers).eval()
    for layer in network.modules():
        make_exact(rng, layer)
    return network, pictures


@torch.no_grad()
def results(network, pictures):
    """A torch network's output, and the sign of what every binary layer is given, in float64."""
    signs, hooks = {}, []
    for name, layer in network.named_modules():
        if isinstance(layer, BinaryConv2d | BinaryLinear):
            hooks.append(layer.register_forward_pre_hook(lambda m, x, name=name: signs.update({name: x[0] >= 0})))
    output = network.double()(pictures.double())
    for hook in hooks:
        hook.remove()
    network.float()
    return output.numpy(), {f"{name}.sign": sign.numpy() for name, sign in signs.items()}


@pytest.fixture
def save(tmp_path):
    """Write a program to a file."""
    return lambda program, *args: save_onnx(program, MANIFEST, tmp_path, *args)


@pytest.mark.parametrize("seed", SEEDS)
def test_computes_what_the_torch_network_does(save, seed):
    network, pictures = some_network(seed)
    expected, expected_signs = results(network, pictures)
    file = save(freeze(network, pictures.shape[1:]))
    engine = OnnxEngine(file)
    assert engine.input_shape == tuple(pictures.shape[1:])
    for count in (3, 1, 0):
        output = engine(pictures.numpy()[:count])
        assert output.dtype == np.float32
        assert output.shape == (count, *expected.shape[1:])
        np.testing.assert_allclose(output, expected[:count], rtol=1e-5, atol=1e-5)
    signs = onnx_signs(file)(pictures.numpy())
    # a comparison is a sign as well
    assert {name for name in signs if not name.startswith("ge")} == expected_signs.keys()
    for name, sign in expected_signs.items():
        assert signs[name].dtype == bool
        np.testing.assert_array_equal(signs[name], sign, name)


def test_the_random_networks_have_every_operation():
    programs = [freeze(network, pictures.shape[1:]) for network, pictures in map(some_network, SEEDS)]
    assert {step.op for program in programs for step in program.steps} == set(OPERATIONS)
    settings = [step.settings for program in programs for step in program.steps if step.op == "binary_conv2d"]
    assert {s["padding_value"] for s in settings if s["padding"] != [0, 0]} == {-1, 0, 1}
    assert {s["groups"] for s in settings} >= {1, 2, 3}
    assert {s["shape"][2] for s in settings} == {1, 3, 7}
    assert {s["shape"][0] * s["shape"][1] * s["shape"][2] % 8 for s in settings} >= {0, 2, 4, 6}


def probe(model, name):
    """A value of a model that no picture changes."""
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    x = np.zeros((1, *(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:])), np.float32)
    return InferenceSession(model.SerializeToString()).run([name], {"input": x})[0]


@pytest.mark.parametrize("seed", SEEDS[:12])
def test_unpacked_weights_are_the_signs_of_the_latent_ones(seed):
    network, pictures = some_network(seed)
    model = to_onnx(freeze(network, pictures.shape[1:]))
    by_output = {node.output[0]: node for node in model.graph.node}
    packed = [c for c in model.graph.initializer if c.data_type == onnx.TensorProto.UINT8]
    layers = {n: m for n, m in network.named_modules() if isinstance(m, BinaryConv2d | BinaryLinear)}
    assert layers
    for name, layer in layers.items():
        sums = by_output.get(f"{name}.sum") or by_output[name]
        latent = layer.latent().detach().numpy()
        unpacked = probe(model, sums.input[1])
        np.testing.assert_array_equal(unpacked, np.where(latent >= 0, 1, -1))
        assert -(-latent.size // 8) in {numpy_helper.to_array(c).size for c in packed}


@pytest.mark.parametrize("seed", SEEDS[:12])
def test_has_standard_operators_alone_and_a_tensor_for_every_step(seed):
    network, pictures = some_network(seed)
    program = freeze(network, pictures.shape[1:])
    model = to_onnx(program)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert {step.name for step in program.steps} <= {name for node in model.graph.node for name in node.output}
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == [program.output]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    constants = [(c.data_type, tuple(c.dims), c.raw_data) for c in model.graph.initializer]
    assert len(set(constants)) == len(constants)
    # another engine, which does as the standard says, step by step
    found = ReferenceEvaluator(model).run(None, {"input": pictures.numpy()})[0]
    np.testing.assert_allclose(found, results(network, pictures)[0], rtol=1e-5, atol=1e-5)
