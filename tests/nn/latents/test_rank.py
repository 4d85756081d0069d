import pytest
import torch
from torch import nn

from bnnlight.nn import CP, BinaryConv2d, Holistic, Matrix, TensorTrain, Tucker, factorize

SHAPE = (8, 6, 3, 3)


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (1.0, (8, 6, 3, 3)),
        (0.5, (4, 3, 3, 3)),
        (0.7, (6, 4, 3, 3)),  # 5.6 and 4.2, rounded
        (0.01, (1, 1, 3, 3)),
        (1, (1, 1, 3, 3)),
        (4, (4, 4, 3, 3)),
        ((2, 5), (2, 5, 3, 3)),
        ([0.25, 1.0], (2, 6, 3, 3)),
        ((0.5, 2, 1, 1.0), (4, 2, 1, 3)),
    ],
)
@pytest.mark.parametrize("kind", [Tucker, Holistic])
def test_tucker_ranks_of_every_form(kind, rank, expected):
    latent = kind(torch.randn(SHAPE), rank)
    assert latent.ranks == (expected if kind is Tucker else (1, *expected))


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (1.0, (3, 8, 6, 3, 3)),
        (0.5, (3, 4, 3, 3, 3)),
        (2, (3, 2, 2, 3, 3)),
        ((5, 0.5), (3, 5, 3, 3, 3)),
        ((2, 0.5, 3, 2), (3, 2, 3, 3, 2)),
        ((2, 0.5, 3, 1.0, 1), (2, 4, 3, 3, 1)),
        ((0.34, 1.0, 1.0, 1.0, 1.0), (1, 8, 6, 3, 3)),
    ],
)
def test_holistic_ranks_keep_the_layers_mode_full_unless_named(rank, expected):
    weights = [torch.randn(SHAPE) for _ in range(3)]
    latents = [Holistic(w, rank) for w in weights]
    Holistic.couple(latents, weights)
    assert all(latent.ranks == expected for latent in latents)
    assert all(latent.num_layers == 3 for latent in latents)


@pytest.mark.parametrize(("rank", "expected"), [(1.0, 8), (0.5, 4), (3, 3), (0.01, 1)])
def test_matrix_rank_is_of_the_smaller_side(rank, expected):
    assert Matrix(torch.randn(SHAPE), rank, start="svd").ranks == (expected,)
    # 2 · 1 · 3 = 6 columns, fewer than the 8 rows
    assert Matrix(torch.randn(8, 2, 1, 3), 1.0).ranks == (6,)


@pytest.mark.parametrize(("rank", "expected"), [(1.0, 54), (0.5, 27), (10, 10), (54, 54)])
def test_cp_rank_is_of_all_components_that_any_weight_needs(rank, expected):
    assert CP(torch.randn(SHAPE), rank).ranks == (expected,)


@pytest.mark.parametrize(
    ("rank", "expected"),
    # the bonds' full sizes are min(8, 54), min(48, 9) and min(144, 3)
    [(1.0, (8, 9, 3)), (0.5, (4, 9, 3)), (2, (2, 9, 3)), ((5, 4, 2), (5, 4, 2)), ((0.5, 0.34, 1.0), (4, 3, 3))],
)
def test_tensor_train_rank_is_of_the_first_bond_unless_more_are_named(rank, expected):
    assert TensorTrain(torch.randn(SHAPE), rank).ranks == expected


def test_fraction_of_a_mode_of_size_one_leaves_it_one():
    assert Tucker(torch.randn(8, 1, 3, 3), 0.25).ranks == (2, 1, 3, 3)


OUT_OF_RANGE = [
    (Matrix, 9, "8×54 matrix"),
    (Matrix, 0, "8×54 matrix"),
    (Matrix, -1, "8×54 matrix"),
    (Matrix, (2, 2), "8×54 matrix"),
    (CP, 55, "sum of rank-one"),
    (CP, 0.0, "sum of rank-one"),
    (TensorTrain, 9, "output channels – input channels"),
    (TensorTrain, (8, 10, 3), "input channels – kernel height"),
    (TensorTrain, (8, 9, 0), "kernel height – kernel width"),
    *(
        (kind, rank, mode)
        for kind in (Tucker, Holistic)
        for rank, mode in [
            (9, "output channels"),
            (7, "input channels"),  # fits 8 output channels, not 6 input channels
            (0, "output channels"),
            (-2, "output channels"),
            (0.0, "output channels"),
            (-0.5, "output channels"),
            (1.5, "output channels"),
            (float("nan"), "output channels"),
            (True, "output channels"),
            ("half", "output channels"),
            ((8, 7), "input channels"),
            ((8, 0), "input channels"),
            ((8, 6, 4, 3), "kernel height"),
            ((8, 6, 3, 0), "kernel width"),
            ((8, 6, 3, 1.01), "kernel width"),
            ((8, 6, 3), "3 entries"),
        ]
    ),
    (Holistic, (1, 8, 7, 3, 3), "input channels"),
    (Holistic, (0, 8, 6, 3, 3), "layers"),
    (Holistic, (-0.5, 8, 6, 3, 3), "layers"),
]


@pytest.mark.parametrize(("kind", "rank", "mode"), OUT_OF_RANGE)
def test_rank_out_of_range_names_the_mode(kind, rank, mode):
    with pytest.raises(ValueError, match=mode):
        kind(torch.randn(SHAPE), rank, **({"start": "svd"} if kind is Matrix else {}))


@pytest.mark.parametrize(("kind", "rank", "mode"), OUT_OF_RANGE)
def test_rank_out_of_range_in_a_network_names_the_layer_and_the_mode(kind, rank, mode):
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Sequential(BinaryConv2d(6, 8, 3)))
    with pytest.raises(ValueError, match=rf"layer 1\.0\b.*{mode}"):
        factorize(network, lambda w: kind(w, rank))


def test_layers_rank_above_the_number_of_joined_layers_names_a_layer_and_the_mode():
    network = nn.Sequential(BinaryConv2d(6, 6, 3), BinaryConv2d(6, 6, 3))
    with pytest.raises(ValueError, match=r"layers? 0\b.*rank 3 of layers.*1\.\.2"):
        factorize(network, lambda w: Holistic(w, (3, 1.0, 1.0, 1.0, 1.0)))
