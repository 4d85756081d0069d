import pytest
import torch

from bnnlight.callbacks import FreezeSigns, Turn
from bnnlight.nn import BinaryConv2d, BiRotated, Standardized

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


@pytest.fixture
def turned(network):
    """The small network with two layers whose weights are turned."""

    def make():
        torch.manual_seed(1)
        model = network()
        for i in (1, 2):
            model.body[i] = BinaryConv2d(6, 6, 3, padding=1, weight_parts=[Standardized, BiRotated])
        return model

    return make


def lefts(copies):
    return {step: layers["body.1"].weight_parts[1].left.clone() for step, layers in copies.items()}


@pytest.mark.parametrize("every", [1, 2])
def test_turns_as_an_epoch_begins_and_not_within_one(fit, turned, every):
    # three steps an epoch, of which the last but one is seen before the next epoch's start
    _, _, copies = fit(Turn(every=every), network=turned(), max_steps=12, limit_train_batches=3)
    found = lefts(copies)
    assert torch.equal(found[0], torch.eye(6, dtype=torch.float64))
    changed = [step for step in range(1, 13) if not torch.equal(found[step], found[step - 1])]
    assert changed == [1 + 3 * epoch for epoch in range(0, 4, every)]


def test_is_what_the_part_does_by_itself(fit, turned):
    model, other = turned(), turned()
    other.load_state_dict(model.state_dict())
    fit(Turn(sweeps=2), network=model, max_steps=1, limit_train_batches=1)
    for layer in (other.body[1], other.body[2]):
        standardized, rotated = layer.weight_parts
        rotated.renew(standardized(layer.weight).detach(), 2)
    for i in (1, 2):
        for mine, its in zip(other.body[i].weight_parts.buffers(), model.body[i].weight_parts.buffers(), strict=True):
            torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("option", ["every", "sweeps"])
def test_wrong_options(option):
    with pytest.raises(ValueError, match=f"Turn: {option} is 0: give at least 1"):
        Turn(**{option: 0})


def test_needs_weights_that_are_turned(fit):
    with pytest.raises(ValueError, match=r"Turn: no layer has weights that are turned: add bnnlight.nn.BiRotated"):
        fit(Turn(), max_steps=1)


def test_turns_nothing_once_signs_are_frozen(fit, turned):
    callbacks = (Turn(), FreezeSigns(epoch=2))
    _, _, copies = fit(*callbacks, network=turned(), max_steps=12, limit_train_batches=3)
    signs = {step: [layers[f"body.{i}"].binary_weight() for i in (1, 2)] for step, layers in copies.items()}
    angles = {step: layers["body.1"].weight_parts[1].angle.clone() for step, layers in copies.items()}
    moved = [step for step in range(1, 13) if any(map(lambda a, b: (a != b).any(), signs[step], signs[step - 1]))]
    assert moved and max(moved) <= 6 and not torch.equal(angles[0], angles[6])
    assert all(torch.equal(angles[step], angles[6]) for step in range(6, 13))
