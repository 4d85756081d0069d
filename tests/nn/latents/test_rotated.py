import numpy as np
import pytest
import scipy.linalg
import torch

from bnnlight.nn import BinaryConv2d, Dense, Rotated, factorize
from bnnlight.nn.latents import hadamard, rotated
from bnnlight.nn.latents.hadamard import transform

SHAPES = [(8, 16, 3, 3), (16, 4, 1, 1), (32, 8), (4, 4, 5), (16, 1, 3, 3)]


def dense(latent):
    """R_O and R_I as matrices, the identity where a mode is not turned."""
    found = []
    for signs, size in zip((latent.output_signs, latent.input_signs), latent.shape, strict=False):
        length = size if latent.block is None else min(size, latent.block)
        hadamard = np.kron(np.eye(size // length), scipy.linalg.hadamard(length) / np.sqrt(length))
        found.append(np.eye(size) if signs is None else np.diag(signs.numpy().astype(float)) @ hadamard)
    return found[0], found[1].T


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("modes", ["both", "output", "input"])
@pytest.mark.parametrize("block", [None, 4])
def test_weight_start_and_gradient_equal_products_with_dense_rotations(shape, modes, block):
    weight = torch.randn(shape, dtype=torch.float64)
    latent = Rotated(weight, modes, block=block)
    left, right = dense(latent)
    turned = {"both": (True, True), "output": (True, False), "input": (False, True)}[modes]
    assert (latent.output_signs is not None, latent.input_signs is not None) == turned
    start = np.einsum("oa,oi...,bi->ab...", left, weight.numpy(), right)
    np.testing.assert_allclose(latent.core.detach().numpy(), start, atol=1e-14)

    with torch.no_grad():
        latent.core.normal_()
    expected = np.einsum("oa,ab...,bi->oi...", left, latent.core.detach().numpy(), right)
    np.testing.assert_allclose(latent().detach().numpy(), expected, atol=1e-13)

    grad = torch.randn(shape, dtype=torch.float64)
    latent().backward(grad)
    # the gradient goes the way of the start, whatever the memory format
    expected = np.einsum("oa,oi...,bi->ab...", left, grad.numpy(), right)
    np.testing.assert_allclose(latent.core.grad.numpy(), expected, atol=1e-13)


def test_memory_format_changes_nothing():
    weight, grad = torch.randn(2, 12, 10, 3, 3)
    plain, last = (Rotated(weight).to(memory_format=f) for f in (torch.contiguous_format, torch.channels_last))
    assert last.core.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain(), last())
    for latent in (plain, last):
        latent().backward(grad)
    assert torch.equal(plain.core.grad, last.core.grad)
    assert last.core.grad.is_contiguous(memory_format=torch.channels_last)


def test_every_entry_of_the_core_reaches_every_weight_alike():
    latent = Rotated(torch.zeros(8, 16, 3, 3, dtype=torch.float64))
    with torch.no_grad():
        latent.core[3, 5, 1, 2] = 1.0
        change = latent().abs()
    np.testing.assert_allclose(change[:, :, 1, 2], np.full((8, 16), 1 / np.sqrt(8 * 16)), rtol=1e-12)
    assert change.sum() == change[:, :, 1, 2].sum()


@pytest.mark.parametrize("modes", ["both", "output", "input"])
def test_a_step_of_adam_is_taken_in_the_turned_basis_and_one_of_sgd_is_as_ever(modes):
    weight, grad = torch.randn(2, 8, 4, 3, 3, dtype=torch.float64)
    changes = {}
    for optimizer in (torch.optim.Adam, torch.optim.SGD):
        latent = Rotated(weight, modes)
        latent().backward(grad)
        optimizer(latent.parameters(), lr=0.01).step()
        changes[optimizer] = (latent().detach() - weight).numpy()
    np.testing.assert_allclose(changes[torch.optim.SGD], -0.01 * grad.numpy(), atol=1e-14)
    left, right = dense(latent)
    # Adam's first step is the rate times the gradient's sign
    signs = np.sign(np.einsum("oa,oi...,bi->ab...", left, grad.numpy(), right))
    expected = -0.01 * np.einsum("oa,ab...,bi->oi...", left, signs, right)
    np.testing.assert_allclose(changes[torch.optim.Adam], expected, atol=1e-5)


def test_signs_follow_from_seed_and_shape_alone():
    weight = torch.randn(64, 64, 3, 3)
    first = Rotated(weight)
    torch.manual_seed(123)
    np.random.seed(123)
    again = Rotated(torch.randn(64, 64, 3, 3))
    assert torch.equal(first.output_signs, again.output_signs) and torch.equal(first.input_signs, again.input_signs)
    others = [
        first.input_signs,
        Rotated(weight, seed=1).output_signs,
        Rotated(weight[:, :, :1, :1]).output_signs,
        Rotated(weight, "output", seed=2).output_signs,
    ]
    drawn = [first.output_signs, *others]
    assert len({tuple(signs.tolist()) for signs in drawn}) == len(drawn)
    for signs in drawn:
        assert signs.dtype == torch.int8 and set(signs.tolist()) == {-1, 1}
        assert abs(int(signs.sum())) < 32  # four standard deviations
    # as they were drawn first: the same run started again later has the same basis
    assert Rotated(torch.randn(4, 8)).input_signs.tolist() == [-1, -1, -1, -1, -1, -1, 1, -1]


def test_a_state_means_the_same_weight_whatever_the_seed():
    weight = torch.randn(6, 5, 3, 3)
    latent = Rotated(weight, seed=3)
    assert set(latent.state_dict()) == {"core", "output_signs", "input_signs"}
    assert [name for name, _ in latent.named_parameters()] == ["core"]
    other = Rotated(torch.randn(6, 5, 3, 3), seed=4)
    other.load_state_dict(latent.state_dict())
    assert torch.equal(other(), latent())


def test_a_conversion_of_dtype_and_back_keeps_the_rotation():
    latent = Rotated(torch.randn(6, 5, 3, 3))
    core = latent.core.detach().clone()
    expected = latent().detach()
    latent.bfloat16().float()
    with torch.no_grad():
        latent.core.copy_(core)
    assert torch.equal(latent(), expected)


def test_a_training_step_turns_the_weight_once_and_its_gradient_once(monkeypatch):
    # the backward pass needs nothing of the forward pass, so that nothing is computed again
    layer = BinaryConv2d(8, 8, 3, latent=Rotated)
    turns = []
    monkeypatch.setattr(rotated, "transform", lambda *args, **options: turns.append(1) or transform(*args, **options))
    layer(torch.randn(2, 8, 6, 6)).sum().backward()
    assert len(turns) == 2 and layer.latent.core.grad.abs().sum() > 0


def test_products_in_bfloat16_turn_as_the_others_do_up_to_rounding():
    # 96 = 32 · 3: the odd part has entries that are rounded too
    weight, grad = torch.randn(64, 96, 3, 3), torch.randn(64, 96, 3, 3)
    exact, rounded = (Rotated(weight, products=products) for products in ("float32", "bfloat16"))
    assert torch.equal(exact.core, rounded.core)
    for latent in (exact, rounded):
        latent().backward(grad)
    for one, other in ((exact().detach(), rounded().detach()), (exact.core.grad, rounded.core.grad)):
        assert one.dtype == other.dtype == torch.float32
        # four products, whose factors and sums are rounded by 2⁻⁹ at most
        assert 0 < (other - one).norm() < 4 * 2**-9 * one.norm()


def test_powers_of_two_are_turned_in_bfloat16_without_an_error_of_scale():
    # one entry alone: no sum is rounded, and ±1/√512 is not a number of bfloat16
    latent = Rotated(torch.zeros(16, 32, 1, 1), products="bfloat16")
    with torch.no_grad():
        latent.core[3, 5] = 1.0
        torch.testing.assert_close(latent().abs(), torch.full_like(latent.core, 512**-0.5), rtol=1e-6, atol=0)


def test_trains_after_matrices_were_made_in_inference_mode():
    latent = Rotated(torch.randn(11, 22))
    weight = latent().detach()
    hadamard._kronecker.cache_clear()
    with torch.inference_mode():
        assert torch.equal(latent(), weight)
    latent().sum().backward()
    assert torch.isfinite(latent.core.grad).all()


def test_another_latent_can_follow():
    layer = factorize(BinaryConv2d(8, 8, 3, latent=Rotated), Dense)
    weight = layer.latent().detach().clone()
    factorize(layer, Rotated)
    torch.testing.assert_close(layer.latent().detach(), weight)


@pytest.mark.parametrize("modes", ["kernel", "", "Both"])
def test_unknown_modes_are_an_error_that_lists_the_known_ones(modes):
    with pytest.raises(ValueError, match=rf"unknown modes '{modes}': choose one of both, output, input"):
        Rotated(torch.randn(4, 3, 3, 3), modes)


@pytest.mark.parametrize("seed", [-1, 0.5, True, "0"])
def test_a_seed_that_is_no_whole_number_is_an_error(seed):
    with pytest.raises(ValueError, match=r"seed is .*: give a whole number of at least 0"):
        Rotated(torch.randn(4, 3, 3, 3), seed=seed)


@pytest.mark.parametrize("block", [1, 0, -4, 2.0, True, "4"])
def test_a_block_out_of_range_is_an_error(block):
    with pytest.raises(ValueError, match=r"block is .*: give a whole number of at least 2, or null"):
        Rotated(torch.randn(4, 3, 3, 3), block=block)


def test_representation_names_the_options():
    assert "8×4×3×3, modes=output, seed=7)" in repr(Rotated(torch.randn(8, 4, 3, 3), "output", 7))
    assert "seed=0, block=2)" in repr(Rotated(torch.randn(8, 4, 3, 3), block=2))
