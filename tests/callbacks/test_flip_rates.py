import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnnlight.callbacks import FlipRates
from bnnlight.nn import BinaryConv2d, BinaryLinear, Matrix

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


class Network(lightning.LightningModule):
    """Trained at a rate that turns many signs."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(BinaryConv2d(2, 5, 3), nn.Flatten())
        self.head = BinaryLinear(20, 3, latent=lambda w: Matrix(w, start="balanced"))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.head(self.body(batch[0])), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)

    def signs(self):
        """Signs of both layers, rebuilt in numpy."""
        u, s, v = (p.detach().double().numpy() for p in self.head.latent.parameters())
        dense = self.body[0].latent.weight.detach().numpy()
        return {"body.0": dense >= 0, "head": (u * s) @ v.T >= 0}


class Logged(DummyLogger):
    def __init__(self):
        super().__init__()
        self.rates = {}

    def log_metrics(self, metrics, step=None):
        rates = {key: value for key, value in metrics.items() if key.startswith("bnn/")}
        if rates:
            assert step not in self.rates
            self.rates[step] = rates


class Signs(lightning.Callback):
    """Keeps the signs after every optimizer step."""

    def __init__(self):
        self.at = {}

    def on_train_start(self, trainer, pl_module):
        self.at.setdefault(trainer.global_step, pl_module.signs())

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.at[trainer.global_step] = pl_module.signs()


def data():
    generator = torch.Generator().manual_seed(3)
    images, labels = torch.randn(24, 2, 4, 4, generator=generator), torch.arange(24) % 3
    return DataLoader(TensorDataset(images, labels), batch_size=4)


def fit(flips, *, signs=None, network=None, ckpt_path=None, **options):
    logged, signs = Logged(), signs or Signs()
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=logged,
        callbacks=[flips, signs],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=-1,
        **options,
    )
    trainer.fit(network or Network(), data(), ckpt_path=ckpt_path)
    return trainer, logged.rates, signs.at


def expected(before, after):
    """Rates by layer, and over all weights together."""
    changed = {name: before[name] != after[name] for name in before}
    rates = {f"bnn/flip_rate/{name}": pytest.approx(float(np.mean(flags))) for name, flags in changed.items()}
    together = np.concatenate([flags.ravel() for flags in changed.values()])
    return rates | {"bnn/flip_rate_mean": pytest.approx(float(np.mean(together)))}


def test_rates_equal_a_count_over_the_weights_at_each_look():
    _, rates, signs = fit(FlipRates(interval=3), max_steps=11)
    # the look before the first step is only a baseline
    assert sorted(rates) == [3, 6, 9]
    for step in rates:
        assert rates[step] == expected(signs[step - 3], signs[step])
    assert all(value > 0 for value in rates[3].values())
    assert rates[3] != rates[6] != rates[9]


def test_steps_are_counted_and_not_batches_where_gradients_accumulate():
    trainer, rates, signs = fit(FlipRates(interval=2), max_steps=5, accumulate_grad_batches=2)
    assert trainer.fit_loop.total_batch_idx + 1 == 10
    assert sorted(rates) == [2, 4]
    for step in rates:
        assert rates[step] == expected(signs[step - 2], signs[step])
    assert rates[2]["bnn/flip_rate_mean"] > 0


@pytest.mark.parametrize("num_steps", [3, 4])
def test_a_resumed_run_goes_on_from_the_last_look(tmp_path, num_steps):
    # interrupted one step before, and right at, the second look
    first, _, signs = fit(FlipRates(interval=2), max_steps=num_steps)
    first.save_checkpoint(tmp_path / "last.ckpt")
    keep = Signs()
    keep.at = signs
    torch.manual_seed(99)  # the new network starts elsewhere and must not be what is compared
    options = {"network": Network(), "signs": keep, "ckpt_path": tmp_path / "last.ckpt"}
    _, rates, signs = fit(FlipRates(interval=2), max_steps=6, **options)
    looks = [4, 6] if num_steps == 3 else [6]
    assert sorted(rates) == looks
    for step in looks:
        assert rates[step] == expected(signs[step - 2], signs[step])


def test_state_survives_a_state_dict_round_trip_and_is_one_bit_a_weight():
    flips = FlipRates(interval=2)
    fit(flips, max_steps=2)
    state = flips.state_dict()
    # 90 and 60 weights
    assert {name: signs.numel() for name, signs in state["signs"].items()} == {"body.0": 12, "head": 8}
    other = FlipRates(interval=2)
    other.load_state_dict(state)
    assert other.state_dict().keys() == state.keys()
    assert all(torch.equal(other.state_dict()["signs"][name], state["signs"][name]) for name in state["signs"])
    assert other.state_dict()["last_step"] == 2


def test_a_callback_used_for_a_second_run_takes_a_new_baseline():
    flips = FlipRates(interval=2)
    fit(flips, max_steps=2)
    _, rates, signs = fit(flips, max_steps=2)
    assert rates == {2: expected(signs[0], signs[2])}


def test_a_network_without_binary_layers_logs_nothing():
    class Real(Network):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Flatten(), nn.Linear(32, 3)

        def signs(self):
            return {}

    _, rates, _ = fit(FlipRates(interval=1), network=Real(), max_steps=2)
    assert rates == {}


def test_looking_changes_neither_weights_nor_random_numbers():
    outcomes = []
    for interval in (1, 1000):
        torch.manual_seed(1)
        network = Network()
        fit(FlipRates(interval=interval), network=network, max_steps=4)
        outcomes.append((torch.rand(1), *network.state_dict().values()))
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


@pytest.mark.parametrize("interval", [0, -5])
def test_interval_below_one_is_an_error(interval):
    with pytest.raises(ValueError, match=f"interval is {interval}"):
        FlipRates(interval)
