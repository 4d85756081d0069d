import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.free_port import free_port
from fixtures.processes import run_to_end
from torch import nn
from torch.utils.data import DataLoader

from bnnlight.callbacks import Activations
from bnnlight.nn import BinaryConv2d, BinaryLinear, named_binary_layers

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


def seeing(network):
    """The network, keeping the inputs of its binary layers in training; ``seen`` is step → path → list of arrays."""
    network.seen = {}
    for name, layer in named_binary_layers(network):

        def keep(module, inputs, name=name):
            if network.training:
                step = network.trainer.global_step + 1
                network.seen.setdefault(step, {}).setdefault(name, []).append(inputs[0].detach().numpy().copy())

        layer.register_forward_pre_hook(keep)
    return network


def shares(inputs, channel_dim):
    """The three shares, from all inputs of a layer laid side by side."""
    rows = [np.moveaxis(x, channel_dim, 0).reshape(x.shape[channel_dim], -1) for x in inputs]
    together = np.concatenate(rows, 1)
    return {
        "positive": np.mean(together >= 0),
        "dead": np.mean([len(set(np.where(row >= 0, 1, -1))) == 1 for row in together]),
        "cut": np.mean(np.abs(together) > 1),
    }


def expected(seen, linear=("head",)):
    return {
        f"bnn/{key}/{path}": pytest.approx(share, rel=1e-12)
        for path, inputs in seen.items()
        for key, share in shares(inputs, -1 if path in linear else 1).items()
    }


def num_hooks(model):
    return [len(layer._forward_pre_hooks) for _, layer in named_binary_layers(model)]


def test_shares_of_every_layer_equal_a_count_over_its_inputs(fit, network):
    model = seeing(network())
    _, logged, _ = fit(Activations(interval=3), network=model, max_steps=10)
    assert sorted(logged) == [3, 6, 9]
    for step in logged:
        assert logged[step] == expected(model.seen[step])
        assert len(logged[step]) == 3 * 4
    values = {value for step in logged.values() for value in step.values()}
    assert len(values) > 12  # no constants, which would be the same by accident


def test_zero_is_positive_and_one_is_not_cut(fit, network):
    model = network()
    model.body, model.head = nn.Flatten(), BinaryLinear(4, 3)
    inputs = torch.tensor([[-0.0, 1.0, -1.0, -2.0], [0.0, -1.5, 0.5, -0.5]])
    data = DataLoader([(inputs, torch.tensor([0, 1]))], batch_size=None)
    _, logged, _ = fit(Activations(interval=1), network=model, max_steps=1, data=data)
    # the first feature is +1 twice, the last -1 twice
    assert logged[1] == {"bnn/positive/head": 4 / 8, "bnn/dead/head": 2 / 4, "bnn/cut/head": 2 / 8}


def test_batches_of_an_accumulated_step_count_together(fit, network):
    model = seeing(network())
    _, logged, _ = fit(Activations(interval=2), network=model, max_steps=4, accumulate_grad_batches=3)
    assert sorted(logged) == [2, 4]
    for step in logged:
        assert len(model.seen[step]["head"]) == 3
        assert logged[step] == expected(model.seen[step])


def test_validation_between_is_not_counted(fit, network):
    model = seeing(network())
    data = DataLoader([(torch.ones(2, 4, 4), 0)] * 2, batch_size=2)
    options = {"val_data": data, "val_check_interval": 1, "accumulate_grad_batches": 2, "num_sanity_val_steps": 1}
    _, logged, _ = fit(Activations(interval=1), network=model, max_steps=2, **options)
    assert sorted(logged) == [1, 2]
    assert all(logged[step] == expected(model.seen[step]) for step in logged)


def test_all_calls_of_a_layer_count_and_channels_are_last_in_a_linear_one(fit, network):
    class Twice(network):
        def __init__(self):
            super().__init__()
            self.body, self.head = BinaryLinear(2, 2), BinaryLinear(32, 3)

        def training_step(self, batch, batch_idx):
            x = batch[0].permute(0, 2, 3, 1)  # (N, H, W, F)
            x = self.body(x=self.body(x) - 0.5) if self.named else self.body(self.body(x) - 0.5)
            return nn.functional.cross_entropy(self.head(x.flatten(1)), batch[1])

    model = Twice()
    model.named = False
    model = seeing(model)
    _, logged, _ = fit(Activations(interval=1), network=model, max_steps=1)
    assert [x.shape for x in model.seen[1]["body"]] == [(4, 4, 4, 2)] * 2
    assert logged[1] == expected(model.seen[1], linear=("body", "head"))
    # the same when an input is handed over by its name
    torch.manual_seed(0)
    other = Twice()
    other.load_state_dict(model.state_dict())
    other.named = True
    unnamed = Twice()
    unnamed.load_state_dict(model.state_dict())
    unnamed.named = False
    runs = [fit(Activations(interval=1), network=m, max_steps=1)[1] for m in (other, unnamed)]
    assert runs[0] == runs[1]


