"""`bnnlight bench`, and the twins that it times."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.commands.bench import compared, in_turn
from bnnlight.deploy.formats.int8 import find_ranges
from bnnlight.deploy.formats.onnx import save_onnx
from bnnlight.deploy.formats.openvino import save_openvino
from bnnlight.deploy.formats.packed import save_packed
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.proof.twin import TWINS, int8_twin
from bnnlight.nn import BinaryConv2d

SAVE = {"packed": save_packed, "openvino": save_openvino, "onnx": save_onnx}


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm, self.one = nn.BatchNorm2d(16), BinaryConv2d(16, 24, 3, padding=1)
        self.norm2, self.two = nn.BatchNorm2d(24), BinaryConv2d(24, 24, 1)
        self.classifier = nn.Linear(24, 4)

    def forward(self, x):
        x = self.one(self.norm(self.stem(x)))
        x = self.two(self.norm2(x)) + x
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = Network().eval()
    with torch.no_grad():
        # thresholds of both directions, and a product before one of them
        network.norm.weight[::3] = -1
        network.norm2.weight.normal_()
    return network


def written(network, form, folder):
    told = PictureInput(3, 8, (0.0,) * 3, (1.0,) * 3, 8)
    manifest = Manifest("classification", "tests.Network", told, tuple("abcd"))
    folder.mkdir(exist_ok=True)
    return SAVE[form](freeze(network, (3, 8, 8)), manifest, folder)


@pytest.mark.parametrize("form", SAVE)
@torch.no_grad()
def test_the_twin_has_real_convolutions_and_no_signs(form, network, tmp_path):
    images = torch.randn(1, 3, 8, 8)
    x = F.conv2d(network.stem(images), network.one.binary_weight(), padding=1)
    x = x * network.one.alpha().view(1, -1, 1, 1)
    y = F.conv2d(x, network.two.binary_weight()) * network.two.alpha().view(1, -1, 1, 1)
    wanted = network.classifier((x + y).mean((2, 3)))
    twin = TWINS[form](written(network, form, tmp_path / form), 1)
    found = twin(images.numpy())
    assert np.allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-4)
    # every weight of it takes four bytes; thresholds, and a table of signs in ONNX, come on top
    weights = sum(m.weight.numel() for m in (network.stem, network.classifier))
    weights += sum(layer.weight_shape.numel() for layer in (network.one, network.two))
    assert 4 * weights <= twin.num_bytes <= 4 * weights + 10_000


@pytest.mark.parametrize("form", [*SAVE, "openvino, real layers on int8"])
def test_the_twin_on_integers_is_the_twin(form, network, tmp_path):
    images = torch.randn(8, 3, 8, 8).numpy()
    form, _, int8 = form.partition(", ")
    if int8:
        program = freeze(network, (3, 8, 8))
        manifest = Manifest("classification", "tests", PictureInput(3, 8, (0.0,) * 3, (1.0,) * 3, 8), tuple("abcd"))
        file = save_openvino(program, manifest, tmp_path, ranges=find_ranges(program, [images]))
    else:
        file = written(network, form, tmp_path / form)
    twin, rounded = TWINS[form](file, 1), int8_twin(file, form, 1)
    wanted, found = twin(images), rounded(images)
    assert 0 < np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
    assert rounded.num_bytes < 0.4 * twin.num_bytes
    if int8:  # the weights are rounded in the file; numbers far beyond those seen are not cut off
        exact = TWINS["packed"](written(network, "packed", tmp_path / "packed"), 1)(20 * images)
        assert np.abs(twin(20 * images) - exact).max() < 0.02 * np.abs(exact).max()


def test_figures_by_hand():
    found = compared({"model": [1e-3, 2e-3, 3e-3], "twin": [4e-3, 2e-3, 9e-3]}, batch_size=2)
    assert found["model"]["median_ms"] == pytest.approx(2)
    assert found["model"]["pictures_per_s"] == pytest.approx(1000)
    assert found["twin"]["median_ms"] == pytest.approx(4)
    # of the pairs 4, 1 and 3, not of the medians
    assert found["twin_over_model"] == pytest.approx(3)
    assert found["model"]["tenth_ms"] == pytest.approx(1.2)
    found = compared({"model": [1.0, 2.0], "twin": [4.0, 4.0], "twin_int8": [3.0, 5.0]}, batch_size=1)
    assert found["twin_int8_over_model"] == pytest.approx(2.75)


def test_networks_take_turns():
    calls = []
    networks = {name: lambda images, name=name: calls.append(name) for name in "ab"}
    times = in_turn(networks, np.zeros(1), 4, lambda: calls.append("|"))
    assert "".join(calls[6:]) == "ab|ab|ab|ab|"
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 4, "b": 4}


@pytest.mark.parametrize("form", SAVE)
def test_the_command(form, network, bnnlight, tmp_path):
    file = written(network, form, tmp_path / form)
    command = ("bench", "--model", file.parent, "--num_threads", "1", "2", "--num_pairs", "3", "--batch_size", "2")
    code, out, err = bnnlight(*command, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert [row["num_threads"] for row in record["threads"]] == [1, 2]
    engines = {"packed": "torch", "openvino": "OpenVINO", "onnx": "onnxruntime"}
    assert (record["format"], record["twin_engine"]) == (form, engines[form])
    assert record["input_shape"] == [3, 8, 8]
    assert record["file_bytes"] == sum(p.stat().st_size for p in file.parent.iterdir())
    for row in record["threads"]:
        assert row["model"]["median_ms"] > 0
        assert row["model"]["pictures_per_s"] == pytest.approx(2000 / row["model"]["median_ms"])
        assert row["twin_int8"]["median_ms"] > 0 and row["twin_int8_over_model"] > 0
    # the weights are a quarter as large
    assert record["twin_int8_bytes"] < 0.5 * record["twin_bytes"]
    code, out, _ = bnnlight(*command)
    assert code == 0
    assert "twin, float32" in out and "twin, int8" in out and "median ms" in out


def test_a_format_without_a_twin_is_named(bnnlight_error, network, tmp_path, monkeypatch):
    file = written(network, "packed", tmp_path)
    monkeypatch.delitem(TWINS, "packed")
    code, line = bnnlight_error("bench", "--model", file)
    assert code == 2
    assert "packed" in line and "openvino, onnx" in line


def test_wrong_options_are_named(bnnlight_error, tmp_path):
    for args, parts in (
        (("--model", tmp_path / "none"), ("no such model", "none")),
        (("--model", tmp_path, "--num_pairs", "0"), ("--num_pairs", "at least 1")),
        (("--model", tmp_path, "--num_threads", "0"), ("--num_threads", "at least 1")),
    ):
        code, line = bnnlight_error("bench", *args)
        assert code == 2
        assert all(part in line for part in parts), line
