"""Training in two processes: the same as in one, whatever the data divide into."""

import json
import os
import random
import sys
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from fixtures.processes import run_to_end
from torch import nn

from bnnlight.backbones import ResNet, StackedHourglass
from bnnlight.experiment.processes import SeedPerRank, SyncBatchNormAnywhere
from bnnlight.nn import CP, Dense, Holistic, Matrix, Rotated, TensorTrain, Tucker
from bnnlight.nn.compute.sync_norm import SyncBatchNorm

PROBE = """
import atexit, json, pathlib, random
import numpy as np, torch
from bnnlight.data import DigitsDataModule
from bnnlight.tasks import ClassificationTask


class FewDigits(DigitsDataModule):
    def setup(self, stage=None):
        super().setup(stage)
        self.val_set.indices, self.test_set.indices = self.val_set.indices[:1], self.test_set.indices[:3]


class Probe(ClassificationTask):
    def on_train_start(self):
        seen = {
            "weights": sum(float(p.double().abs().sum()) for p in self.parameters()),
            "seed": torch.initial_seed(),
            "numbers": [torch.rand(1).item(), np.random.rand(), random.random()],
        }
        pathlib.Path(f"rank{self.global_rank}.json").write_text(json.dumps(seen))
        atexit.register(at_end, pathlib.Path(f"end{self.global_rank}.json"))


def at_end(path):
    path.write_text(json.dumps(torch.distributed.is_initialized()))
"""
"""One picture to validate on, three to test on; what each process starts the training with, and how it ends."""


@pytest.fixture(scope="module")
def fit(tmp_path_factory, configs):
    """Run the real command in a folder of its own; return the folder, the run in it being RUN."""

    def run(config, *options, devices=2, wandb="offline"):
        folder = tmp_path_factory.mktemp("ddp")
        (folder / "probe.py").write_text(PROBE)
        command = [
            *(sys.executable, "-m", "bnnlight", "fit", "--config", str(configs / config), "--run_dir=RUN"),
            *("--trainer.accelerator=cpu", f"--trainer.devices={devices}", "--num_threads=1"),
            *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", *options),
        ]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT", "PL_"))}
        env |= {"HOME": str(folder), "WANDB_MODE": wandb, "OMP_NUM_THREADS": "1"}
        done = run_to_end(command, env, folder)
        assert done.returncode == 0, done.stderr
        return folder

    return run


def results(folder):
    return json.loads((folder / "RUN/results.json").read_text())["results"]


@pytest.fixture(scope="module")
def one_and_two(fit):
    """Twenty steps on 64 pictures each: in one process, and in two with 32 each."""
    options = (
        *("--trainer.max_epochs=2", "--trainer.limit_train_batches=10", "--trainer.sync_batchnorm=true"),
        # A sign turns over where rounding moves a value past zero, and then the runs part. In single precision a few
        # of the millions of signs may do so; in double none does.
        "--trainer.precision=64-true",
        # tensors shared between layers: their gradients meet before they are averaged
        *("--model.backbone.width=0.125", "--model.backbone.latent=bnnlight.nn.Holistic"),
    )
    one = fit("quickstart.yaml", *options, "--data.batch_size=64", devices=1, wandb="disabled")
    return one, fit("quickstart.yaml", *options, "--data.batch_size=32")


def test_two_processes_learn_what_one_learns(one_and_two):
    checkpoints = [torch.load(run / "RUN/checkpoints/last.ckpt", weights_only=True) for run in one_and_two]
    one, two = (checkpoint["state_dict"] for checkpoint in checkpoints)
    assert [checkpoint["global_step"] for checkpoint in checkpoints] == [20, 20]
    assert list(one) == list(two)
    apart, size = (
        sum(float(t.double().square().sum()) for t in tensors) ** 0.5
        for tensors in ([one[name] - two[name] for name in one], one.values())
    )
    print(f"two processes against one after 20 steps: {apart / size:.1e} of the weights' norm")
    assert apart < 1e-8 * size
    for name, value in one.items():
        # absolute, for biases whose gradient is nothing but rounding, since a batch norm comes after them
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-8, msg=lambda text, name=name: name + text)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["SOAP", "Muon"])
def test_two_processes_step_as_one_does(fit, optimizer):
    """Also where some modes have more entries than all others together, in which any basis would do at first."""
    options = (
        *("--trainer.max_epochs=2", "--trainer.limit_train_batches=10", "--trainer.sync_batchnorm=true"),
        *("--trainer.precision=64-true", "--model.backbone.width=0.125", "--model.backbone.latent=bnnlight.nn.Dense"),
        # biases in front of a batch norm have gradients of nothing but rounding, which a smaller ε would step by
        *(f"--model.optimizer=bnnlight.optim.{optimizer}", "--model.optimizer.lr=0.01"),
    )
    one = fit("quickstart.yaml", *options, "--data.batch_size=64", devices=1, wandb="disabled")
    for share in ("false", "true"):
        both = (*options, "--data.batch_size=32", f"--model.optimizer.share={share}")
        apart = apart_by(one, fit("quickstart.yaml", *both, wandb="disabled"))
        print(f"{optimizer}, share {share}: two processes against one after 20 steps: {apart:.1e} of the norm")
        assert apart < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["SOAP", "Muon"])
