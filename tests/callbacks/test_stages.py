"""Training in stages: which stage when, what is logged, kept as best, resumed and shipped."""

import json
import os
import sys
from types import SimpleNamespace

import lightning
import pytest
import torch
import yaml
from fixtures.processes import run_to_end
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from bnnlight.callbacks import FlipRates, Stages
from bnnlight.nn import named_binary_layers

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")
INDEX = {"real": 0, "binary_activations": 1, "binary": 2}


@pytest.fixture
def scored(network):
    """A network with a validation figure that is higher in the first stages, and rises in each."""

    class Scored(network):
        def __init__(self, scores=None):
            super().__init__()
            self.seen, self.scores = [], scores or {"real": 0.9, "binary_activations": 0.8, "binary": 0.5}

        def stage(self):
            (stage,) = {layer.stage for _, layer in named_binary_layers(self)}
            return stage

        def training_step(self, batch, batch_idx):
            self.seen.append((self.trainer.current_epoch, "train", self.stage()))
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            self.seen.append((self.trainer.current_epoch, "val", self.stage()))
            self.log("val/acc1", self.scores[self.stage()] + 0.01 * self.trainer.current_epoch)

        def test_step(self, batch, batch_idx):
            self.seen.append((0, "test", self.stage()))

    return Scored


