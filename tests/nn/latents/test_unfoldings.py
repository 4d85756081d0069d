"""Unfoldings from the factors against a plain SVD of the dense weight."""

import pytest
import torch
from torch import nn

from bnnlight.nn import CP, BinaryConv2d, Dense, Holistic, Latent, Matrix, Rotated, TensorTrain, Tucker, factorize
from bnnlight.nn.inspect import named_unfoldings
from bnnlight.nn.latents import unfolding as unfolding_module
from bnnlight.nn.latents.unfolding import triangle, unfold

pytestmark = pytest.mark.filterwarnings("ignore:Trying to compute SVD")

SHAPES = [(8, 5, 3, 3), (4, 12, 3, 5), (16, 2, 1, 1), (9, 1, 3, 3), (4, 6, 5), (7, 10), (10, 3)]
WAYS = {
    "dense": Dense,
    "matrix": lambda w: Matrix(w, start="svd"),
    "matrix identity": Matrix,
    "matrix low": lambda w: Matrix(w, 2, start="balanced"),
    "tucker": Tucker,
    "tucker low": lambda w: Tucker(w, 0.4),
    "cp": CP,
    "cp low": lambda w: CP(w, 2),
    "tensor train": TensorTrain,
    "tensor train low": lambda w: TensorTrain(w, 0.4),
    "rotated": Rotated,
    "holistic": Holistic,
    "holistic low": lambda w: Holistic(w, 0.4),
}


def randomize(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def dense_values(weight, mode):
    """Singular values of a dense weight's unfolding, by LAPACK's SVD."""
    order = [mode, *(m for m in range(weight.ndim) if m != mode)]
    return torch.linalg.svdvals(weight.detach().double().permute(order).reshape(weight.shape[mode], -1))


def check(latent, matrices, tolerance=1e-10):
    weight = latent()
    assert len(matrices) == weight.ndim
    for mode, matrix in enumerate(matrices):
        assert matrix.dtype == torch.float64 and not matrix.requires_grad
        expected, found = dense_values(weight, mode), torch.linalg.svdvals(matrix)
        common = min(len(expected), len(found))
        size = expected[0]
        torch.testing.assert_close(found[:common], expected[:common], rtol=tolerance, atol=float(tolerance * size))
        # what one of the two has more than the other is zero
        assert all((rest <= tolerance * size).all() for rest in (expected[common:], found[common:]))
        # random factors reach the largest rank that there can be, and the matrix is no larger than that needs
        assert min(matrix.shape) == int((expected > 1e-7 * size).sum())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_singular_values_equal_those_of_the_dense_weight(way, shape):
    latent = randomize(way(torch.randn(shape, dtype=torch.float64)))
    check(latent, latent.unfoldings())


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_single_precision_parameters_are_computed_with_in_double(way):
    latent = randomize(way(torch.randn(6, 5, 3, 3)))
    twin = way(torch.randn(6, 5, 3, 3, dtype=torch.float64))
    twin.load_state_dict(latent.state_dict())
    check(twin, latent.unfoldings())


@pytest.mark.parametrize("rank", [1.0, 0.5, (2, 0.5, 0.75, 1, 3)])
def test_each_of_several_joined_layers_has_its_own(rank):
    weights = [torch.randn(8, 5, 3, 3, dtype=torch.float64) for _ in range(3)]
    latents = [Holistic(w, rank) for w in weights]
    Holistic.couple(latents, weights)
    randomize(latents[0].shared)
    for latent in latents:
        assert latent.num_layers == 3
        check(latent, latent.unfoldings())


@pytest.mark.parametrize("latent", [Dense, Tucker, CP, TensorTrain, Rotated])
def test_groups_have_the_shape_of_the_grouped_weight(latent):
    layer = BinaryConv2d(8, 6, 3, groups=2, latent=latent)
    matrices = layer.latent.unfoldings()
    assert [m.shape[0] for m in matrices] == [6, 4, 3, 3]
    check(layer.latent, matrices, tolerance=1e-5)


def test_matrices_are_as_small_as_the_ranks_and_not_as_the_weight():
    weight = torch.randn(40, 30, 3, 3)
    assert [tuple(m.shape) for m in Tucker(weight, (4, 5)).unfoldings()] == [(4, 45), (5, 36), (3, 60), (3, 60)]
    assert [tuple(m.shape) for m in CP(weight, 6).unfoldings()] == [(6, 54), (6, 54), (3, 108), (3, 108)]
    assert Matrix(weight, 4, start="svd").unfoldings()[0].shape == (4, 4)
    assert Matrix(weight, 4, start="svd").unfoldings()[1].shape == (30, 4 * 9)
    # bonds of 4 (asked for), 9 and 3 (full)
    assert [tuple(m.shape) for m in TensorTrain(weight, 4).unfoldings()] == [(40, 4), (30, 36), (3, 27), (3, 3)]


def test_a_latent_of_ones_own_gets_the_unfoldings_of_its_weight():
    class Doubled(Latent):
        def __init__(self, weight):
            super().__init__(weight.shape)
            self.halves = nn.Parameter(weight.double() / 2)

        def forward(self):
            return 2 * self.halves

    latent = Doubled(torch.randn(4, 6, 3, 3))
    check(latent, latent.unfoldings())
    assert latent.named_factors() == {}


def test_triangle_keeps_the_gram_matrix_and_is_never_larger_than_the_factor():
    for shape, expected in (((9, 4), (4, 4)), ((4, 9), (4, 9)), ((5, 5), (5, 5))):
        factor = torch.randn(shape, requires_grad=True)
        reduced = triangle(factor)
        assert reduced.shape == expected and reduced.dtype == torch.float64 and not reduced.requires_grad
        exact = factor.detach().double()
        torch.testing.assert_close(reduced.T @ reduced, exact.T @ exact, rtol=1e-12, atol=1e-12)


def test_unfolding_by_hand():
    tensor = torch.arange(12).reshape(2, 3, 2)
    assert unfold(tensor, 0).tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert unfold(tensor, 1).tolist() == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]
    assert unfold(tensor, 2).tolist() == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]