def test_one_process_goes_on_where_two_that_shared_the_work_were_stopped(fit, optimizer):
    options = (
        *("--trainer.limit_train_batches=10", "--trainer.sync_batchnorm=true", "--trainer.precision=64-true"),
        *("--model.backbone.width=0.125", "--model.backbone.latent=bnnlight.nn.Dense"),
        *(f"--model.optimizer=bnnlight.optim.{optimizer}", "--model.optimizer.lr=0.01"),
        "--model.optimizer.share=true",
        # the default schedule's length would be that of the run
        *("--model.scheduler=torch.optim.lr_scheduler.StepLR", "--model.scheduler.step_size=99"),
    )
    alone = (*options, "--data.batch_size=64", "--trainer.max_epochs=2")
    one = fit("quickstart.yaml", *alone, devices=1, wandb="disabled")
    two = fit("quickstart.yaml", *options, "--data.batch_size=32", "--trainer.max_epochs=1", wandb="disabled")
    states = torch.load(two / "RUN/checkpoints/last.ckpt", weights_only=True)["optimizer_states"][0]["state"].values()
    assert all("exp_avg" in state or "momentum_buffer" in state for state in states)
    fit("quickstart.yaml", *alone, f"--run_dir={two / 'RUN'}", "--resume", devices=1, wandb="disabled")
    apart = apart_by(one, two)
    print(f"{optimizer}: ten steps in two processes and ten in one against one: {apart:.1e} of the weights' norm")
    assert apart < 1e-7  # Lightning puts weights back before it makes the network one of doubles, so they are rounded


def apart_by(*runs):
    """The difference between the last weights of two runs, as a share of their norm."""
    one, two = (torch.load(r / "RUN/checkpoints/last.ckpt", weights_only=True)["state_dict"] for r in runs)
    apart = sum(float((one[name].double() - two[name].double()).square().sum()) for name in one)
    return (apart / sum(float(value.double().square().sum()) for value in one.values())) ** 0.5


def test_two_processes_log_what_one_logs(one_and_two):
    one, two = map(results, one_and_two)
    assert list(one) == list(two)
    assert {"last train/loss", "last train/acc", "last val/loss", "test/acc1"} <= set(one)
    for name, value in one.items():
        # losses are averaged in single precision, right answers counted
        assert two[name] == (pytest.approx(value, rel=1e-5) if "loss" in name else value), name


def test_every_row_of_two_processes_is_that_of_one(one_and_two):
    files = [(run / "RUN/metrics.jsonl").read_text().splitlines() for run in one_and_two]
    one, two = ([json.loads(line) for line in lines] for lines in files)
    # no row more, none less, in the same order
    assert [(row["step"], list(row)) for row in one] == [(row["step"], list(row)) for row in two]
    keys = {key.split("/")[0] + "/" + key.split("/")[1] for row in one for key in row if "/" in key}
    assert keys >= {"bnn/flip_rate", "bnn/flip_rate_mean", "bnn/positive", "bnn/dead", "bnn/cut", "bnn/alpha_mean"}
    assert "bnn/rank_effective" in keys
    for mine, other in zip(one, two, strict=True):
        for key, value in mine.items():
            if not key.startswith(("time/", "mem/")):
                assert other[key] == pytest.approx(value, rel=1e-5), (key, mine["step"])


def test_two_processes_leave_one_run(one_and_two):
    _, folder = one_and_two
    assert {path.name for path in folder.iterdir()} <= {"RUN", "probe.py", "__pycache__", ".config", ".cache", ".local"}
    assert len(list(folder.rglob("config.yaml"))) - len(list(folder.glob("RUN/wandb/*/files/config.yaml"))) == 1
    assert len(list(folder.rglob("offline-run-*"))) == 1
    assert len(list(folder.glob("RUN/wandb/offline-run-*/*.wandb"))) == 1


@pytest.fixture(scope="module")
def few_digits(fit):
    return fit(
        *("quickstart.yaml", "--model=probe.Probe", "--data=probe.FewDigits", "--seed_per_rank=true"),
        *("--seed_everything=5", "--trainer.max_epochs=1", "--trainer.limit_train_batches=1"),
        *("--model.backbone.width=0.0625", "--trainer.logger=false"),
    )


def test_each_process_goes_on_from_a_seed_of_its_own_with_the_same_network(few_digits):
    first, second = (json.loads((few_digits / f"rank{rank}.json").read_text()) for rank in range(2))
    assert (first["seed"], second["seed"]) == (5, 6)
    assert first["weights"] == second["weights"]
    for mine, other in zip(first["numbers"], second["numbers"], strict=True):
        assert mine != other