def test_groups_have_all_input_channels(fit, network):
    model = network()
    model.body[1] = BinaryConv2d(6, 6, 3, padding=1, groups=3)
    model = seeing(model)
    _, logged, _ = fit(Activations(interval=2), network=model, max_steps=2)
    assert logged[2] == expected(model.seen[2])


def test_a_layer_that_does_not_run_logs_nothing(fit, network):
    model = network()
    model.unused = BinaryLinear(3, 3)
    _, logged, _ = fit(Activations(interval=1), network=model, max_steps=1)
    assert "bnn/dead/head" in logged[1]
    assert not [key for key in logged[1] if "unused" in key]


def test_hooks_are_there_only_while_a_step_that_is_looked_at_runs(fit, network):
    class Counting(network):
        during = ()

        def training_step(self, batch, batch_idx):
            self.during += ((self.trainer.global_step + 1, max(num_hooks(self))),)
            return super().training_step(batch, batch_idx)

        def on_train_batch_end(self, *args):
            assert num_hooks(self) == [0] * 4

    model = Counting()
    fit(Activations(interval=3), network=model, max_steps=4, accumulate_grad_batches=2)
    assert model.during == tuple((step, int(step == 3)) for step in (1, 1, 2, 2, 3, 3, 4, 4))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_a_step_leaves_no_hook(fit, network, error):
    class Failing(network):
        def training_step(self, batch, batch_idx):
            assert num_hooks(self) == [1] * 4
            raise error("in the middle")

    model = Failing()
    with pytest.raises(RuntimeError if error is RuntimeError else SystemExit):
        fit(Activations(interval=1), network=model, max_steps=1)
    assert num_hooks(model) == [0] * 4


def test_a_batch_that_is_skipped_leaves_one_hook_at_most(fit, network):
    class Skipping(network):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if self.current_epoch == 0 and batch_idx == 1 else None

    model = seeing(Skipping())
    _, logged, _ = fit(Activations(interval=1), network=model, max_steps=1, accumulate_grad_batches=2)
    # a second hook would count the first batch after the skipped one twice
    assert len(model.seen[1]["head"]) == 3
    assert logged[1] == expected(model.seen[1])


@pytest.mark.parametrize(("num_steps", "looks"), [(3, [4, 6]), (4, [6])])
def test_a_resumed_run_keeps_the_interval(fit, network, tmp_path, num_steps, looks):
    trainer, _, _ = fit(Activations(interval=2), max_steps=num_steps, accumulate_grad_batches=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    model = seeing(network())
    options = {"ckpt_path": tmp_path / "last.ckpt", "accumulate_grad_batches": 2}
    _, logged, _ = fit(Activations(interval=2), network=model, max_steps=6, **options)
    assert sorted(logged) == looks
    assert all(logged[step] == expected(model.seen[step]) for step in looks)


def test_two_ranks_are_summed_at_once(tmp_path):
    script = Path(__file__).with_name("two_ranks.py")
    # Lightning chooses a port as the processes start, and they take it only once they have imported everything
    env = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), "MASTER_PORT": str(free_port())}
    done = run_to_end([sys.executable, script, tmp_path], os.environ | env)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    record = json.loads((tmp_path / "logged.json").read_text())
    assert sorted(record["logged"]) == ["2", "4"]
    assert record["num_reductions"] == 2
    for step, values in record["logged"].items():
        seen = {}
        for rank in ranks:
            for name, inputs in rank[int(step)].items():
                seen.setdefault(name, []).extend(x.numpy() for x in inputs)
        # rank 1 alone runs the last layer
        assert list(seen) == ["first", "second", "third"]
        assert values == expected(seen, linear=("first", "second", "third"))
        # neither rank's own shares, but those of both
        assert values["bnn/positive/first"] != pytest.approx(
            shares([x.numpy() for x in ranks[0][int(step)]["first"]], -1)["positive"]
        )


@pytest.mark.parametrize("interval", [0, -5])
def test_interval_below_one_is_an_error(interval):
    with pytest.raises(ValueError, match=f"interval is {interval}"):
        Activations(interval)
