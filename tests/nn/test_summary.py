import pytest
import torch
from torch import nn

from bnnlight.nn import BinaryConv2d, BinaryLinear, Holistic, Tucker, factorize
from bnnlight.nn.summary import summarize


def network(scale="channel"):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),  # (3, 8, 8) → (4, 6, 6)
        nn.BatchNorm2d(4),
        BinaryConv2d(4, 8, 3, 2, 1, scale=scale),  # → (8, 3, 3)
        nn.PReLU(8),
        nn.Flatten(),
        BinaryLinear(72, 10, scale=scale, bias=True),
        nn.Linear(10, 5),
    )


@pytest.mark.parametrize("scale", ["channel", "analytic"])
def test_counts_by_hand(scale):
    rows = {layer.name: layer for layer in summarize(network(scale), (3, 8, 8)).layers}
    assert list(rows) == ["0", "1", "2", "3", "5", "6"]
    # a scale's values are shipped whether they are learned or computed
    assert {n: r.num_real for n, r in rows.items()} == {"0": 112, "1": 16, "2": 8, "3": 8, "5": 20, "6": 55}
    assert {n: r.num_binary for n, r in rows.items() if r.num_binary} == {"2": 288, "5": 720}
    assert {n: r.num_binary_macs for n, r in rows.items() if r.num_binary_macs} == {"2": 9 * 288, "5": 720}
    assert {n: r.num_real_macs for n, r in rows.items() if r.num_real_macs} == {"0": 36 * 108, "6": 50}
    assert rows["2"].num_bytes == 288 // 8 + 4 * 8
    assert rows["2"].shape == (8, 4, 3, 3)


def test_totals_are_sums():
    summary = summarize(network(), (3, 8, 8))
    assert summary.total("num_binary") == 288 + 720
    assert summary.total("num_bytes") == 36 + 90 + 4 * (112 + 16 + 8 + 8 + 20 + 55)
    assert summary.input_shape == (3, 8, 8)


def test_bits_are_rounded_up_to_whole_bytes():
    (row,) = summarize(nn.Sequential(BinaryLinear(3, 3, scale="none")), (3,)).layers
    assert (row.num_binary, row.num_bytes) == (9, 2)


def test_factors_count_the_latents_parameters():
    model = factorize(network(), lambda w: Tucker(w, 0.5))
    row = next(layer for layer in summarize(model, (3, 8, 8)).layers if layer.name == "2")
    assert (row.latent, row.ranks) == ("Tucker", (4, 2, 3, 3))
    assert row.num_factors == 4 * 2 * 9 + 8 * 4 + 4 * 2 + 9 + 9
    assert row.num_binary == 288  # what is shipped knows nothing of the decomposition


def test_a_shared_tensor_counts_once():
    model = factorize(nn.Sequential(BinaryConv2d(3, 3, 1), BinaryConv2d(3, 3, 1)), Holistic)
    rows = summarize(model, (3, 4, 4)).layers
    assert [row.num_factors for row in rows] == [2 * 9 + 4 + 9 + 9 + 1 + 1, 0]


def test_a_layer_used_twice_computes_twice_and_ships_once():
    layer = BinaryConv2d(3, 3, 1, scale="none")
    (row,) = summarize(nn.Sequential(layer, layer), (3, 4, 4)).layers
    assert (row.num_binary, row.num_binary_macs) == (9, 2 * 16 * 9)


def test_the_network_is_left_as_it_was():
    model = network()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    summarize(model, (3, 8, 8))
    assert [module.training for module in model.modules()] == modes
    assert model[1].num_batches_tracked == 0
    assert not any(module._forward_hooks for module in model.modules())


def test_an_input_that_does_not_fit_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"\(1, 8, 8\)"):
        summarize(network(), (1, 8, 8))


def test_a_network_of_another_dtype_is_counted_too():
    assert summarize(network().to(torch.float64), (3, 8, 8)).total("num_binary") == 1008
