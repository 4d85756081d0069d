import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment

from bnnlight.callbacks import Alphas
from bnnlight.nn import Tucker

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")

LAYERS = ["body.0", "body.1", "body.2", "head"]


class WandB(WandbLogger):
    """Takes what W&B is sent, and sends nothing."""

    save_dir, name, version = None, "", ""

    def __init__(self):
        self.at = {}

    @property
    def experiment(self):
        return DummyExperiment()

    def log_metrics(self, metrics, step=None):
        self.at.setdefault(step, {}).update(metrics)

    def log_hyperparams(self, *args):
        pass

    def finalize(self, status):
        pass


def alpha_of(layer):
    """α in numpy, from the parameters alone."""
    if layer.scale.name == "analytic":
        return np.abs(layer.latent().detach().numpy()).reshape(layer.weight_shape[0], -1).mean(1)
    alpha = layer.scale.alpha.detach().numpy()
    for vector in getattr(layer.scale, "positions", ()):
        alpha = np.multiply.outer(alpha, vector.detach().numpy())
    return alpha


def expected(layers):
    values = {}
    for path, layer in layers.items():
        alpha = alpha_of(layer).ravel()
        mean = sum(alpha) / len(alpha)
        spread = {
            "mean": mean,
            "std": (sum((a - mean) ** 2 for a in alpha) / len(alpha)) ** 0.5,
            "min": sorted(alpha)[0],
            "max": sorted(alpha)[-1],
            "negative": len([a for a in alpha if a < 0]) / len(alpha),
        }
        values |= {f"bnn/alpha_{k}/{path}": pytest.approx(v, rel=1e-5, abs=1e-7) for k, v in spread.items()}
    return values


@pytest.mark.parametrize("scale", ["analytic", "channel", "spatial"])
def test_spread_of_every_layer_equals_a_count_over_the_parameters(fit, network, scale):
    _, logged, layers = fit(Alphas(interval=2), network=network(Tucker, scale), max_steps=5)
    assert sorted(logged) == [0, 2, 4, 5]
    for step, values in logged.items():
        assert values == expected(layers[step])
    assert [key.rsplit("/", 1)[1] for key in logged[0] if "mean" in key] == LAYERS
    assert logged[0] != logged[2]


def test_share_below_zero_by_hand(fit, network):
    model = network()
    with torch.no_grad():
        model.body[1].scale.alpha.copy_(torch.tensor([0.5, -0.25, 0.0, -1.0, 2.0, 1.75]))
    _, logged, _ = fit(Alphas(), network=model, max_steps=1)
    found = {key: value for key, value in logged[0].items() if key.endswith("body.1")}
    assert found == {
        "bnn/alpha_mean/body.1": 0.5,
        "bnn/alpha_std/body.1": pytest.approx(np.std([0.5, -0.25, 0, -1, 2, 1.75])),
        "bnn/alpha_min/body.1": -1,
        "bnn/alpha_max/body.1": 2,
        "bnn/alpha_negative/body.1": pytest.approx(1 / 3),
    }


def test_histograms_go_to_wandb_alone(fit):
    wandb = WandB()
    _, logged, layers = fit(Alphas(interval=2), loggers=[wandb], max_steps=2)
    names = {f"bnn/alpha/{layer}" for layer in LAYERS}
    for step in (0, 2):
        assert wandb.at[step].keys() == logged[step].keys() | names
        assert not names & logged[step].keys()
        for layer in LAYERS:
            alpha = alpha_of(layers[step][layer])
            found = wandb.at[step][f"bnn/alpha/{layer}"]
            assert sum(found.histogram) == alpha.size
            assert (found.bins[0], found.bins[-1]) == pytest.approx((alpha.min(), alpha.max()))
            # entries up to the upper edge of each bin, counted one by one
            below = [(alpha <= edge + 1e-12).sum() for edge in found.bins[1:]]
            assert np.abs(np.cumsum(found.histogram) - below).max() == 0


def test_entries_next_to_equal_and_not_finite_are_no_error(fit, network):
    model = network()
    with torch.no_grad():
        model.body[0].scale.alpha.fill_(1.0)[0] = 1 + 2**-23  # the next number after 1
        model.body[1].scale.alpha.fill_(0.5)
        model.body[2].scale.alpha[0] = float("nan")
    wandb = WandB()
    fit(Alphas(), network=model, loggers=[wandb], max_steps=1)
    assert sum(wandb.at[0]["bnn/alpha/body.0"].histogram) == 6
    assert sum(wandb.at[0]["bnn/alpha/body.1"].histogram) == 6
    assert "bnn/alpha/body.2" not in wandb.at[0] and np.isnan(wandb.at[0]["bnn/alpha_mean/body.2"])


def test_layers_without_alpha_log_nothing(fit, network):
    assert fit(Alphas(interval=1), network=network(scale="none"), max_steps=2)[1] == {}
    mixed = network()
    mixed.body[1].scale = network(scale="none").body[1].scale
    _, logged, _ = fit(Alphas(interval=1), network=mixed, max_steps=1)
    assert {key.rsplit("/", 1)[1] for key in logged[0]} == {"body.0", "body.2", "head"}


def test_steps_are_counted_and_not_batches(fit):
    _, logged, layers = fit(Alphas(interval=2), max_steps=4, accumulate_grad_batches=3)
    assert sorted(logged) == [0, 2, 4]
    assert all(logged[step] == expected(layers[step]) for step in logged)


@pytest.mark.parametrize(("num_steps", "looks"), [(3, [4, 5]), (4, [5])])
def test_a_resumed_run_does_not_begin_with_a_look(fit, tmp_path, num_steps, looks):
    trainer, _, _ = fit(Alphas(interval=2), max_steps=num_steps)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    _, logged, layers = fit(Alphas(interval=2), max_steps=5, ckpt_path=tmp_path / "last.ckpt")
    assert sorted(logged) == looks
    assert all(logged[step] == expected(layers[step]) for step in logged)


def test_only_rank_zero_looks(fit, monkeypatch):
    monkeypatch.setattr(lightning.Trainer, "is_global_zero", False)
    assert fit(Alphas(interval=1), max_steps=2)[1] == {}


@pytest.mark.parametrize("interval", [0, -5])
def test_interval_below_one_is_an_error(interval):
    with pytest.raises(ValueError, match=f"interval is {interval}"):
        Alphas(interval)
