"""What the code of a network may do, and what of it cannot be followed."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import StochasticDepth

from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.nn import BinaryConv2d, BinaryLinear, sign
from bnnlight.nn.compute.sync_norm import synchronize

SHAPE = (4, 6, 6)


class Net(nn.Module):
    """A convolution, a binary one and what is in between, given as a function of (network, value)."""

    def __init__(self, between, channels=4):
        super().__init__()
        self.between = between
        self.first = nn.Conv2d(4, channels, 3, padding=1)
        self.second = BinaryConv2d(channels, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.inplace = nn.ReLU(inplace=True)
        self.gain = nn.Parameter(torch.randn(1, channels, 1, 1))
        self.move = nn.Parameter(torch.randn(channels))
        self.register_buffer("mean", torch.randn(channels, 1, 1))
        self.number = nn.Parameter(torch.tensor(0.3))
        self.shuffle, self.depth, self.largest = (
            nn.ChannelShuffle(2),
            StochasticDepth(0.5, "row"),
            nn.AdaptiveMaxPool2d(4),
        )

    def forward(self, x):
        return self.second(self.between(self, self.first(x)))


def wide(net, x):
    return torch.cat((x, net.first(x)), 1)


def aliased(net, x):
    y = x
    y += 1
    return x + y * 2


def overwritten_by_a_layer(net, x):
    z = net.norm(x)
    return net.inplace(z) + z


def overwritten_twice(net, x):
    z = x * 2
    a = z.add_(0.5)
    b = z.mul_(3)
    return a + b + z


def shuffled(net, x, groups=2):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def halves_exchanged(net, x):
    a, b = x.chunk(2, dim=1)
    return torch.cat((b, a * 2), 1)


def scaled_in_place(net, x):
    y = x
    y *= x.mean((2, 3), keepdim=True).sigmoid()
    return x + y


def decided_by_numbers_of_the_network(net, x):
    return x + 1 if net.number > 0 and net.gain.shape[1] == 4 else x - 1


def decided_by_shape(net, x, flag=True):
    for _ in range(x.shape[1] // 2):
        x = x + 0.25
    x = F.interpolate(x, size=(x.size(2) * 2, x.shape[-1] * 2)) if x.dim() == 4 and len(x.shape) == 4 else x.relu()
    return x if flag and x.dtype == torch.float32 and x.device.type == "cpu" and not x.is_cuda else -x


WAYS = {
    "parameter as factor": lambda net, x: x * net.gain,
    "shifted sign": lambda net, x: x + net.move.view(1, -1, 1, 1),
    "number first": lambda net, x: 0.1 - net.mean * x,
    "number of the network": lambda net, x: x * net.number - net.number,
    "computed constant": lambda net, x: x * net.gain.abs().mean() + torch.ones(1) * 0.5,
    "division": lambda net, x: (x - net.mean) / net.gain.abs(),
    "negative": lambda net, x: -x,
    "difference": lambda net, x: net.norm(x) - x,
    "torch functions": lambda net, x: torch.add(torch.mul(x, 2), torch.sub(x, net.mean)),
    "in place": aliased,
    "in place, by a layer": overwritten_by_a_layer,
    "in place, twice": overwritten_twice,
    "in place, a function": lambda net, x: F.relu(x, inplace=True) + x,
    "in place, without": lambda net, x: F.relu(x) + x,
    "in place, of a copy": lambda net, x: x.clone().mul_(3) + x,
    "in place, through a flat view": lambda net, x: (x.view(x.shape).sub_(1), x)[1],
    "numbers of the network": decided_by_numbers_of_the_network,
    "shape": decided_by_shape,
    "same layer twice": lambda net, x: net.norm(net.first(net.norm(x))),
    "activations": lambda net, x: F.hardtanh(F.leaky_relu(F.prelu(F.relu6(x) - 1, net.move.abs()), 0.2), -0.3, 0.4),
    "bounds": lambda net, x: x.clamp(min=-0.5).clamp(max=0.5) + torch.clamp(x, -0.1, 0.2),
    "pools": lambda net, x: F.max_pool2d(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) + net.mean, 2, 1),
    "mean": lambda net, x: x.mean((2, 3), keepdim=True) + torch.mean(x, dim=[-1, -2], keepdim=True),
    "adaptive": lambda net, x: F.adaptive_avg_pool2d(F.adaptive_avg_pool2d(x, 6), (3, None)),
    "dropout": lambda net, x: F.dropout(nn.Dropout2d(0.7).eval()(x) if False else x, 0.5, net.training),
    "functions with the network's weights": lambda net, x: F.conv2d(x, net.first.weight * 2, net.first.bias, padding=1),
    "batch norm as a function": lambda net, x: F.batch_norm(x, net.norm.running_mean, net.norm.running_var, net.move),
    "sign as a function": lambda net, x: sign(x) * net.gain + x,
    "sign by hand": lambda net, x: torch.where(x >= 0.1, 1.0, -0.5) + (x >= net.mean).float() + x,
    "product": lambda net, x: x * net.norm(x),
    "product for each channel": lambda net, x: F.hardsigmoid(x.mean((2, 3), True)).mul(x) - x,
    "product for each pixel": lambda net, x: torch.mul(x[:, 1:2], x),
    "product in place": scaled_in_place,
    "square": lambda net, x: x * x - 0.3,
    "halves": halves_exchanged,
    "parts of any size": lambda net, x: torch.cat((torch.split(x, [1, 3], 1)[-1], x.split(1, 1)[2]), dim=1),
    "some channels": lambda net, x: torch.cat((x[:, :2] + x[:, 2:4, :, :], x[:, -2:, ...]), 1),
    "all channels": lambda net, x: x[:, :9] - x[:, -4:] * 0.5,
    "shuffle": shuffled,
    "shuffle of four": lambda net, x: shuffled(net, x, 4) + net.mean,
    "shuffle of torch": lambda net, x: net.shuffle(x) * 2 - torch.channel_shuffle(x, 4),
    "smooth activations": lambda net, x: F.silu(x) + F.gelu(x) - F.gelu(x, approximate="tanh") * 0.5,
    "hard activations": lambda net, x: F.hardswish(x * 3) - F.hardsigmoid(x),
    "activations in place": lambda net, x: F.silu(F.hardswish(x * 2, inplace=True), True) - 0.1,
    "adaptive, upward": lambda net, x: F.adaptive_avg_pool2d(x, (12, 18)) * 2,
    "adaptive, any size": lambda net, x: F.adaptive_avg_pool2d(x, (4, 9)) - F.adaptive_avg_pool2d(x, (4, 9)).relu(),
    "stochastic depth": lambda net, x: net.depth(x) - net.depth(x * 2),
    "no change": lambda net, x: x.contiguous().detach().to(torch.float32),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_code_that_can_be_followed(way, randomized, check_frozen):
    model = randomized(Net(way))
    x = torch.randn(3, *SHAPE)
    if way is overwritten_by_a_layer:
        # otherwise the test would not see the difference
        assert not torch.equal(model.norm(x).relu() + model.norm(x), model.between(model, x))
    check_frozen(model, freeze(model, SHAPE), x)


def test_pool_to_the_size_that_is_there_is_nothing():
    program = freeze(Net(lambda net, x: F.adaptive_avg_pool2d(x, (6, None))).eval(), SHAPE)
    assert [step.op for step in program.steps] == ["conv2d", "binarize", "binary_conv2d", "affine"]


def test_joined_channels(randomized, check_frozen):
    model = randomized(Net(wide))
    model.second = BinaryConv2d(8, 3, 1)
    check_frozen(model, freeze(model, SHAPE), torch.randn(2, *SHAPE))


FLAT = {
    "flatten": lambda x: torch.flatten(x, 1),
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: x.reshape(-1, 4),
    "mean": lambda x: x.mean((2, 3)),
    "index": lambda x: x[:, :, 0, 0],
    "named": lambda x: torch.flatten(input=x, start_dim=1),
}


@pytest.mark.parametrize("flat", FLAT.values(), ids=FLAT)
def test_ways_to_make_rows(flat, randomized, check_frozen):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.linear = nn.AdaptiveAvgPool2d((1, 1)), BinaryLinear(4, 2)

        def forward(self, x):
            return self.linear(x=flat(self.pool(x)))

    model = randomized(Head())
    check_frozen(model, freeze(model, SHAPE), torch.randn(3, *SHAPE))


def test_maps_stacked_and_one_alone(randomized):
    class Maps(nn.Module):
        def __init__(self, count):
            super().__init__()
            self.heads = nn.ModuleList(nn.Conv2d(4, 3, 1) for _ in range(count))

        def forward(self, x):
            maps = [head(x) for head in self.heads]
            return torch.stack(maps, dim=1) if len(maps) > 1 else maps[0].unsqueeze(1)

    for count in (1, 3):
        model = Maps(count).eval()
        x = torch.randn(2, *SHAPE)
        torch.testing.assert_close(FrozenNetwork(freeze(model, SHAPE))(x), model(x).detach())


class Scaled(nn.Conv2d):
    """Computes something else than what its base does."""

    def forward(self, x):
        return super().forward(x) * 3


class Standardized(nn.Conv2d):
    """Makes its weight anew each time."""

    def forward(self, x):
        weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std()
        return self._conv_forward(x, weight, self.bias)


class Silent(nn.Conv2d):
    """Changes what its base calls."""

    def _conv_forward(self, x, weight, bias):
        return F.conv2d(x, weight.abs(), bias, self.stride, self.padding)


class Doubled(BinaryConv2d):
    """A binary layer with a forward of its own."""

    def forward(self, x):
        return super().forward(x - 0.2) * 2


class Weighted(BinaryConv2d):
    """A binary layer that looks at its latent weight, not at the signs alone."""

    def forward(self, x):
        return super().forward(x) * self.latent().abs().max()


@pytest.mark.parametrize("kind", [Scaled, Standardized, Silent, Doubled, Weighted])
def test_subclasses_are_what_their_own_code_computes(kind, randomized, check_frozen):
    model = nn.Sequential(kind(4, 5, 3, padding=1), nn.BatchNorm2d(5), BinaryConv2d(5, 2, 1))
    randomized(model)
    program = freeze(model, SHAPE)
    if not issubclass(kind, BinaryConv2d):
        return check_frozen(model, program, torch.randn(2, *SHAPE))
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(FrozenNetwork(program)(x), model(x).detach())
    # its weights are bits, as those of any binary layer
    assert program.num_binary == 5 * 4 * 9 + 2 * 5
    assert {"conv2d", "linear"}.isdisjoint(step.op for step in program.steps)


def test_synchronized_batch_norm(randomized, check_frozen):
    model = synchronize(randomized(nn.Sequential(nn.BatchNorm2d(4), BinaryConv2d(4, 2, 1), nn.BatchNorm2d(2)))).eval()
    check_frozen(model, freeze(model, SHAPE), torch.randn(2, *SHAPE))


def test_options_of_forward_are_at_their_defaults():
    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = BinaryConv2d(4, 2, 1)

        def forward(self, x, scale=None, *rest, flip=False, **more):
            y = self.conv(x)
            return y if scale is None and not flip and not rest and not more else -y

    model = Optional().eval()
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(FrozenNetwork(freeze(model, SHAPE))(x), model(x).detach())


def test_what_leads_nowhere_is_no_obstacle():
    def between(net, x):
        x.softmax(1)
        return x

    x = torch.randn(1, *SHAPE)
    model = Net(between).eval()
    torch.testing.assert_close(FrozenNetwork(freeze(model, SHAPE))(x), model(x).detach())


def test_network_without_parameters():
    x = torch.randn(2, *SHAPE)
    assert torch.equal(FrozenNetwork(freeze(nn.Sequential(nn.MaxPool2d(2)), SHAPE))(x), F.max_pool2d(x, 2))


def by_value(net, x):
    return x if x.mean() > 0 else -x


def viewed(net, x):
    flat = x.flatten(1)
    flat.relu_()
    return x


CANNOT = {
    "decides by values": (by_value, "decides by what is in the picture"),
    "takes a value out": (lambda net, x: x * x.max().item(), "function item"),
    "softmax": (lambda net, x: x.softmax(1), "function softmax", "there is no operation"),
    "product of other ranks": (lambda net, x: (x.unsqueeze(1) * x)[:, 0], "function mul", "(1, 4, 6, 6) and (4, 6, 6)"),
    "rows in parts": (lambda net, x: x.chunk(2, 2)[0], "function chunk", "axis 2"),
    "every second channel": (lambda net, x: torch.cat((x[:, ::2], x[:, ::2]), 1), "function getitem", "side by side"),
    "pixels behind an ellipsis": (lambda net, x: x[:, ..., 2:4], "function getitem", "side by side"),
    "no channels": (lambda net, x: torch.cat((x, x[:, 4:]), 1), "function getitem", "no channels"),
    "picture turned": (lambda net, x: x.transpose(2, 3), "function transpose", "within a shuffle"),
    "half a shuffle": (lambda net, x: x.view(1, 2, 2, 6, 6).relu().flatten(1, 2), "function relu", "in groups"),
    "a shuffle without its turn": (lambda net, x: x.view(1, 2, 2, 6, 6).view(1, 4, 6, 6), "whole shuffle"),
    "a shuffle that ends elsewhere": (
        lambda net, x: x.view(1, 2, 2, 6, 6).transpose(1, 2).reshape(1, 2, 12, 6).view(1, 4, 6, 6),
        "from shape (2, 2, 6, 6) to (2, 12, 6)",
    ),
    "stochastic depth in eval mode": (lambda net, x: net.depth.train()(x), "drops in eval mode"),
    "largest of windows of any size": (lambda net, x: net.largest(x), "[6, 6] px to [4, 4] px"),
    "more pixels than a pool may have": (lambda net, x: F.adaptive_avg_pool2d(x, 259), "up to 256 px"),
    "quotient": (lambda net, x: 1 / x, "function truediv", "depends on the picture"),
    "options": (lambda net, x: torch.add(x, x, alpha=2), "function add", "options"),
    "options of a difference": (lambda net, x: torch.sub(x, 1, alpha=2), "function sub", "options"),
    "options of a product": (lambda net, x: torch.div(x, 2, rounding_mode="floor"), "options"),
    "broadcast": (lambda net, x: x + x.mean((2, 3), keepdim=True), "function add", "(4, 6, 6) and (4, 1, 1)"),
    "grown": (lambda net, x: x.mean((2, 3), keepdim=True) + torch.ones(1, 4, 6, 6), "makes shape (4, 6, 6)"),
    "not one number a channel": (lambda net, x: x + torch.arange(6.0), "one number a channel"),
    "strict comparison": (lambda net, x: (x > 0).float(), "function gt"),
    "comparison as a number": (lambda net, x: (x >= 0) * 2.0, "torch.bool"),
    "another type": (lambda net, x: x.double().float(), "torch.float64"),
    "other picture's values": (lambda net, x: x.flip(1), "function flip"),
    "part": (lambda net, x: x[:, :, 1:], "function getitem"),
    "channels in another order": (lambda net, x: x.mean((2, 3), True)[:, [3, 2, 1, 0]], "function getitem"),
    "another shape": (lambda net, x: x.view(1, 4, 36, 1), "from shape (4, 6, 6) to (4, 36, 1)"),
    "one channel": (lambda net, x: x + x.mean((2, 3), True)[:, 0, :, 0], "from shape (4, 1, 1) to (1,)"),
    "pixels joined": (lambda net, x: torch.cat((x, x), 2), "axis 2"),
    "dropout in eval mode": (lambda net, x: F.dropout(x, 0.5), "drops in eval mode"),
    "pool's indices": (lambda net, x: F.max_pool2d(x, 2, return_indices=True)[0], "max_pool2d_with_indices"),
    "interpolation": (lambda net, x: F.interpolate(x, scale_factor=2, mode="bilinear"), "bilinear"),
    "no whole factor": (lambda net, x: F.interpolate(x, size=(9, 9)), "whole factors"),
    "factor that torch rounds": (lambda net, x: F.interpolate(x, scale_factor=41), "41"),
    "mean over channels": (lambda net, x: x + x.mean(1, keepdim=True), "height and width"),
    "view overwritten": (viewed, "changed in place"),
    "part overwritten": (lambda net, x: x.__setitem__(0, 1.0), "TypeError"),
    "training mode in a function": (
        lambda net, x: F.batch_norm(x, net.norm.running_mean, net.norm.running_var, training=True),
        "training mode",
    ),
    "does not fit": (lambda net, x: net.second(x), "RuntimeError"),
    "weight from the picture": (lambda net, x: F.conv2d(x, x.mean((2, 3), True).expand(4, 4, 1, 1)), "weights depend"),
    "two lines": (lambda net, x: exec("raise KeyError('first\\nsecond')"), "KeyError"),
}


@pytest.mark.parametrize("way", CANNOT.values(), ids=CANNOT)
def test_code_that_cannot_be_followed(way, check_one_line):
    code, *parts = way
    with pytest.raises(ValueError) as error:
        freeze(Net(code).eval(), SHAPE)
    check_one_line(error, *parts)


def output_of(make, check_one_line, *parts):
    class Output(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return make(self.conv(x), x)

    with pytest.raises(ValueError) as error:
        freeze(Output(), SHAPE)
    check_one_line(error, *parts)


def test_outputs_that_cannot_be_shipped(check_one_line):
    output_of(lambda y, x: (y, y), check_one_line, "returns several values")
    output_of(lambda y, x: {"y": y}, check_one_line, "returns several values")
    output_of(lambda y, x: x, check_one_line, "does nothing with its input")
    output_of(lambda y, x: torch.ones(3), check_one_line, "output")
    output_of(lambda y, x: y >= 0, check_one_line, "torch.bool")
    output_of(lambda y, x: y.to(torch.float64), check_one_line, "torch.float64")
    output_of(lambda y, x: nn.MaxPool2d(2, return_indices=True)(y), check_one_line, "cannot be followed")
    with pytest.raises(ValueError) as error:
        freeze(nn.Sequential(nn.MaxPool2d(2, return_indices=True)), SHAPE)
    check_one_line(error, "no single tensor")


def test_inputs_that_cannot_be_given(check_one_line):
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    class Named(nn.Module):
        def forward(self, batch):
            return batch["image"] + 1

    for model, part in ((Two(), "argument: 'y'"), (Named(), "a dictionary with 'image'")):
        with pytest.raises(ValueError) as error:
            freeze(model, SHAPE)
        check_one_line(error, part, "4×6×6")


def test_every_kind_of_layer_that_cannot_be_shipped_is_named_once(check_one_line):
    class Foreign(nn.Module):
        def forward(self, x):
            return x.cos()

    layers = [m for _ in range(8) for m in (nn.Conv2d(4, 4, 1), nn.Softsign())]
    model = nn.Sequential(*layers, nn.Sequential(nn.Mish(), Foreign()), nn.Conv2d(4, 4, 3, padding_mode="reflect"))
    with pytest.raises(ValueError) as error:
        freeze(model, SHAPE)
    softsigns, mish = "layers 1, 3, 5 and 5 more (Softsign)", "layer 16.0 (Mish)"
    nothing = f"{softsigns}, {mish}, function cos in layer 16.1: there is no operation for it"
    reflected = "layer 17 (Conv2d): padding_mode 'reflect': only zeros can be shipped"
    assert str(error.value) == f"cannot be shipped: {nothing}; {reflected}"
    # all of them are there for a program
    assert error.value.wrong["there is no operation for it", "layer Softsign"] == tuple(map(str, range(1, 16, 2)))


def test_a_refusal_stays_readable_however_much_is_wrong():
    class Folded(nn.Module):
        def forward(self, x):
            return x.view(1, x.shape[1], -1, 1).view(x.shape)

    strange = [nn.Softsign, nn.Mish, nn.Softplus, nn.LogSigmoid, nn.Hardshrink]
    layers = [m for n in range(3, 40) for m in (nn.Conv2d(n, n + 1, 1), strange[n % 5](), Folded())]
    others = [nn.BatchNorm2d(40, track_running_stats=False), nn.Conv2d(40, 4, 3, padding_mode="reflect")]
    with pytest.raises(ValueError) as error:
        freeze(nn.Sequential(*layers, *others, nn.AdaptiveMaxPool2d(7)), (3, 8, 8))
    message = str(error.value)
    assert "layers 7, 22, 37 and 4 more (Softsign) and 2 more: there is no operation for it; " in message
    # reasons that differ in numbers are one
    assert message.count("from shape") == 1 and "for the first, from shape (4, 8, 8) to (4, 64, 1): " in message
    assert message.endswith("; and 2 more reasons") and len(message) < 500


def test_layers_that_do_not_obey_eval_mode(check_one_line):
    class Stubborn(nn.Dropout):
        def train(self, mode=True):
            return super().train(True)

    class Frozen(nn.Sequential):
        def train(self, mode=True):
            return self

    with pytest.raises(ValueError) as error:
        freeze(nn.Sequential(Stubborn()), SHAPE)
    check_one_line(error, "cannot be shipped")
    with pytest.raises(ValueError) as error:
        freeze(Frozen(nn.BatchNorm2d(4)), SHAPE)
    check_one_line(error, "layer 0", "training mode")


def test_hooks_are_not_lost_unsaid(check_one_line):
    model = nn.Sequential(nn.Conv2d(4, 2, 1))
    model[0].register_forward_hook(lambda module, inputs, y: y * 2)
    with pytest.raises(ValueError) as error:
        freeze(model, SHAPE)
    check_one_line(error, "layer 0", "hooks")


def test_random_numbers_are_not_taken_for_constants(check_one_line):
    model = Net(lambda net, x: x + torch.randn(1)).eval()
    state = torch.get_rng_state()
    with pytest.raises(ValueError) as error:
        freeze(model, SHAPE)
    check_one_line(error, "Net", "random numbers")
    assert torch.equal(torch.get_rng_state(), state)


def test_batch_norm_without_statistics(check_one_line):
    with pytest.raises(ValueError) as error:
        freeze(nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False)), SHAPE)
    check_one_line(error, "layer 0", "running statistics")
