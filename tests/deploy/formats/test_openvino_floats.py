"""Where OpenVINO has no kernels on bits, as on ARM: the same answers from ordinary convolutions on ±1."""

import platform

import numpy as np
import pytest
import torch
from fixtures.trained_networks import trained
from torch import nn

from bnnlight.backbones import ResNet
from bnnlight.deploy.formats.openvino import ON_BITS, OpenVINOEngine, openvino_signs, save_openvino
from bnnlight.deploy.formats.packed import load_packed
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.shipped import shipped_models
from bnnlight.nn import BinaryConv2d, BinaryLinear

MANIFEST = Manifest("classification", "tests.Network", PictureInput(3, 8, (0.0,) * 3, (1.0,) * 3))


@pytest.fixture
def on_arm(monkeypatch):
    """From this call on, the processor seems to be ARM's."""
    return lambda name="aarch64": monkeypatch.setattr(platform, "machine", lambda: name)


def test_every_kind_of_binary_layer_is_exact(tmp_path, on_arm):
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.BatchNorm2d(8),
        BinaryConv2d(8, 16, (3, 1), (2, 1), (2, 0), (2, 1), scale="none"),
        nn.BatchNorm2d(16),
        BinaryConv2d(16, 8, 3, padding=1, padding_value=1, scale="none"),
        BinaryConv2d(8, 16, 3, 2, padding=2, padding_value=-1, scale="none"),
        BinaryConv2d(16, 16, 3, padding=1, groups=2, scale="none"),
        nn.Flatten(),
        BinaryLinear(256, 7, scale="none"),
    )
    network = trained(layers)
    with torch.no_grad():
        for norm in (network[0], network[2]):
            norm.weight[::3] *= -1
    images = torch.randn(3, 8, 9, 6)
    file = save_openvino(freeze(network, (8, 9, 6)), MANIFEST, tmp_path)
    on_arm()
    engine = OpenVINOEngine(file)
    with torch.no_grad():
        assert np.array_equal(engine(images.numpy()), network(images).numpy())
    executed = engine.executed()
    assert {"1.sum", "3.sum", "4.sum", "5.sum/0", "5.sum/1", "7.sum/0"} == set(executed)
    assert not any(kind.startswith(ON_BITS) for kind in executed.values())


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_shipped_models_answer_alike(name, tmp_path, on_arm):
    program, manifest = load_packed(shipped_models()[name] / "model.safetensors")
    images = np.random.default_rng(2).normal(size=(4, *program.input_shape)).astype(np.float32)
    file = save_openvino(program, manifest, tmp_path)
    wanted, signs = OpenVINOEngine(file)(images), openvino_signs(file)(images)
    on_arm("arm64")
    found, found_signs = OpenVINOEngine(file)(images), openvino_signs(file)(images)
    assert {n: int((found_signs[n] != sign).sum()) for n, sign in signs.items()} == dict.fromkeys(signs, 0)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("machine", ["x86_64", "AMD64"])
def test_x86_computes_on_bits(machine, tmp_path, on_arm):
    program = freeze(trained(ResNet((1, 1), num_classes=5, width=0.125)), (3, 32, 32))
    on_arm(machine)
    executed = OpenVINOEngine(save_openvino(program, MANIFEST, tmp_path)).executed()
    assert len(executed) == 4 and all(kind.startswith(ON_BITS) for kind in executed.values())
