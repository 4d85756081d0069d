"""Steps that go wrong in known places, against plain torch that does not step there."""

import copy
import math
import re

import lightning
import pytest
import torch
from fixtures.spoiled_network import Backward, Network, Poke, batches, check_equal, network
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from bnnlight.guards.non_finite import NonFinite

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*")


def test_a_picture_with_nan_is_named(stopped):
    line = stopped(network(), batches(nan_at=[(3, 2)]), max_steps=6)
    assert line.startswith(
        "step 4 (epoch 0, batch 3): the loss is nan, where it begins: the batch itself: "
        "batch[0] holds nan in item 2 of 4. The weights are those before this step: "
    )
    assert "lower the learning rate, look at the batch, or pass --non_finite.action skip" in line
    assert line.endswith("There is no checkpoint yet: begin again")


def test_the_first_of_several_pictures_is_named(stopped):
    line = stopped(network(), batches(nan_at=[(1, 3), (1, 1)]), max_steps=6)
    assert "batch[0] holds nan in 2 items, first item 1 of 4" in line


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("stem.weight", math.inf, "the weights of stem hold inf (weight)"),
        ("norm.bias", math.nan, "the weights of norm hold nan (bias)"),
        ("head.bias", -math.inf, "the weights of head hold -inf (bias)"),
        # of a binary layer the path is the layer's, not the latent's
        ("binary.latent.factors.1", math.inf, "the weights of binary hold inf (latent.factors.1)"),
        # finite weights whose products are not: 1e30 times 1e30
        ("stem.weight", 3e38, "the output of stem holds inf"),
    ],
)
def test_a_layer_is_named(stopped, name, value, expected):
    data = batches()
    for images, _ in data:
        images *= 10
    line = stopped(network(), data, None, Poke(name, value, at=2), max_steps=6)
    assert line.startswith("step 3 (epoch 0, batch 2): the loss is ")
    assert f", where it begins: {expected}. The weights are those before this step: " in line


def test_what_a_sign_hides_from_the_loss_is_found_by_the_gradient(stopped):
    class Hiding(Network):
        def forward(self, x):
            return self.head(self.binary(self.norm(self.stem(x))).flatten(1))

    line = stopped(Hiding(), batches(nan_at=[(3, 2)]), max_steps=6)
    assert re.match(
        r"step 4 \(epoch 0, batch 3\): the loss is \d\.\d+, the gradient is not finite, where it begins: "
        r"the batch itself: batch\[0\] holds nan in item 2 of 4\. ",
        line,
    )


def test_what_is_done_between_layers_is_named_by_the_next_layer(stopped):
    class Between(Network):
        def forward(self, x):
            return self.head(self.binary(self.norm(self.stem(x) / 0)).flatten(1))

    line = stopped(Between(), max_steps=6)  # no stem's output is 0, so that there is no 0 / 0
    assert "where it begins: the input of norm holds inf. " in line


def test_a_loss_by_itself(stopped):
    line = stopped(network(spoil={4: lambda _, loss: loss + math.inf}), max_steps=6)
    assert line.startswith(
        "step 5 (epoch 0, batch 4): the loss is inf, where it begins: the loss itself, "
        "as the outputs of all layers are finite. The weights"
    )


def test_targets_that_are_not_finite_are_named_with_the_loss(stopped):
    class Regression(Network):
        def training_step(self, batch, batch_idx):
            return (self(batch["x"]).sum(1) - batch["y"]).square().mean()

    made = [{"x": images, "y": labels.float()} for images, labels in batches()]
    made[1]["y"][3] = math.nan
    line = stopped(Regression(), DataLoader(made, batch_size=None), max_steps=6)
    assert "the loss itself, as the outputs of all layers are finite, batch['y'] holds nan in item 3 of 4" in line


def test_a_gradient_with_a_finite_loss(stopped):
    class Through(Network):
        def forward(self, x):
            return self.head(Backward.apply(self.binary(self.norm(self.stem(x)))).flatten(1))

    line = stopped(Through(), max_steps=6)
    assert re.match(r"step 1 \(epoch 0, batch 0\): the loss is [\d.]+, the gradient is not finite, ", line)
    # the head's is finite; from there back, and of those no more than three names
    num_bad = sum(1 for name, _ in Through().named_parameters() if not name.startswith("head"))
    listed = line.split("closest to the output first: ")[1].split(". The weights")[0]
    names = re.split(", | and ", listed)
    assert [name.split(".")[0] for name in names[:3]] == ["binary"] * 3
    assert names[3] == f"{num_bad - 3} more"


def test_gradients_are_listed_in_the_order_of_the_calls(stopped):
    class Swapped(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(32, 3, bias=False), nn.Linear(32, 32, bias=False)

        def training_step(self, batch):
            return Backward.apply(self.last(self.first(batch[0].flatten(1)))).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters())

    assert "closest to the output first: last.weight, first.weight. " in stopped(Swapped(), max_steps=6)


def test_an_accumulated_step_names_its_batch(stopped):
    model = network()
    start = copy.deepcopy(model.state_dict())
    line = stopped(model, batches(nan_at=[(4, 0)]), accumulate_grad_batches=3, max_steps=6)
    assert line.startswith("step 2 (epoch 0, batch 4): the loss is nan, where it begins: the batch itself: batch[0] ")
    assert not torch.equal(model.stem.weight, start["stem.weight"])


def test_the_loss_of_an_accumulated_step_is_that_of_the_batch(stopped):
    line = stopped(network(spoil={1: lambda _, loss: Backward.apply(0 * loss + 7)}), accumulate_grad_batches=2)
    assert line.startswith("step 1 (epoch 0, batches 0 to 1): the loss is ")
    assert ", 7, the gradient is not finite" in line


def test_weights_are_those_of_a_run_that_ended_before(fit, stopped):
    ended = network(optimizer="adamw")
    fit(network=ended, data=batches(), max_steps=3)
    model = network(optimizer="adamw")
    stopped(model, batches(nan_at=[(3, 2)]), max_steps=6)
    for (name, value), other in zip(model.named_parameters(), ended.parameters(), strict=True):
        assert torch.equal(value, other), name


def test_finite_gradients_of_any_size_are_good(fit):
    # their squares overflow
    model = network(spoil={1: lambda model, loss: loss + 1e30 * model.head.bias[0]})
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=1e-30)
    trainer, _, _ = fit(NonFinite(), network=model, data=batches(), max_steps=6)
    assert trainer.global_step == 6


def test_looking_changes_nothing(fit):
    models = [network(), network()]
    for model, guards in zip(models, ([], [NonFinite(action="skip")]), strict=True):
        _, logged, _ = fit(*guards, network=model, data=batches(), max_steps=6)
    check_equal(models[0].state_dict(), models[1].state_dict())
    assert not any("train/skipped_batches" in row for row in logged.values())


class Waits(TorchDispatchMode):
    """Counts how often a number is asked of the device."""

    num = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("action", ["stop", "skip"])
def test_a_good_step_waits_for_the_device_once(fit, action):
    guard, waits = NonFinite(action), Waits()

    def counted(hook):
        def call(*args):
            with waits:
                hook(*args)

        return call

    for name in ("on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end"):
        setattr(guard, name, counted(getattr(guard, name)))
    fit(guard, network=network(), data=batches(), accumulate_grad_batches=2, max_steps=3)
    assert waits.num == 3
