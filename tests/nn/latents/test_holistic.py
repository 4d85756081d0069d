import copy

import numpy as np
import pytest
import tensorly
import torch
from torch import nn

from bnnlight.nn import BinaryConv2d, BinaryLinear, Holistic, Tucker, factorize

pytestmark = pytest.mark.filterwarnings("ignore:Trying to compute SVD")


def joined(weights, *args, **kwargs):
    latents = [Holistic(w, *args, **kwargs) for w in weights]
    Holistic.couple(latents, weights)
    return latents


@pytest.mark.parametrize("start", ["hosvd", "identity"])
@pytest.mark.parametrize("shape", [(4, 8, 3, 3), (8, 4, 3, 5), (8, 4, 1, 1), (5, 3, 7, 7), (6, 10), (9, 1, 3, 3)])
def test_three_joined_layers_at_full_rank_equal_their_dense_weights(shape, start):
    weights = [torch.randn(shape) for _ in range(3)]
    for latent, weight in zip(joined(weights, start=start), weights, strict=True):
        with torch.no_grad():
            assert float((latent() - weight).norm() / weight.norm()) <= 1e-5


@pytest.mark.parametrize(
    ("shape", "rank"),
    [((4, 6, 3, 5), 1.0), ((8, 4, 3, 3), (2, 0.5, 3, 2, 1)), ((8, 4, 3, 3), 0.5), ((6, 10), (1, 2, 7))],
)
def test_each_layer_is_a_slice_of_tensorlys_five_mode_tensor(shape, rank):
    latents = joined([torch.randn(shape, dtype=torch.float64) for _ in range(3)], rank)
    shared = latents[0].shared
    with torch.no_grad():
        for parameter in shared.parameters():
            parameter.normal_()
    core = shared.core.detach().numpy().reshape(shared.ranks)
    stack = tensorly.tucker_to_tensor((core, [f.detach().numpy() for f in shared.factors]))
    assert stack.shape == (3, *shape)
    for layer, latent in enumerate(latents):
        np.testing.assert_allclose(latent().detach().numpy(), stack[layer], rtol=1e-10, atol=1e-12)


def test_alone_it_is_a_tucker_decomposition():
    weight = torch.randn(8, 6, 3, 3, dtype=torch.float64)
    holistic, tucker = Holistic(weight, 0.5), Tucker(weight, 0.5)
    assert holistic.num_layers == 1
    torch.testing.assert_close(holistic(), tucker(), rtol=1e-10, atol=1e-12)


def network():
    return nn.Sequential(BinaryConv2d(4, 4, 3), BinaryConv2d(4, 6, 3), BinaryConv2d(4, 4, 3), BinaryConv2d(4, 4, 3))


def test_layers_of_one_shape_share_one_tensor_and_others_stay_alone():
    model = factorize(network(), Holistic)
    first, other, second, third = (layer.latent for layer in model)
    assert first.shared is second.shared is third.shared
    assert [first.layer, second.layer, third.layer] == [0, 1, 2]
    assert other.num_layers == 1 and other.shared is not first.shared


def test_kernels_and_linear_layers_of_other_shapes_are_not_joined():
    model = nn.Sequential(BinaryConv2d(4, 4, 1), BinaryConv2d(4, 4, 3), BinaryLinear(4, 4))
    assert [layer.latent.num_layers for layer in factorize(model, Holistic)] == [1, 1, 1]


def test_shared_parameters_count_once():
    model = factorize(network(), Holistic)
    triple = 3 * (4 * 4 * 3 * 3) + 3 * 3 + 2 * 4 * 4 + 2 * 3 * 3  # core, layers' factor, channels, kernel
    single = 6 * 4 * 3 * 3 + 1 + 6 * 6 + 4 * 4 + 2 * 3 * 3
    alphas = 4 + 6 + 4 + 4
    assert sum(p.numel() for p in model.parameters()) == triple + single + alphas


def test_gradient_of_the_shared_core_is_the_sum_over_layers():
    latents = joined([torch.randn(4, 3, 3, 3, dtype=torch.float64) for _ in range(3)], 0.75)
    upstream = [torch.randn(4, 3, 3, 3, dtype=torch.float64) for _ in range(3)]
    core, factors = latents[0].shared.core, [f.detach() for f in latents[0].shared.factors]
    sum((up * latent()).sum() for up, latent in zip(upstream, latents, strict=True)).backward()
    # dL/dG = Σ_ℓ UL[ℓ] ∘ (upstream_ℓ ×₀ U0ᵀ ×₁ U1ᵀ …), written out as one contraction
    expected = torch.einsum("lp,loihw,oa,ib,hc,wd->pabcd", factors[0], torch.stack(upstream), *factors[1:])
    torch.testing.assert_close(core.grad, expected.flatten(1), rtol=1e-10, atol=1e-12)


def test_a_deep_copy_shares_within_itself_and_not_with_the_original():
    model = factorize(network(), Holistic)
    twin = copy.deepcopy(model)
    assert twin[0].latent.shared is twin[2].latent.shared
    assert twin[0].latent.shared is not model[0].latent.shared


def test_joined_layers_survive_a_state_dict_round_trip():
    source, target = factorize(network(), Holistic), factorize(network(), Holistic)
    target.load_state_dict(source.state_dict())
    assert target[0].latent.shared is target[2].latent.shared
    for one, other in zip(source, target, strict=True):
        assert torch.equal(one.latent(), other.latent())
