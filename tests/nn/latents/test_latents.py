import numpy as np
import pytest
import tensorly
import torch
from torch import nn
from torch.func import functional_call

from bnnlight.nn import CP, BinaryLinear, Dense, Holistic, Latent, Matrix, Rotated, TensorTrain, Tucker, factorize

pytestmark = pytest.mark.filterwarnings("ignore:Trying to compute SVD")

SHAPES = {
    "3x3, O < I": (4, 8, 3, 3),
    "3x3, O > I": (8, 4, 3, 3),
    "1x1": (8, 4, 1, 1),
    "1x1, many more outputs than inputs": (64, 3, 1, 1),
    "7x7": (5, 3, 7, 7),
    "non-square": (4, 6, 3, 5),
    "one-dimensional kernel": (4, 6, 5),
    "linear": (6, 10),
    "linear, O > I": (10, 6),
    "depthwise": (9, 1, 3, 3),
}
WAYS = {
    "dense": lambda w: Dense(w),
    "matrix svd": lambda w: Matrix(w, start="svd"),
    "matrix balanced": lambda w: Matrix(w, start="balanced"),
    "matrix identity": lambda w: Matrix(w, start="identity"),
    "tucker hosvd": lambda w: Tucker(w, start="hosvd"),
    "tucker identity": lambda w: Tucker(w, start="identity"),
    "holistic hosvd": lambda w: Holistic(w, start="hosvd"),
    "holistic identity": lambda w: Holistic(w, start="identity"),
    "cp svd": lambda w: CP(w, start="svd"),
    "cp als": lambda w: CP(w, start="als"),
    "tensor train": lambda w: TensorTrain(w),
    "rotated": lambda w: Rotated(w),
    "rotated outputs": lambda w: Rotated(w, modes="output"),
    "rotated inputs": lambda w: Rotated(w, modes="input"),
    "rotated blocks": lambda w: Rotated(w, block=4),
}


def relative_error(latent, weight):
    with torch.no_grad():
        return float((latent().double() - weight.double()).norm() / weight.double().norm())


def randomize(latent):
    """Other values than the decomposition's, which would hide a factor that is orthonormal or one-hot."""
    with torch.no_grad():
        for parameter in latent.parameters():
            parameter.normal_()
    return latent


def numpy(parameters):
    return [p.detach().numpy() for p in parameters]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_full_rank_reconstruction_equals_the_dense_weight(way, shape):
    weight = torch.randn(shape)
    latent = way(weight)
    assert latent().shape == latent.shape == weight.shape
    assert relative_error(latent, weight) <= 1e-5


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_parameters_are_copies_of_the_weight_they_came_from(way):
    weight = torch.randn(4, 3, 3, 3)
    before = weight.clone()
    randomize(way(weight))
    assert torch.equal(weight, before)


@pytest.mark.parametrize("start", ["svd", "balanced"])
@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (20, 2, 3, 3), (6, 10)])
def test_matrix_of_reduced_rank_is_the_eckart_young_truncation(shape, start):
    weight = torch.randn(shape, dtype=torch.float64)
    u, s, vh = np.linalg.svd(weight.numpy().reshape(shape[0], -1), full_matrices=False)
    expected = (u[:, :3] * s[:3]) @ vh[:3]
    latent = Matrix(weight, rank=3, start=start)
    np.testing.assert_allclose(latent().detach().numpy(), expected.reshape(shape), atol=1e-12)


def test_balanced_start_spreads_the_singular_values_over_both_factors():
    weight = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    singular = np.linalg.svd(weight.numpy().reshape(6, -1), compute_uv=False)
    latent = Matrix(weight, start="balanced")
    for factor in numpy((latent.U, latent.V)):
        np.testing.assert_allclose(factor.T @ factor, np.diag(singular), atol=1e-12)
    np.testing.assert_array_equal(latent.s.detach().numpy(), np.ones(6))


@pytest.mark.parametrize("shape", [(4, 6, 3, 5), (6, 4, 3, 3), (4, 6, 5), (5, 7)])
def test_matrix_equals_u_diag_s_v(shape):
    latent = randomize(Matrix(torch.randn(shape, dtype=torch.float64), rank=0.5, start="svd"))
    u, s, v = numpy((latent.U, latent.s, latent.V))
    # the unfolding's columns are ordered kernel first, then input channels
    expected = np.moveaxis((u @ np.diag(s) @ v.T).reshape(shape[0], *shape[2:], shape[1]), -1, 1)
    np.testing.assert_allclose(latent().detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("shape", "rank"),
    [((4, 6, 3, 5), 1.0), ((8, 4, 3, 3), 0.5), ((4, 8, 3, 3), (3, 2, 2, 1)), ((5, 4, 3), 2), ((6, 10), (2, 7))],
)
def test_tucker_equals_tensorly(shape, rank):
    latent = randomize(Tucker(torch.randn(shape, dtype=torch.float64), rank))
    expected = tensorly.tucker_to_tensor((latent.core.detach().numpy(), numpy(latent.factors)))
    np.testing.assert_allclose(latent().detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("shape", "rank"), [((4, 6, 3, 5), 1.0), ((8, 4, 3, 3), 7), ((5, 4, 3), 2), ((6, 10), 0.5)])
