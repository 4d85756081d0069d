"""Of single steps, by hand: which weights follow their gradient, and how many directions the change has."""

import json

import lightning as L
import pytest
import torch

from bnnlight.callbacks import Updates
from bnnlight.nn import BinaryLinear, Tucker


class Net(L.LightningModule):
    def __init__(self, make, latent=None):
        super().__init__()
        torch.manual_seed(0)
        self.layer = BinaryLinear(6, 4, **({} if latent is None else {"latent": latent}))
        self.make = make
        self.seen = []

    def training_step(self, batch, batch_idx):
        return (self.layer(batch[0]) - batch[0].sum(1, keepdim=True) - 3).square().sum()

    def configure_optimizers(self):
        return self.make(self.parameters())

    def on_before_optimizer_step(self, optimizer):
        weight = self.layer.latent()
        self.seen.append(weight.detach().clone())


class Rows(L.pytorch.loggers.logger.Logger):
    name = version = ""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_hyperparams(self, *args): ...

    def log_metrics(self, metrics, step=None):
        self.rows += [{"step": step, **metrics}] if any(key.startswith("bnn/") for key in metrics) else []


def fit(net, interval=2, steps=6, accumulate=1):
    torch.manual_seed(1)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8 * accumulate * steps, 6)), 8)
    rows = Rows()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, logger=rows, callbacks=[Updates(interval)],
        accumulate_grad_batches=accumulate, **quiet,
    )  # fmt: skip
    trainer.fit(net, data)
    return rows.rows


def svd_rank(matrix):
    s = torch.linalg.svdvals(matrix.double())
    p = s / s.sum()
    return float((-(p * p.log()).nan_to_num()).sum().exp())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_plain_descent_moves_every_weight_against_its_gradient(accumulate):
    net = Net(lambda parameters: torch.optim.SGD(parameters, lr=0.01))
    rows = fit(net, accumulate=accumulate)
    assert [row["step"] for row in rows] == [2, 4, 6]
    after = [*net.seen[1:], net.layer.latent().detach()]
    for row in rows:
        assert row["bnn/update_follows/layer"] == row["bnn/update_follows_mean"] == 1.0
        change = after[row["step"] - 1] - net.seen[row["step"] - 1]
        assert row["bnn/update_rank/layer"] == pytest.approx(svd_rank(change), rel=1e-3)


def test_ascent_follows_nothing():
    net = Net(lambda parameters: torch.optim.SGD(parameters, lr=0.01, maximize=True))
    assert {row["bnn/update_follows_mean"] for row in fit(net)} == {0.0}


def test_factors_move_weights_together():
    net = Net(lambda parameters: torch.optim.SGD(parameters, lr=0.01), lambda weight: Tucker(weight, rank=0.5))
    rows = fit(net)
    assert len(rows) == 3
    assert all(0.4 < row["bnn/update_follows_mean"] < 1.0 and row["bnn/update_rank_mean"] <= 4.01 for row in rows)


def test_nothing_is_left_on_the_network():
    net = Net(lambda parameters: torch.optim.SGD(parameters, lr=0.01))
    fit(net)
    assert not net.layer.latent._forward_hooks
    assert not any(p._backward_hooks for p in net.parameters())


def test_an_interval_below_one_is_refused(check_one_line):
    with pytest.raises(ValueError) as error:
        Updates(0)
    check_one_line(error, "interval is 0")


def test_by_config(tmp_path, fit_probe):
    callbacks = json.dumps([{"class_path": "bnnlight.callbacks.Updates", "init_args": {"interval": 6}}])
    code, text = fit_probe(tmp_path / "run", f"--trainer.callbacks={callbacks}", "--trainer.max_epochs=2")
    assert code == 0, text
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    found = [(row["step"], row["bnn/update_follows_mean"]) for row in rows if "bnn/update_follows_mean" in row]
    assert [step for step, _ in found] == [6, 12] and all(0.4 < share <= 1 for _, share in found)
