"""RBNN's rotations: orthogonal, and never farther from the signs than before."""

import itertools
import math

import numpy as np
import pytest
import torch

from bnnlight.nn import BiRotated


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def closeness(weight, left, right, rows, columns):
    """Σ abs of R₁ᵀ W R₂, the inner product with its own signs."""
    matrices = weight.double().numpy().reshape(len(weight), rows, columns)
    return sum(np.abs(left.T @ matrix @ right).sum() for matrix in matrices)


@pytest.mark.parametrize(
    ("shape", "sides"), [((8, 4, 3, 3), (6, 6)), ((5, 8, 3, 3), (8, 9)), ((3, 7), (1, 7)), ((4, 10), (2, 5))]
)
def test_each_sweep_turns_weights_nearer_to_their_signs(shape, sides):
    weight = torch.randn(shape)
    part = BiRotated(weight, math.pi / 2)
    torch.testing.assert_close(part(weight), weight)  # identities
    found = [closeness(weight, np.eye(sides[0]), np.eye(sides[1]), *sides)]
    for _ in range(5):
        part.renew(weight, 1)
        left, right = part.left.double().numpy(), part.right.double().numpy()
        for matrix, size in ((left, sides[0]), (right, sides[1])):
            np.testing.assert_allclose(matrix.T @ matrix, np.eye(size), atol=1e-5)
        found.append(closeness(weight, left, right, *sides))
    assert all(later >= before * (1 - 1e-6) for before, later in itertools.pairwise(found))
    assert found[-1] > 1.02 * found[0]
    # turned all the way
    matrices = weight.numpy().reshape(len(weight), *sides)
    expected = np.einsum("ij,oik,kl->ojl", left, matrices, right).reshape(shape)
    np.testing.assert_allclose(part(weight).detach().numpy(), expected, atol=1e-5)


def test_a_sweep_takes_the_best_rotation_for_the_signs_before():
    weight = torch.randn(30, 4)
    part = BiRotated(weight)
    part.renew(weight, 1)
    # R₁ for B = sign(W) and R₂ = 1: no turn of the plane, with or without a reflection, is nearer
    matrices = weight.double().numpy().reshape(30, 2, 2)
    signs = np.where(matrices >= 0, 1, -1)

    def product(rotation):
        return sum((b * (rotation.T @ w)).sum() for b, w in zip(signs, matrices, strict=True))

    angles = np.linspace(0, 2 * math.pi, 721)
    turns = [np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) for a in angles]
    best = max(product(turn @ np.diag([1, f])) for turn in turns for f in (1, -1))
    assert product(part.left.double().numpy()) == pytest.approx(best, rel=1e-4)


def test_gradients_where_it_is_smooth():
    weight = torch.randn(4, 6, dtype=torch.float64)
    part = BiRotated(weight, 0.6).double()
    part.renew(weight, 2)
    leaf = weight.clone().requires_grad_()
    parameters = [leaf, part.angle]
    assert torch.autograd.gradcheck(lambda w, angle: torch.func.functional_call(part, {"angle": angle}, w), parameters)