def test_cp_equals_tensorly(shape, rank):
    latent = randomize(CP(torch.randn(shape, dtype=torch.float64), rank))
    expected = tensorly.cp_to_tensor((None, numpy(latent.factors)))
    np.testing.assert_allclose(latent().detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "rank"),
    [((4, 6, 3, 5), 1.0), ((8, 4, 3, 3), 0.5), ((8, 4, 3, 3), (3, 5, 2)), ((5, 4, 3), 2), ((6, 10), 4)],
)
def test_tensor_train_equals_tensorly(shape, rank):
    latent = randomize(TensorTrain(torch.randn(shape, dtype=torch.float64), rank))
    expected = tensorly.tt_to_tensor(numpy(latent.cores))
    np.testing.assert_allclose(latent().detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_tensor_train_start_of_reduced_rank_is_the_truncated_svd_of_the_bond():
    weight = torch.randn(8, 4, 3, 3, dtype=torch.float64)
    u, s, vh = np.linalg.svd(weight.numpy().reshape(8, -1), full_matrices=False)
    expected = ((u[:, :4] * s[:4]) @ vh[:4]).reshape(weight.shape)
    np.testing.assert_allclose(TensorTrain(weight, rank=4)().detach().numpy(), expected, atol=1e-12)


def test_tucker_start_of_reduced_rank_is_near_the_best_of_tensorly():
    weight = torch.randn(8, 6, 3, 3, dtype=torch.float64)
    core, factors = tensorly.decomposition.tucker(weight.numpy(), [4, 3, 3, 3], n_iter_max=100)
    best = np.linalg.norm(tensorly.tucker_to_tensor((core, factors)) - weight.numpy())
    error = relative_error(Tucker(weight, rank=0.5), weight) * float(weight.norm())
    # the projection on the leading subspaces lies within √2 of the best for two cut modes
    assert best * 0.999 <= error <= best * 2**0.5


def test_cp_start_of_reduced_rank_keeps_the_largest_components_of_all_kernel_positions():
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64)
    singular = [np.linalg.svd(weight.numpy()[:, :, y, x], compute_uv=False) for y in range(3) for x in range(3)]
    dropped = np.sort(np.concatenate(singular))[:-10]
    # components of one position are orthogonal and positions do not overlap, so squared errors add up
    expected = np.sqrt((dropped**2).sum())
    error = relative_error(CP(weight, rank=10), weight) * float(weight.norm())
    assert error == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("rank", [0.25, 0.5])
def test_cp_by_least_squares_is_no_worse_than_its_start(rank):
    weight = torch.randn(8, 6, 3, 3)
    started, refined = CP(weight, rank), CP(weight, rank, start="als")
    assert relative_error(refined, weight) < relative_error(started, weight) * 0.98


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_gradient_with_respect_to_every_factor_is_right(way):
    latent = randomize(way(torch.randn(3, 2, 2, 3, dtype=torch.float64)))
    names, values = zip(*latent.named_parameters(), strict=True)

    def rebuilt(*parameters):
        return functional_call(latent, dict(zip(names, parameters, strict=True)), ())

    assert torch.autograd.gradcheck(rebuilt, values)


def rms(tensor):
    return float(np.sqrt((tensor.detach().double().numpy() ** 2).mean()))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_parameter_has_a_learning_rate_scale(way):
    latent = way(torch.randn(4, 3, 3, 3))
    assert set(latent.lr_scales) == {name for name, _ in latent.named_parameters()}


@pytest.mark.parametrize(
    ("make", "carrier"),
    [
        (lambda w: Matrix(w, start="balanced", factor_lr=0.3), None),
        (lambda w: Matrix(w, start="identity", factor_lr=0.3), "V"),
        (lambda w: Tucker(w, factor_lr=0.3), "core"),
        (lambda w: Tucker(w, start="identity", factor_lr=0.3), "core"),
        (lambda w: Holistic(w, factor_lr=0.3), "shared.core"),
        (lambda w: CP(w, factor_lr=0.3), None),
        (lambda w: TensorTrain(w, factor_lr=0.3), None),
        (lambda w: Rotated(w), "core"),
    ],
)
def test_learning_rate_scales_follow_the_size_of_entries_and_factor_lr(make, carrier):
    weight = 0.05 * torch.randn(4, 3, 3, 3)
    latent = make(weight)
    for name, parameter in latent.named_parameters():
        wanted = rms(parameter) / rms(weight) * (1 if name == carrier else 0.3)
        assert latent.lr_scales[name] == pytest.approx(wanted, rel=1e-5), name