def test_factors_are_the_parameters_by_mode():
    weight = torch.randn(8, 6, 3, 3)
    for latent in (Tucker(weight, 0.5), CP(weight, 7)):
        factors = latent.named_factors()
        assert list(factors) == ["factor0", "factor1", "factor2", "factor3"]
        for mode, factor in enumerate(factors.values()):
            assert factor.data_ptr() == latent.factors[mode].data_ptr() and not factor.requires_grad
            assert factor.shape == latent.factors[mode].shape
    matrix = Matrix(weight, 3, start="svd")
    assert {name: tuple(f.shape) for name, f in matrix.named_factors().items()} == {
        "factor0": (8, 3),
        "factor1": (54, 3),
    }
    assert Dense(weight).named_factors() == {}


def test_factors_of_a_tensor_train_are_its_cores_unfolded_along_their_modes():
    train = randomize(TensorTrain(torch.randn(8, 6, 3, 3), (4, 5, 2)))
    factors = train.named_factors()
    assert {name: tuple(f.shape) for name, f in factors.items()} == {
        "factor0": (8, 4),
        "factor1": (6, 4 * 5),
        "factor2": (3, 5 * 2),
        "factor3": (3, 2),
    }
    core = train.cores[1].detach()
    assert all(torch.equal(factors["factor1"][i], core[:, i].reshape(-1)) for i in range(6))


def test_joined_layers_have_a_factor_over_the_layers_and_share_all_of_them():
    model = factorize(nn.Sequential(*(BinaryConv2d(4, 4, 3) for _ in range(3))), Holistic)
    found = [layer.latent.named_factors() for layer in model]
    shared = model[0].latent.shared.factors
    assert list(found[0]) == ["factor_layers", "factor0", "factor1", "factor2", "factor3"]
    assert found[0]["factor_layers"].shape == (3, 3)
    for factors in found:
        assert [f.data_ptr() for f in factors.values()] == [f.data_ptr() for f in shared]


def test_factors_that_layers_share_are_decomposed_once(monkeypatch):
    model = factorize(nn.Sequential(*(BinaryConv2d(6, 8, 3) for _ in range(3))), lambda w: Holistic(w, 0.5))
    calls = []
    real = torch.linalg.qr
    monkeypatch.setattr(
        unfolding_module.torch.linalg, "qr", lambda *args, **kw: calls.append(args[0]) or real(*args, **kw)
    )
    alone = [layer.latent.unfoldings() for layer in model]
    assert len(calls) == 6  # the factors of both channel modes, three times; those of the kernel are square
    calls.clear()
    for (name, matrices, factors), expected, layer in zip(named_unfoldings(model), alone, model, strict=True):
        assert model.get_submodule(name) is layer
        assert all(torch.equal(a, b) for a, b in zip(matrices, expected, strict=True))
        assert factors.keys() == layer.latent.named_factors().keys()
    assert len(calls) == 2


def test_nothing_is_left_on_the_parameters():
    model = factorize(nn.Sequential(BinaryConv2d(4, 6, 3), BinaryConv2d(4, 6, 3)), Holistic)
    before = [p.detach().clone() for p in model.parameters()]
    list(named_unfoldings(model))
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert parameter.grad is None and parameter.requires_grad and torch.equal(parameter, value)