@pytest.fixture
def train(logger, tmp_path):
    """Train a scored network; return the trainer and what was logged, step → key → value."""

    def run(model, stages, *callbacks, ckpt_path=None, **options):
        from fixtures.small_network import loader

        logged = logger()
        trainer = lightning.Trainer(
            **{"max_epochs": 4, "num_sanity_val_steps": 1} | options,
            accelerator="cpu",
            logger=logged,
            callbacks=[stages, *callbacks],
            enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(model, loader(2), loader(1), ckpt_path=ckpt_path)
        return trainer, logged.at

    return run


def best(folder, **options):
    return ModelCheckpoint(folder, monitor="val/acc1", mode="max", save_on_train_epoch_end=False, **options)


def test_each_epoch_is_in_its_stage_and_what_follows_is_binary(scored, train):
    model = scored()
    trainer, at = train(model, Stages(1, 2), max_epochs=5)
    stages = ["real", "binary_activations", "binary_activations", "binary", "binary"]
    expected = [(0, "val", "real")]  # the sanity check
    for epoch, stage in enumerate(stages):
        expected += [(epoch, "train", stage)] * 2 + [(epoch, "val", stage)]
    assert model.seen == expected
    assert model.stage() == "binary"
    from fixtures.small_network import loader

    trainer.test(model, loader(1), verbose=False)
    assert model.seen[-1] == (0, "test", "binary")
    # two steps an epoch
    assert {step: row["bnn/stage"] for step, row in at.items() if "bnn/stage" in row} == {
        2 * epoch: INDEX[stage] for epoch, stage in enumerate(stages)
    }
    ends = {(step, key): value for step, row in at.items() for key, value in row.items() if key.startswith("stage/")}
    assert ends == {
        (2, "stage/real/val/acc1"): pytest.approx(0.9),
        (6, "stage/binary_activations/val/acc1"): pytest.approx(0.82),
        (10, "stage/binary/val/acc1"): pytest.approx(0.54),
    }


@pytest.mark.parametrize(
    ("stages", "expected"), [((0, 1), [1, 2, 2, 2]), ((2, 0), [0, 0, 2, 2]), ((0, 0), [2, 2, 2, 2])]
)
def test_stages_may_be_left_out(scored, train, stages, expected):
    model = scored()
    train(model, Stages(*stages))
    found = {epoch: INDEX[stage] for epoch, kind, stage in model.seen if kind == "train"}
    assert found == dict(enumerate(expected))


def test_evaluation_alone_is_binary(scored, train):
    model = scored()
    trainer, _ = train(model, Stages(1, 1))
    for _, layer in named_binary_layers(model):
        layer.stage = "real"
    from fixtures.small_network import loader

    trainer.validate(model, loader(1), verbose=False)
    assert model.seen[-1] == (4, "val", "binary")


@pytest.mark.parametrize("options", [{"save_top_k": 1}, {"save_top_k": 2}, {"save_top_k": -1}])
def test_the_best_checkpoint_is_of_the_last_stage(scored, train, tmp_path, options):
    kept = best(tmp_path / "best", filename="{epoch}", **options)
    every = ModelCheckpoint(tmp_path / "every", filename="{epoch}", every_n_epochs=1, save_top_k=-1)
    train(scored(), Stages(1, 2), kept, every, max_epochs=6)
    assert torch.load(kept.best_model_path, weights_only=True)["epoch"] == 5
    assert float(kept.best_model_score) == pytest.approx(0.55)
    found = sorted(path.name for path in (tmp_path / "best").iterdir())
    # all that were asked for are kept
    first = {1: 5, 2: 4, -1: 0}[options["save_top_k"]]
    assert found == [f"epoch={epoch}.ckpt" for epoch in range(first, 6)]
    # and a checkpoint that nothing is compared for is nobody's business
    assert len(list((tmp_path / "every").iterdir())) == 6


def test_the_best_falls_with_the_last_stage_where_less_is_better(scored, train, tmp_path):
    kept = ModelCheckpoint(tmp_path / "best", monitor="val/acc1", mode="min", save_on_train_epoch_end=False)
    model = scored({"real": 0.1, "binary_activations": 0.2, "binary": 0.5})
    train(model, Stages(1, 1), kept)
    assert float(kept.best_model_score) == pytest.approx(0.52)
    assert len(list((tmp_path / "best").iterdir())) == 1


def test_early_stopping_counts_from_the_last_stage(scored, train):
    model = scored({"real": 0.9, "binary_activations": 0.2, "binary": 0.5})
    stopping = EarlyStopping("val/acc1", mode="max", patience=2, min_delta=0.1)
    trainer, _ = train(model, Stages(4, 4), stopping, max_epochs=20)
    # 0.58 is the best, and no epoch after it is better by 0.1 within two
    assert [epoch for epoch, kind, stage in model.seen if (kind, stage) == ("val", "binary")] == [8, 9, 10]
    assert trainer.current_epoch == 11 and float(stopping.best_score) == pytest.approx(0.58)


def test_a_run_that_ends_before_its_last_stage_is_told_of(scored, train):
    with pytest.warns(UserWarning, match="ended in the stage 'real'"):
        train(scored(), Stages(2, 1), max_steps=3)


def test_validation_of_a_stage_that_had_none_is_not_another_s(scored, train):
    _, at = train(scored(), Stages(2, 1), max_epochs=5, check_val_every_n_epoch=2)
    keys = {key: step for step, row in at.items() for key in row if key.startswith("stage/")}
    assert keys == {"stage/real/val/acc1": 4, "stage/binary/val/acc1": 10}


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6])
def test_a_run_that_goes_on_is_in_the_right_stage(scored, train, tmp_path, step):
    class Break(lightning.Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == step:
                trainer.save_checkpoint(tmp_path / "last.ckpt")
                raise InterruptedError

    whole, model = scored(), scored()
    _, at = train(whole, Stages(1, 1), best(tmp_path / "a"), num_sanity_val_steps=0)
    with pytest.raises(InterruptedError):
        train(model, Stages(1, 1), best(tmp_path / "b"), Break(), num_sanity_val_steps=0)
    # a process of its own would have a new network
    resumed, kept = scored(), best(tmp_path / "b")
    _, later = train(resumed, Stages(1, 1), kept, ckpt_path=tmp_path / "last.ckpt", num_sanity_val_steps=0)
    seen = [entry for entry in resumed.seen if entry[1] == "train"]
    assert seen == [entry for entry in whole.seen if entry[1] == "train"][step:]
    assert {stage for epoch, _, stage in resumed.seen if epoch == step // 2} <= {
        stage for epoch, _, stage in whole.seen if epoch == step // 2
    }
    assert torch.load(kept.best_model_path, weights_only=True)["epoch"] == 3
    assert all(at[s][key] == value for s, row in later.items() for key, value in row.items())


def test_other_callbacks_go_on(scored, train):
    _, at = train(scored(), Stages(1, 1), FlipRates(interval=1))
    rates = {step: row["bnn/flip_rate_mean"] for step, row in at.items() if "bnn/flip_rate_mean" in row}
    assert sorted(rates) == list(range(1, 9)) and all(rate > 0 for rate in rates.values())


def test_shares_of_the_epochs(scored, train, check_one_line):
    model = scored()
    train(model, Stages(0.2, 0.45), max_epochs=9)
    found = {epoch: INDEX[stage] for epoch, kind, stage in model.seen if kind == "train"}
    # 1.8 and 4.05 epochs
    assert found == dict(enumerate([0, 0, 1, 1, 1, 1, 2, 2, 2]))
    with pytest.raises(ValueError) as caught:
        train(scored(), Stages(0, 0.5), max_epochs=-1, max_steps=4)
    check_one_line(caught, "a share of epochs that have no end", "trainer.max_epochs")


@pytest.mark.parametrize(
    "stages", [{"real_epochs": -1}, {"activation_epochs": -3}, {"real_epochs": 1.5}, {"real_epochs": float("nan")}]
)
def test_negative_numbers_are_one_line(stages, check_one_line):
    with pytest.raises(ValueError) as caught:
        Stages(**stages)
    (name, value), *_ = stages.items()
    check_one_line(caught, f"{name} is {value}", "at least 0")


def test_no_epoch_for_the_last_stage_is_one_line(scored, train, check_one_line):
    with pytest.raises(ValueError) as caught:
        train(scored(), Stages(3, 1))
    check_one_line(caught, "real_epochs 3 and activation_epochs 1", "none of 4 epochs", "max_epochs above 4")
    model = scored()
    train(model, Stages(3, 1), fast_dev_run=True)
    assert model.seen[0][2] == "real"


def test_a_network_without_binary_layers_is_one_line(scored, train, check_one_line):
    model = scored()
    model.body, model.head = torch.nn.Flatten(), torch.nn.Linear(32, 3)
    with pytest.raises(ValueError) as caught:
        train(model, Stages(1, 1))
    check_one_line(caught, "has no binary layers")


STAGES = {"class_path": "bnnlight.callbacks.Stages", "init_args": {"real_epochs": 1, "activation_epochs": 1}}


def test_fit_on_digits(tmp_path, configs, bnnlight):
    config = yaml.safe_load((configs / "quickstart.yaml").read_text())
    config["trainer"] |= {"callbacks": [STAGES], "max_epochs": 3, "accelerator": "cpu", "limit_train_batches": 8}
    config["trainer"] |= {"enable_progress_bar": False, "logger": "bnnlight.tracking.MetricsFile"}
    config["model"]["init_args"]["backbone"]["init_args"]["width"] = 0.0625
    config["model"]["init_args"]["scheduler"] = {
        "class_path": "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts",
        "init_args": {"T_0": 1},
    }
    config["lr_monitor"] = {"logging_interval": "epoch"}
    (tmp_path / "stages.yaml").write_text(yaml.safe_dump(config))
    run = tmp_path / "run"
    code, _, err = bnnlight("fit", "--config", tmp_path / "stages.yaml", f"--run_dir={run}")
    assert code == 0, err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    series = {}
    for row in rows:
        for key, value in row.items():
            series.setdefault(key, []).append((row["step"], value))
    assert series["bnn/stage"] == [(0, 0), (8, 1), (16, 2)]
    accuracies = [value for _, value in series["val/acc1"]]
    for number, name in enumerate(INDEX):
        assert series[f"stage/{name}/val/acc1"] == [(8 * (number + 1), accuracies[number])]
        assert f"stage/{name}/val/loss" in series
    rates = {key: [value for _, value in entries] for key, entries in series.items() if key.startswith("lr-")}
    assert rates and all(len(set(values)) == 1 for values in rates.values())  # anew with every epoch
    # the others are there as ever
    assert {"bnn/flip_rate_mean", "train/loss"} <= series.keys()
    results = json.loads((run / "results.json").read_text())["results"]
    assert results["best val/acc1"] == pytest.approx(accuracies[2])
    assert torch.load(run / "checkpoints/best.ckpt", weights_only=True)["epoch"] == 2
    # what is measured and shipped is binary
    code, out, err = bnnlight(
        "validate", "--config", run / "config.yaml", "--ckpt_path", run / "checkpoints/best.ckpt", "--debug"
    )
    assert code == 0 and f"{100 * accuracies[2]:.2f}" in out, out + err
    code, _, err = bnnlight("export", "--ckpt_path", run / "checkpoints/best.ckpt", "--format", "packed")
    assert code == 0, err
    # and compared by its last stage alone
    code, out, err = bnnlight("compare", "--json", run)
    assert json.loads(out)["runs"][0]["results"]["best val/acc1"] == pytest.approx(accuracies[2])


def test_stopped_and_resumed_is_the_unbroken_run(tmp_path, fit_probe, same_run):
    # six steps an epoch: in the middle of the second stage, and at its end
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def options(*callbacks):
        return f"--trainer.callbacks={json.dumps([STAGES, *callbacks])}", "--last_checkpoint.steps=2"

    code, out = fit_probe(whole, *options())
    assert code == 0, out
    for step in (9, 12):
        kill = {"class_path": "noisy.Told", "init_args": {"hook": "on_train_batch_end", "step": step}}
        code, out = fit_probe(broken, *options(kill))
        assert code == 75, out
    code, out = fit_probe(broken, *options())
    assert code == 0, out
    same_run(whole, broken)
    states = [torch.load(run / "checkpoints/best.ckpt", weights_only=True) for run in (whole, broken)]
    assert [state["epoch"] for state in states] == [2, 2]


@pytest.mark.slow
def test_two_processes(tmp_path, configs):
    command = [
        *(sys.executable, "-m", "bnnlight", "fit", "--config", str(configs / "quickstart.yaml"), "--run_dir=RUN"),
        *("--trainer.accelerator=cpu", "--trainer.devices=2", "--num_threads=1", "--trainer.max_epochs=3"),
        *("--trainer.enable_progress_bar=false", "--trainer.limit_train_batches=2", "--model.backbone.width=0.0625"),
        *("--trainer.logger=bnnlight.tracking.MetricsFile", f"--trainer.callbacks={json.dumps([STAGES])}"),
    ]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT", "PL_"))}
    env |= {"HOME": str(tmp_path), "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    done = run_to_end(command, env, tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "RUN/metrics.jsonl").read_text().splitlines()]
    found = SimpleNamespace(stage=[], ends=[])
    for row in rows:
        found.stage += [value for key, value in row.items() if key == "bnn/stage"]
        found.ends += [key for key in row if key.startswith("stage/") and key.endswith("acc1")]
    assert found.stage == [0, 1, 2]
    assert found.ends == [f"stage/{name}/val/acc1" for name in INDEX]
    assert torch.load(tmp_path / "RUN/checkpoints/best.ckpt", weights_only=True)["epoch"] == 2
