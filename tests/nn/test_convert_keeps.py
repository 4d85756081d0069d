"""What a network was told before its conversion still holds afterwards."""

import copy
import io

import pytest
import torch
from torch import nn

from bnnlight.nn import (
    CP,
    Dense,
    Holistic,
    Matrix,
    Rotated,
    TensorTrain,
    Tucker,
    convert,
    named_binary_layers,
    real_valued,
)


def network(count=4):
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), *(nn.Conv2d(4, 4, 3, padding=1) for _ in range(count - 2)), nn.Conv2d(4, 2, 1)
    )


def step(model):
    """One step of training; the names of the parameters that it moved."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    model.train()(torch.randn(2, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize("scale", ["channel", "spatial"])
@pytest.mark.parametrize("latent", [Dense, Tucker, Holistic])
def test_a_frozen_convolution_stays_frozen(latent, scale):
    model = network(5)
    model[1].requires_grad_(False)
    model[2].bias.requires_grad_(False)
    convert(model, latent, scale, input_shape=(3, 8, 8))
    moved = step(model)
    assert not any(name.startswith("1.") for name in moved)
    rest = {name for name, _ in model.named_parameters() if not name.startswith("1.")}
    assert moved == rest - {"2.conv.bias"}


def test_a_bias_may_train_where_the_weight_is_frozen():
    model = network()
    model[1].weight.requires_grad_(False)
    bias = model[1].bias
    convert(model)
    assert model[1].conv.bias is bias
    assert {name for name in step(model) if name.startswith("1.")} == {"1.conv.bias"}


@pytest.mark.parametrize("latent", [Dense, Tucker, Holistic, CP])
@pytest.mark.parametrize("alias", [False, True])
def test_a_shared_weight_stays_one(latent, alias):
    model = network(6)
    model[2].weight = nn.Parameter(model[1].weight.data) if alias else model[1].weight
    model[3].bias = model[1].bias
    convert(model, latent)
    first, second, third = (model[i].conv for i in (1, 2, 3))
    assert first.latent is second.latent is not third.latent
    assert first.bias is third.bias
    assert first.scale.alpha is not second.scale.alpha
    step(model)
    assert torch.equal(first.binary_weight(), second.binary_weight())
    again = copy.deepcopy(model)
    assert again[1].conv.latent is again[2].conv.latent
    again.load_state_dict(model.state_dict())


def test_shared_weights_stay_shared_in_the_real_twin():
    model = network()
    model[2].weight = model[1].weight
    model[2].weight.requires_grad_(False)
    convert(model)
    real_valued(model)
    assert model[1].conv.weight is model[2].conv.weight
    assert not model[1].conv.weight.requires_grad


HOOKS = {
    "forward": lambda m, f: m.register_forward_hook(lambda *_: f()),
    "forward, named": lambda m, f: m.register_forward_hook(lambda *_: f(), with_kwargs=True),
    "forward, always": lambda m, f: m.register_forward_hook(lambda *_: f(), always_call=True),
    "before forward": lambda m, f: m.register_forward_pre_hook(lambda *_: f()),
    "before forward, named": lambda m, f: m.register_forward_pre_hook(lambda *_: f(), with_kwargs=True),
    "backward": lambda m, f: m.register_full_backward_hook(lambda *_: f()),
    "before backward": lambda m, f: m.register_full_backward_pre_hook(lambda *_: f()),
    "state": lambda m, f: m.register_state_dict_post_hook(lambda *_: f()),
    "before state": lambda m, f: m.register_state_dict_pre_hook(lambda *_: f()),
    "loading": lambda m, f: m.register_load_state_dict_post_hook(lambda *_: f()),
    "before loading": lambda m, f: m.register_load_state_dict_pre_hook(lambda *_: f()),
}


@pytest.mark.parametrize("hang", HOOKS.values(), ids=HOOKS)
def test_hooks_stay_and_can_be_removed(hang):
    model, calls = network(), []
    handle = hang(model[1], lambda: calls.append(1))
    convert(model)
    for change in (lambda: None, lambda: real_valued(model)):
        change()
        calls.clear()
        step(model)
        model.load_state_dict(model.state_dict())
        assert calls == [1]
    handle.remove()
    step(model)
    model.load_state_dict(model.state_dict())
    assert calls == [1]


def test_a_hook_that_changes_the_value_changes_it():
    model = network().eval()
    model[1].register_forward_hook(lambda module, inputs, y: 0 * y)
    convert(model)
    assert (model[1](torch.randn(1, 4, 5, 5)) == 0).all()


def test_hooks_of_a_binary_layer_stay_where_it_is_made_real():
    model, calls = convert(network()), []
    model[1].conv.register_forward_hook(lambda *_: calls.append(1))
    real_valued(model)(torch.randn(1, 3, 5, 5))
    assert calls == [1]


class Aliases(nn.Module):
    """Holds one convolution under several names, also where torch does not look."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)
        self.parts = nn.ModuleDict({"again": self.body})
        self.plain = [self.body]

    def forward(self, x):
        return self.head(self.plain[0](input=self.stem(x)))


