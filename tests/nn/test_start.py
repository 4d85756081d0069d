"""A binary network started from the weights of a trained one."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from bnnlight.backbones import ResNet
from bnnlight.nn import (
    CP,
    BinaryConv2d,
    BinaryLinear,
    Dense,
    Holistic,
    Matrix,
    Rotated,
    TensorTrain,
    Tucker,
    named_binary_layers,
    real_valued,
    set_stage,
    start_from,
)
from bnnlight.nn.start import weights_follow

LATENTS = {
    "Dense": Dense,
    "Matrix": Matrix,
    "balanced": lambda w: Matrix(w, start="balanced"),
    "Tucker": Tucker,
    "Holistic": Holistic,
    "TensorTrain": TensorTrain,
    "Rotated": Rotated,
}


def resnet(**options):
    return ResNet((2, 1), 5, width=0.125, stem="small", **options)


@pytest.fixture
def trained():
    """A network in which nothing is as it was made."""

    def make(network):
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                with torch.no_grad():
                    tensor.copy_(tensor + 0.1 * torch.rand_like(tensor))
            else:
                tensor.fill_(7)
        return network.eval()

    return make


@pytest.fixture
def saved(tmp_path):
    """Write a network's weights as `bnnlight fit` does, or plain; return the path."""

    def save(network, plain=False, name="trained.ckpt"):
        state = network.state_dict()
        if not plain:
            named = {f"backbone.{key}": value for key, value in state.items()}
            state = {"state_dict": named | {"loss.weight": torch.ones(3)}, "global_step": 5}
        torch.save(state, tmp_path / name)
        return str(tmp_path / name)

    return save


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)
def test_a_real_network_goes_on_as_the_real_stage(trained, saved, latent, plain):
    real = trained(real_valued(resnet()))
    torch.manual_seed(99)
    network = start_from(resnet(), saved(real, plain), latent).eval()
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(set_stage(network, "real")(x), real(x), atol=1e-5, rtol=1e-5)
    for name, layer in named_binary_layers(network):
        weight = real.get_submodule(name).weight
        torch.testing.assert_close(layer.latent(), weight, atol=1e-5, rtol=1e-5)
        assert type(layer.latent) is type(latent(torch.randn(4, 4, 3, 3)))
        torch.testing.assert_close(layer.alpha(), weight.flatten(1).abs().mean(1), atol=1e-5, rtol=1e-5)
    shared = {layer.latent.shared for _, layer in named_binary_layers(network) if isinstance(layer.latent, Holistic)}
    assert not shared or len(shared) < len(list(named_binary_layers(network)))
    others = dict(network.named_buffers())
    assert all(torch.equal(buffer, others[name]) for name, buffer in real.named_buffers())
    assert all(p.requires_grad for p in network.parameters())


def test_a_binary_network_with_dense_latents_goes_on_with_its_alpha(trained, saved):
    binary = trained(resnet())
    # the latents of the network that is handed over do not count
    network = start_from(resnet(latent=lambda w: CP(w, 2)), saved(binary), Matrix).eval()
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(network(x), binary(x))
    for (_, one), (_, other) in zip(named_binary_layers(network), named_binary_layers(binary), strict=True):
        assert isinstance(one.latent, Matrix) and torch.equal(one.alpha(), other.alpha())


def test_alpha_of_another_kind_starts_anew(trained, saved):
    path = saved(trained(resnet(scale="spatial", image_size=8)))
    for layer in dict(named_binary_layers(start_from(resnet(scale="channel"), path))).values():
        torch.testing.assert_close(layer.alpha(), layer.latent().flatten(1).abs().mean(1))
    analytic = start_from(resnet(scale="analytic"), path)
    assert not any("scale" in name for name in analytic.state_dict())


