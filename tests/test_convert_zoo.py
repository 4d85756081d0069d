"""The benchmark that converts whole collections of networks, on a few tiny ones."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch.nn.functional as F
from torch import nn

FOLDER = Path(__file__).parents[1] / "benchmarks/shipping"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Makes the scripts importable, which import each other by their names."""
    monkeypatch.syspath_prepend(str(FOLDER))


class Same(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias, self.stride)


def plain():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), head)


def padded():
    model = plain()
    model[3] = Same(8, 8, 3)
    return model


def broken():
    raise RuntimeError("no such file\nsecond line")


def linear():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 4))


MAKE = {"plain": plain, "padded": padded, "broken": broken, "linear": linear}


@pytest.fixture
def network():
    from convert_zoo_networks import Network

    @dataclass(frozen=True)
    class Tiny(Network):
        def _make(self):
            return MAKE[self.name]()

    return lambda name: Tiny("classification", name)


def test_a_network_that_is_converted_trained_and_shipped(network):
    from convert_zoo_row import row

    found = row(network("plain"))
    assert (found["px"], found["binary"], found["shapes"], found["kept"]) == (64, 1, "equal", "all")
    assert found["real"] == {"0": "it sees the picture first", "5.2": "Linear: only 2-D convolutions become binary"}
    # latent, α, bias
    assert found["step"] == {"finite": True, "moved": 3, "with_gradient": 3, "parameters": 3, "px": 64}
    assert found["ships"] == dict.fromkeys(("packed", "openvino", "onnx"), "equal")
    assert "refused" not in found


def test_a_network_with_a_layer_that_is_refused_goes_on_with_it_real(network):
    from convert_zoo_row import row

    found = row(network("padded"))
    assert found["refused"].startswith("layer 3: it is a Same with a forward of its own")
    assert (found["kept_on_request"], found["binary"], found["shapes"]) == (1, 1, "equal")
    assert found["ships"].startswith("cannot be shipped: function pad in layer 3")


def test_a_network_without_convolutions_has_its_line(network):
    from convert_zoo_row import row

    assert row(network("linear"))["refused"] == "Sequential has no convolution left to make binary (of 0)"


def test_a_change_that_should_not_be_is_seen(network, monkeypatch):
    import convert_zoo_row

    convert = convert_zoo_row.convert

    def wrong(model, **options):
        convert(model, **options)[2].conv.padding = (1, 1)
        model[3] = nn.BatchNorm2d(8)
        return model

    monkeypatch.setattr(convert_zoo_row, "convert", wrong)
    found = convert_zoo_row.row(network("plain"))
    assert (found["shapes"], found["kept"]) == ("DIFFERENT", "3.weight, 3.bias")


def test_the_table_is_filled_row_by_row_and_goes_on(network, tmp_path, monkeypatch):
    import convert_zoo

    def run(*names, options=()):
        monkeypatch.setattr(convert_zoo, "networks", lambda with_timm: [network(name) for name in names])
        monkeypatch.setattr(sys, "argv", ["convert_zoo.py", "--output", str(tmp_path / "zoo"), *options])
        convert_zoo.main()
        return json.loads((tmp_path / "zoo.json").read_text())["rows"]

    first = run("plain", "broken")
    assert list(first) == ["classification/plain", "classification/broken"]
    assert first["classification/broken"]["error"].startswith("RuntimeError: no such file (")
    # what is there is not made again, unless it is asked for
    monkeypatch.setitem(MAKE, "plain", broken)
    second = run("plain", "broken", "padded")
    assert second["classification/plain"] == first["classification/plain"] and len(second) == 3
    monkeypatch.setitem(MAKE, "broken", linear)
    rows = run("broken", options=("--only", "broken"))
    assert "no convolution" in rows["classification/broken"]["refused"]
    table = (tmp_path / "zoo.md").read_text()
    assert "- 3 networks: 1 convert as they are; 1 once the layers that `convert` names are" in table
    assert (
        "| plain | 64 | 1 | 0: it sees the picture first; 1 Linear | equal | 3 of 3 moved | equal | equal | equal |"
        in table
    )
    assert "- openvino: 1 equal, 1 refused in one line" in table
