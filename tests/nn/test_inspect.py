"""Binary layers of a network, found."""

from torch import nn

from bnnlight.nn import BinaryConv2d, BinaryLinear, named_binary_layers


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