def test_low_rank_latents_are_the_nearest_and_alpha_theirs(trained, saved):
    real = trained(real_valued(resnet()))
    network = start_from(resnet(), saved(real), lambda w: Matrix(w, 2, start="svd"))
    for name, layer in named_binary_layers(network):
        weight = real.get_submodule(name).weight.detach()
        unfolded = weight.flatten(1).double()
        u, s, v = torch.linalg.svd(unfolded, full_matrices=False)
        nearest = (u[:, :2] * s[:2] @ v[:2]).view_as(weight).float()
        torch.testing.assert_close(layer.latent(), nearest, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(layer.alpha(), nearest.flatten(1).abs().mean(1), atol=1e-5, rtol=1e-4)


class Own(nn.Module):
    """A layer used twice, a linear one, biases, and a module that is itself named backbone."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(BinaryConv2d(2, 2, 3, padding=1, bias=True), nn.PReLU(2))
        self.again = self.backbone[0]
        self.head = BinaryLinear(8, 3, bias=True)

    def forward(self, x):
        return self.head(self.again(self.backbone(x)).flatten(1))


def test_other_networks(trained, saved):
    first = trained(Own())
    second = start_from(Own().eval(), saved(first, plain=True), Tucker)
    x = torch.randn(4, 2, 2, 2)
    torch.testing.assert_close(second(x), first(x))
    assert second.again is second.backbone[0] and isinstance(second.again.latent, Tucker)


def test_weights_of_another_precision(trained, saved):
    real = trained(real_valued(resnet())).double()
    network = start_from(resnet(), saved(real), Matrix)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_a_network_whose_weights_follow_reads_no_file(tmp_path):
    with weights_follow():
        network = start_from(resnet(), str(tmp_path / "gone.ckpt"), Tucker)
    assert all(isinstance(layer.latent, Tucker) for _, layer in named_binary_layers(network))
    with pytest.raises(FileNotFoundError, match="checkpoint to start from not found"):
        start_from(resnet(), str(tmp_path / "gone.ckpt"), Tucker)


def test_files_that_are_no_checkpoint_are_one_line(tmp_path, check_one_line):
    for content in (b"", b"weights", None):
        path = tmp_path / "other.ckpt"
        path.write_bytes(content) if content is not None else torch.save({"state_dict": {"a": 1}}, path)
        with pytest.raises(ValueError) as caught:
            start_from(resnet(), str(path))
        check_one_line(caught, "is not a checkpoint to start from", "other.ckpt")


def test_factorized_latents_are_one_line_that_says_what_to_do(saved, check_one_line):
    path = saved(resnet(latent=Tucker))
    with pytest.raises(ValueError) as caught:
        start_from(resnet(), path)
    named = "stages.0.0.unit1.conv.latent."
    check_one_line(caught, "factorized latents", named, "real-valued", "latent: null")


@pytest.mark.parametrize("latent", [Dense, Tucker, Holistic])
def test_without_a_latent_the_models_own_are_filled(trained, saved, latent):
    first = trained(resnet(latent=latent))
    second = start_from(resnet(latent=latent), saved(first), latent=None).eval()
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(second(x), first(x))
    assert second.state_dict().keys() == first.state_dict().keys()
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in second.state_dict().items())


def test_without_a_latent_alpha_of_another_kind_starts_anew(trained, saved):
    path = saved(trained(resnet(latent=Tucker, scale="spatial", image_size=8)))
    network = start_from(resnet(latent=Tucker), path, latent=None)
    for _, layer in named_binary_layers(network):
        torch.testing.assert_close(layer.alpha(), layer.latent().flatten(1).abs().mean(1))


@pytest.mark.parametrize(
    ("latent", "parts"),
    [
        (partial(Tucker, rank=0.5), ("latent.core 4×4×3×3, latent.factors.0 8×4", "instead of latent.core 8×8×3×3")),
        (Matrix, ("latent.U 8×8", "instead of latent.core")),
        (Dense, ("latent.weight 8×8×3×3 instead of latent.core",)),
    ],
)
def test_other_latents_are_called_so(saved, check_one_line, latent, parts):
    path = saved(resnet(latent=latent))
    with pytest.raises(ValueError) as caught:
        start_from(resnet(latent=Tucker), path, latent=None)
    check_one_line(caught, path, "has other latents than this ResNet: at stages.0.0.unit1.conv ", "rank of the", *parts)
    # a network that is wider has other sizes everywhere
    with pytest.raises(ValueError) as caught:
        start_from(ResNet((2, 1), 5, width=0.25, stem="small", latent=Tucker), path, latent=None)
    assert "different sizes" in str(caught.value) and "other latents" not in str(caught.value)


def test_dense_weights_for_factors_are_one_line(saved, check_one_line):
    path = saved(real_valued(resnet()))
    with pytest.raises(ValueError) as caught:
        start_from(resnet(latent=Tucker), path, latent=None)
    check_one_line(caught, "stages.0.0.unit1.conv.weight", "name the latent")


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("leave_out", [["classifier"], ["class*"], ["classifier.weight", "classifier.bias"]])
def test_a_head_that_is_left_out_starts_anew(trained, saved, real, leave_out):
    first = trained(real_valued(resnet()) if real else resnet())
    path = saved(first)
    second = ResNet((2, 1), 7, width=0.125, stem="small")
    head = copy.deepcopy(second.classifier.state_dict())
    start_from(second, path, leave_out=leave_out)
    assert all(torch.equal(value, head[name]) for name, value in second.classifier.state_dict().items())
    for (name, layer), (_, other) in zip(named_binary_layers(second), named_binary_layers(resnet()), strict=True):
        there = first.get_submodule(name)
        torch.testing.assert_close(layer.latent(), there.weight if real else there.latent(), rtol=0, atol=0)
        assert layer.latent().shape == other.latent().shape
    assert torch.equal(second.stem[0].weight, first.stem[0].weight)


def test_a_binary_layer_that_is_left_out_keeps_its_weight(trained, saved):
    first, second = trained(resnet()), resnet()
    path = "stages.1.0.unit1.conv"
    before = second.get_submodule(path).latent().detach().clone()
    start_from(second, saved(first), leave_out=[path])
    assert torch.equal(second.get_submodule(path).latent(), before)
    other = "stages.0.0.unit1.conv"
    assert torch.equal(second.get_submodule(other).latent(), first.get_submodule(other).latent())


def test_another_head_is_one_line_that_names_what_to_leave_out(saved, check_one_line):
    path = saved(resnet())
    with pytest.raises(ValueError) as caught:
        start_from(ResNet((2, 1), 7, width=0.125, stem="small"), path)
    check_one_line(caught, "classifier.weight 5×16 instead of 7×16", "leave_out: [classifier]")


def test_leaving_everything_out_is_one_line(saved, check_one_line):
    with pytest.raises(ValueError) as caught:
        start_from(resnet(), saved(resnet()), leave_out=["*"])
    check_one_line(caught, "leaves nothing of ResNet", "name fewer parts")


@pytest.mark.parametrize("leave_out", [["fc"], ["classifier", "nowhere.*"], "classifier"])
def test_parts_that_are_not_there_are_one_line(saved, check_one_line, leave_out):
    with pytest.raises(ValueError) as caught:
        start_from(resnet(), saved(resnet()), leave_out=leave_out)
    parts = ["give a list, [classifier]"] if isinstance(leave_out, str) else [leave_out[-1], "stem", "classifier"]
    check_one_line(caught, "leave_out", *parts)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}, "optimizer": {"lr": 1.0}},
        lambda state: {"state_dict": {f"module.backbone.{name}": value for name, value in state.items()}},
        lambda state: {"state_dict": {f"backbone.module.{name}": value for name, value in state.items()}},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
        lambda state: {"model_state_dict": {f"module._orig_mod.{name}": value for name, value in state.items()}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"state_dict": {f"model.{name}": value for name, value in state.items()}},
        lambda state: {"state_dict": {f"net.module.{name}": value for name, value in state.items()}},
    ],
)
def test_files_of_other_programs(trained, tmp_path, wrap):
    first = trained(resnet())
    torch.save(wrap(first.state_dict()), tmp_path / "other.pth")
    second = start_from(resnet(), str(tmp_path / "other.pth")).eval()
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(second(x), first(x))


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        (lambda: ResNet((2,), 5, width=0.125, stem="small"), ["it lacks stages.1.0.unit1.norm.weight", "more"]),
        (lambda: ResNet((2, 2), 5, width=0.125, stem="small"), ["it also has stages.1.1.unit1.norm.weight", "more"]),
        (lambda: ResNet((2, 1), 7, width=0.125, stem="small"), ["different sizes", ".weight 7×16 instead of 5×16"]),
        (lambda: ResNet((2, 1), 5, width=0.25, stem="small"), ["stem.0.weight 16×3×3×3 instead of 8×3×3×3", "more"]),
    ],
)
@pytest.mark.parametrize("real", [True, False])
def test_another_network_is_one_line_that_names_the_first(saved, check_one_line, other, parts, real):
    network, started = other(), resnet()
    before = copy.deepcopy(started.state_dict())
    with pytest.raises(ValueError) as caught:
        start_from(started, saved(real_valued(network) if real else network))
    check_one_line(caught, "holds a different network from this ResNet", *parts)
    assert all(torch.equal(value, before[name]) for name, value in started.state_dict().items())


def test_a_network_without_binary_layers_is_an_error(saved):
    with pytest.raises(ValueError, match="Linear has no binary layer to start"):
        start_from(nn.Linear(2, 2), saved(nn.Linear(2, 2)))


@pytest.mark.parametrize("latent", [Dense, Tucker])
def test_what_is_frozen_or_shared_stays_so(saved, latent):
    def network():
        made = nn.Sequential(*(BinaryConv2d(3, 3, 3) for _ in range(4)))
        made[2].latent = made[1].latent
        return made

    model, trained = network(), network()
    model[0].requires_grad_(False)
    start_from(model, saved(real_valued(copy.deepcopy(trained))), latent)
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {
        n for n, _ in model[0].named_parameters("0")
    }
    assert model[1].latent is model[2].latent is not model[3].latent
    for layer, real in zip(model, trained, strict=True):
        torch.testing.assert_close(layer.latent(), real.latent(), rtol=1e-5, atol=1e-6)
    apart = nn.Sequential(*(BinaryConv2d(3, 3, 3) for _ in range(4)))
    with pytest.raises(ValueError, match=r"has different 1\.weight and 2\.weight, which are one in Sequential"):
        start_from(network(), saved(apart), latent)