def test_identity_start_gives_the_weight_itself_the_optimizers_own_rate():
    weight = torch.randn(8, 4, 3, 3)
    assert Tucker(weight, start="identity").lr_scales["core"] == pytest.approx(1)
    assert Matrix(weight, start="identity").lr_scales["V"] == pytest.approx(1)
    tall = Matrix(torch.randn(40, 4, 3, 3), start="identity")
    assert torch.equal(tall.V, torch.eye(36))
    assert tall.lr_scales["U"] == pytest.approx(1)


def test_zero_weight_leaves_finite_learning_rate_scales():
    assert all(np.isfinite(s) and s > 0 for s in Matrix(torch.zeros(4, 3, 3, 3)).lr_scales.values())


@pytest.mark.parametrize("kind", [Matrix, Tucker, Holistic, CP, TensorTrain])
@pytest.mark.parametrize("factor_lr", [-0.1, float("nan"), float("inf")])
def test_factor_lr_out_of_range_is_an_error(kind, factor_lr):
    with pytest.raises(ValueError, match="factor_lr"):
        kind(torch.randn(4, 3, 3, 3), factor_lr=factor_lr)


@pytest.mark.parametrize(("kind", "known"), [(Matrix, "balanced"), (Tucker, "hosvd"), (Holistic, "hosvd"), (CP, "als")])
def test_unknown_start_is_an_error_that_lists_the_known_ones(kind, known):
    with pytest.raises(ValueError, match=f"'random'.*{known}"):
        kind(torch.randn(4, 3, 3, 3), start="random")


@pytest.mark.parametrize("kind", [Matrix, Tucker, Holistic, CP, TensorTrain])
def test_products_in_bfloat16_are_near_the_others_and_leave_float32(kind):
    weight, grad = torch.randn(16, 24, 3, 3), torch.randn(16, 24, 3, 3)
    found = []
    for products in ("float32", "bfloat16"):
        torch.manual_seed(0)
        latent = randomize(kind(weight, products=products))
        rebuilt = latent()
        rebuilt.backward(grad)
        assert all(value.dtype == torch.float32 for value in (rebuilt, *latent.parameters()))
        found.append([rebuilt.detach(), *(p.grad for p in latent.parameters())])
        with torch.no_grad():
            assert torch.equal(latent(), rebuilt)  # what is measured and exported is what was trained
    for exact, rounded in zip(*found, strict=True):
        # up to four roundings to eight bits one after the other, each by 2⁻⁹ at most, or 2⁻⁹/√3 on average
        assert 0 < (rounded - exact).norm() < 4 * 2**-9 * exact.norm()


@pytest.mark.parametrize("kind", [Matrix, Tucker, Holistic, CP, TensorTrain, Rotated])
def test_unknown_products_are_an_error_that_lists_the_known_ones(kind):
    with pytest.raises(ValueError, match=f"products of {kind.__name__} is 'bf16': choose float32 or bfloat16"):
        kind(torch.randn(4, 3, 3, 3), products="bf16")


@pytest.mark.parametrize("kind", [Matrix, Tucker, Holistic])
def test_identity_start_below_full_rank_is_an_error(kind):
    with pytest.raises(ValueError, match=r"identity.*full rank"):
        kind(torch.randn(4, 3, 3, 3), rank=0.5, start="identity")


@pytest.mark.parametrize("kind", [Tucker, Holistic])
def test_start_is_the_same_for_the_same_weight(kind):
    weight = torch.randn(64, 3, 1, 1)
    np.random.seed(1)
    first = kind(weight)
    np.random.seed(2)
    second = kind(weight)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_latent_of_ones_own_needs_only_a_subclass():
    class Doubled(Latent):
        def __init__(self, weight):
            super().__init__(weight.shape)
            self.halves = nn.Parameter(weight / 2)

        def forward(self):
            return 2 * self.halves

    layer = BinaryLinear(4, 3)
    weight = layer.latent.weight.detach().clone()
    factorize(layer, Doubled)
    assert isinstance(layer.latent, Doubled)
    assert torch.equal(layer.latent(), weight)


def test_base_latent_has_no_rank_and_no_forward():
    latent = Latent(torch.Size((2, 3)))
    assert latent.ranks == ()
    with pytest.raises(NotImplementedError):
        latent()


def test_representation_names_shape_and_ranks():
    assert "8×4×3×3, ranks=(4, 2, 3, 3)" in repr(Tucker(torch.randn(8, 4, 3, 3), rank=0.5))
    assert "8×4×3×3" in repr(Dense(torch.randn(8, 4, 3, 3)))