def test_each_process_leaves_the_group_before_python_ends(few_digits):
    assert [json.loads((few_digits / f"end{rank}.json").read_text()) for rank in range(2)] == [False, False]


def measured_alone(bnnlight, run, verb, *options):
    """What a single process measures with the best checkpoint, as the command prints it."""
    code, out, err = bnnlight(
        *(verb, "--config", run / "RUN/config.yaml", "--ckpt_path", run / "RUN/checkpoints/best.ckpt"),
        *("--trainer.devices=1", "--trainer.enable_progress_bar=false", *options),
    )
    assert code == 0, err
    return out


def shown(name, value):
    return f"{100 * value:.2f} %" if "loss" not in name else f"{value:.4f}"


@pytest.mark.parametrize(("verb", "prefix"), [("validate", "best val/"), ("test", "test/")])
def test_one_and_three_pictures_count_once_each(few_digits, bnnlight, monkeypatch, verb, prefix):
    monkeypatch.syspath_prepend(few_digits)
    monkeypatch.setenv("PYTHONPATH", str(few_digits))
    found = {name: value for name, value in results(few_digits).items() if name.startswith(prefix)}
    assert found
    out = measured_alone(bnnlight, few_digits, verb)
    for name, value in found.items():
        assert shown(name, value) in next(line for line in out.splitlines() if name.removeprefix("best ") in line)


@pytest.fixture(scope="module")
def few_people(fit):
    return fit(
        *("hg_people.yaml", "--trainer.max_epochs=1", "--data.num_train=8", "--data.num_val=1", "--data.num_test=3"),
        *("--data.image_size=32", "--data.batch_size=4", "--model.backbone.features=16", "--model.backbone.depth=1"),
        wandb="disabled",
    )


@pytest.mark.parametrize(("verb", "prefix"), [("validate", "last val/"), ("test", "test/")])
def test_one_and_three_people_count_once_each(few_people, bnnlight, verb, prefix):
    found = {name: value for name, value in results(few_people).items() if name.startswith(prefix)}
    assert f"{prefix}pckh" in found
    out = measured_alone(bnnlight, few_people, verb)
    for name, value in found.items():
        line = next(line for line in out.splitlines() if f" {name.removeprefix('last ')} " in line)
        assert shown(name, value) in line


def test_pictures_are_those_of_rank_zero(few_people):
    assert {path.name for path in (few_people / "RUN/pictures").iterdir()} == {"val-0000001.png", "test.png"}


@pytest.mark.parametrize("latent", [Dense, Matrix, Tucker, Holistic, CP, TensorTrain, Rotated])
@pytest.mark.parametrize("scale", ["none", "analytic", "channel", "spatial"])
def test_every_parameter_gets_a_gradient(latent, scale):
    """Or DDP waits for it, unless told to look for unused ones."""
    method = {"latent": latent, "scale": scale}
    networks = {
        "classes": (ResNet([1, 1], 4, width=0.0625, stem="small", image_size=8, **method), (2, 3, 8, 8)),
        "joints": (
            StackedHourglass(num_joints=3, features=16, stacks=2, depth=1, image_size=32, **method),
            (2, 3, 32, 32),
        ),
    }
    for network, shape in networks.values():
        network(torch.randn(shape)).square().sum().backward()
        assert [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None] == []


def started(rank, seed="5"):
    trainer = SimpleNamespace(global_rank=rank, strategy=SimpleNamespace(broadcast=lambda value: value))
    SeedPerRank().setup(trainer, None, "fit")
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]


def test_a_rank_draws_as_a_run_of_its_seed_plus_rank(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    found = started(rank=3)
    # the seed of the run, which the order of the data follows, stays
    assert os.environ["PL_GLOBAL_SEED"] == "5"
    torch.manual_seed(8)
    expected = np.random.RandomState(8), random.Random(8)
    assert found[0] == torch.rand(3).tolist()
    assert found[1] == expected[0].rand(3).tolist()
    assert found[2] == [expected[1].random() for _ in range(3)]


class Normed(lightning.LightningModule):
    def __init__(self, device):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))


@pytest.mark.parametrize(("device", "kind"), [("cpu", SyncBatchNorm), ("cuda", nn.SyncBatchNorm)])
def test_gpus_get_torchs_layer_and_cpus_ours(device, kind):
    plugin, task = SyncBatchNormAnywhere(), Normed(device)
    names = list(task.state_dict())
    assert type(plugin.apply(task).norm) is kind
    assert list(task.state_dict()) == names
    reverted = plugin.revert(task).norm
    assert isinstance(reverted, nn.modules.batchnorm._BatchNorm)
    assert not isinstance(reverted, (SyncBatchNorm, nn.SyncBatchNorm))
    assert list(task.state_dict()) == names
