"""Steps that are not finite, left out: as if the optimizer had not been called; and under a loss scale."""

import math
import re

import pytest
import torch
from fixtures.spoiled_network import Backward, batches, by_hand, check_equal, network
from lightning.pytorch.plugins import MixedPrecision

from bnnlight.guards.non_finite import NonFinite

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "fused"])
def test_a_skipped_step_is_one_the_optimizer_was_not_called_at(fit, optimizer):
    model = network(optimizer=optimizer)
    trainer, logged, _ = fit(
        NonFinite(action="skip"), network=model, data=batches(nan_at=[(2, 1), (4, 0)]), max_steps=6
    )
    expected, accuracy = by_hand(network(optimizer=optimizer), batches(), skipped={2, 4})
    # the pictures that differ are in no batch that counts
    check_equal(model.state_dict(), expected)
    assert trainer.global_step == 6
    assert trainer.callback_metrics["train/acc"] == pytest.approx(accuracy)
    found = {step: row["train/skipped_batches"] for step, row in logged.items() if "train/skipped_batches" in row}
    assert found == {3: 1, 5: 2}


def test_an_accumulated_step_is_skipped_as_a_whole(fit):
    model = network(optimizer="adamw")
    _, logged, _ = fit(
        NonFinite(action="skip"),
        network=model,
        data=batches(9, nan_at=[(4, 1)]),
        accumulate_grad_batches=3,
        max_steps=3,
    )
    check_equal(model.state_dict(), by_hand(network(optimizer="adamw"), batches(9), {1}, accumulate=3)[0])
    assert logged[2]["train/skipped_batches"] == 3


def test_a_first_batch_is_skipped_too(fit):
    model = network()
    trainer, _, _ = fit(NonFinite(action="skip"), network=model, data=batches(nan_at=[(0, 0)]), max_steps=6)
    expected, accuracy = by_hand(network(), batches(), skipped={0})
    check_equal(model.state_dict(), expected)
    assert trainer.callback_metrics["train/acc"] == pytest.approx(accuracy)


def test_a_gradient_alone_skips_as_well(fit, capsys):
    model = network(spoil={2: lambda _, loss: Backward.apply(loss)})
    fit(NonFinite(action="skip"), network=model, data=batches(), max_steps=6)
    check_equal(model.state_dict(), by_hand(network(), batches(), skipped={2})[0])
    assert re.search(
        r"batch 2\): the loss is [\d.]+, the gradient is not finite: head.bias, head.weight", capsys.readouterr().err
    )


def test_a_line_for_each_of_the_first_few(fit, capsys):
    fit(NonFinite(action="skip"), network=network(), data=batches(9, nan_at=[(i, 1) for i in range(8)]), max_steps=9)
    lines = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert len(lines) == 5
    assert lines[1] == (
        "bnnlight: step 2 (epoch 0, batch 1): the loss is nan, batch[0] holds nan in item 1 of 4. The step is skipped"
    )
    assert lines[4].endswith("The step is skipped; more are only counted, in train/skipped_batches")


def test_too_many_in_a_row_stop_the_run(stopped):
    guard = NonFinite(action="skip", max_skipped_in_a_row=2)
    # two, then a good one, then three
    model = network()
    line = stopped(model, batches(9, nan_at=[(i, 3) for i in (1, 2, 4, 5, 6)]), guard, max_steps=9)
    assert line.startswith("step 7 (epoch 0, batch 6): the loss is nan, where it begins: the batch itself: batch[0] ")
    assert "The 2 steps before it were skipped: lower the learning rate, look at the batch. " in line
    # up to the third step of the row all is as by hand, buffers too
    made = list(batches(9))[:7]
    check_equal(model.state_dict(), by_hand(network(), made, skipped={1, 2, 4, 5, 6})[0])


def test_the_count_goes_on_in_a_resumed_run(fit, tmp_path):
    data = batches(nan_at=[(1, 0), (2, 0), (3, 0)])
    trainer, _, _ = fit(NonFinite(action="skip"), network=network(), data=data, max_steps=3)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    guard = NonFinite(action="skip", max_skipped_in_a_row=3)
    data = batches(nan_at=[(i, 0) for i in range(6)])
    _, logged, _ = fit(guard, network=network(), data=data, ckpt_path=tmp_path / "half.ckpt", max_steps=4)
    assert logged[4]["train/skipped_batches"] == 3
    assert (guard.num_skipped, guard.num_in_a_row) == (3, 3)


@pytest.fixture
def scaled(fit):
    """Train in fp16 with a loss scale, on a CPU; return the network, the scaler and what was logged."""

    def run(spoil, optimizer="sgd", **options):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        model = network(spoil=spoil, optimizer=optimizer)
        plugin = MixedPrecision("16-mixed", "cpu", scaler)
        _, logged, _ = fit(
            NonFinite(**options), network=model, data=batches(), plugins=[plugin], max_steps=6, num_sanity_val_steps=0
        )
        return model, scaler, logged

    return run


def test_gradients_that_overflow_are_the_scalers_own_matter(scaled):
    model, scaler, logged = scaled({2: lambda _, loss: Backward.apply(loss)}, action="stop")
    assert scaler.get_scale() == 512
    assert model.norm.num_batches_tracked == 6
    assert not any("train/skipped_batches" in row for row in logged.values())


@pytest.mark.parametrize("optimizer", ["sgd", "fused"])
def test_a_loss_under_a_scaler_still_counts(scaled, optimizer):
    # the gradient is finite: the scaler alone would have stepped
    at = {}

    def spoil(model, loss):
        at["before"] = [p.detach().clone() for p in model.parameters()]
        return loss + math.inf

    def keep(model, loss):
        at["after"] = [p.detach().clone() for p in model.parameters()]
        return loss

    model, _, logged = scaled({2: spoil, 3: keep}, optimizer, action="skip")
    assert all(torch.equal(a, b) for a, b in zip(at["before"], at["after"], strict=True))
    assert logged[3]["train/skipped_batches"] == 1
    assert model.norm.num_batches_tracked == 5
    assert all(parameter.isfinite().all() for parameter in model.parameters())
