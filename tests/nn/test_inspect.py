"""Binary layers of a network and tensors of what goes in and out of it, found."""

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from bnnlight.nn import BinaryConv2d, BinaryLinear, named_binary_layers
from bnnlight.nn.inspect import first_few, named_tensors


def test_binary_layers_come_in_order_with_their_own_paths():
    model = nn.Sequential()
    model.stem = nn.Conv2d(3, 4, 3)
    model.body = nn.Sequential(BinaryConv2d(4, 4, 3), nn.PReLU(4), BinaryConv2d(4, 4, 3))
    model.head = nn.Sequential(nn.Flatten(), BinaryLinear(4, 6, bias=True), nn.Linear(6, 2))
    found = list(named_binary_layers(model))
    assert [name for name, _ in found] == ["body.0", "body.2", "head.1"]
    assert all(model.get_submodule(name) is layer for name, layer in found)


def test_a_binary_layer_itself_has_an_empty_path_and_others_have_none():
    layer = BinaryLinear(2, 2)
    assert list(named_binary_layers(layer)) == [("", layer)]
    assert list(named_binary_layers(nn.Linear(2, 2))) == []


def test_a_layer_used_twice_comes_once():
    layer = BinaryLinear(2, 2)
    assert [name for name, _ in named_binary_layers(nn.Sequential(layer, nn.ReLU(), layer))] == ["0"]


@dataclass(slots=True)
class Boxes:
    corners: torch.Tensor
    label: str = "a box"
    parts: list = field(default_factory=list)


@dataclass
class Output(OrderedDict):
    """As the outputs of Hugging Face's networks: a data class and a dictionary, with the same entries in both."""

    logits: torch.Tensor

    def __post_init__(self):
        self["logits"] = self.logits


class EndlessArray(np.ndarray):
    def __iter__(self):
        raise AssertionError("an array of numpy's is not a nest")


def test_tensors_are_found_in_nests_by_the_paths_that_index_them():
    a, b, c, d = torch.arange(4.0)
    nest = {
        "image": a,
        3: [(b, "text", None), Boxes(c, parts=[d])],
        "array": np.zeros(2).view(EndlessArray),
        "type": Output,
    }
    found = dict(named_tensors(nest, "batch"))
    assert list(found) == ["batch['image']", "batch[3][0][0]", "batch[3][1].corners", "batch[3][1].parts[0]"]
    assert all(
        eval(path, {"batch": nest}) is tensor is expected
        for (path, tensor), expected in zip(found.items(), (a, b, c, d), strict=True)
    )
    assert list(named_tensors(a)) == [("", a)] and list(named_tensors({a}, "s")) == [("s[0]", a)]
    assert list(named_tensors(Output(b))) == [("['logits']", b)]
    assert [tensor for _, tensor in named_tensors({"a": a, "b": b}.values())] == [a, b]


def test_three_names_are_told_and_the_others_counted():
    assert [first_few(list("abcde")[:n]) for n in (1, 3, 4)] == ["a", "a, b, c", "a, b, c and 1 more"]