def test_a_convolution_is_the_same_object_wherever_it_is_held():
    model = Aliases()
    body = model.body
    convert(model)
    assert model.body is body is model.parts["again"] is model.plain[0]
    assert "body.conv.latent.weight" in step(model)
    assert [name for name, _ in named_binary_layers(model)] == ["body.conv"]
    real_valued(model)
    assert type(model.plain[0].conv) is nn.Conv2d


def test_any_name_may_be_kept():
    with pytest.raises(ValueError, match="no convolution left"):
        convert(Aliases(), keep=("parts.again",))


@pytest.mark.parametrize("latent", [Dense, Tucker])
def test_a_convolution_still_tells_what_it_is(latent):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, (3, 1), 2, "valid", 2, 2), nn.Conv2d(6, 2, 1))
    conv = model[1]
    conv.note = "mine"
    geometry = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    before = {name: getattr(conv, name) for name in (*geometry, "note")}
    weight, bias, names = conv.weight.detach().clone(), conv.bias, set(model.state_dict())
    convert(model, latent)
    assert {name: getattr(conv, name) for name in before} == before
    torch.testing.assert_close(conv.weight.detach(), weight, rtol=1e-5, atol=1e-6)
    assert (conv.weight.dtype, conv.weight.device, conv.bias) == (weight.dtype, weight.device, bias)
    conv.weight.square().sum().backward()  # as a penalty on weights does
    assert all(p.grad is not None for p in conv.conv.latent.parameters())
    # the weight that is read is not a second one that is stored
    assert names - set(model.state_dict()) == {"1.weight", "1.bias"}
    assert not {"1.weight", "1.conv.weight"} & (
        set(model.state_dict()) | {name for name, _ in model.named_parameters()}
    )
    real_valued(model)
    torch.testing.assert_close(conv.weight.detach(), weight, rtol=1e-5, atol=1e-6)


def test_code_that_looks_at_its_layers_runs():
    class Looking(nn.Sequential):
        def forward(self, x):
            for conv in self:
                assert x.shape[1] == conv.in_channels and conv.stride == (1, 1)
                x = conv(x.to(conv.weight.device, conv.weight.dtype))
            return x

    model = convert(Looking(*network()))
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 2, 8, 8)


def test_modes_of_single_layers_are_kept():
    model = network().train()
    model[1].eval()
    convert(model, Tucker)
    modes = {name: module.training for name, module in model.named_modules()}
    assert {name for name, training in modes.items() if not training} == {n for n in modes if n.split(".")[0] == "1"}


@pytest.mark.parametrize("latent", [Dense, Matrix, Tucker, Holistic, CP, TensorTrain, Rotated])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype_is_kept_and_half_precision_decomposed_in_single(dtype, latent):
    model = network().to(dtype)
    weights = {i: model[i].weight.detach().clone() for i in (1, 2)}
    convert(model, latent)
    assert {p.dtype for p in model.parameters()} == {dtype}
    for i, weight in weights.items():
        found = model[i].weight.detach()
        assert found.dtype == dtype
        error = (found.double() - weight.double()).norm() / weight.double().norm()
        assert error < {torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float64: 1e-9}[dtype]
        alpha = weight.double().abs().mean((1, 2, 3))
        torch.testing.assert_close(model[i].conv.scale.alpha.double(), alpha, rtol=2e-2, atol=0)
    y = model(torch.randn(2, 3, 8, 8, dtype=dtype))
    assert y.dtype == dtype and y.isfinite().all()
    y.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_binary_layers_that_are_there_already_are_left_alone():
    model = convert(network(5), keep=("2",))
    with torch.no_grad():
        model[1].conv.scale.alpha.fill_(7)
    latent = model[1].conv.latent
    convert(model, Tucker)
    assert model[1].conv.latent is latent and type(model[2].conv.latent) is Tucker
    assert (model[1].conv.scale.alpha == 7).all()


def test_a_converted_network_is_saved_and_copied_whole():
    model = convert(network(), Tucker).eval()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    x = torch.randn(2, 3, 8, 8)
    for other in (torch.load(file, weights_only=False), copy.deepcopy(model)):
        assert torch.equal(other(x), model(x)) and other[1].stride == (1, 1)


def test_the_network_itself_may_be_a_convolution():
    model = nn.Conv2d(3, 4, 3)
    weight = model.weight.detach().clone()
    assert convert(model, keep_first=False, keep_last=False) is model
    assert torch.equal(model.conv.latent(), weight)
    assert model(torch.randn(2, 3, 5, 5)).shape == (2, 4, 3, 3)
