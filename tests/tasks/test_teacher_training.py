"""Training with a teacher: what it learns, and what stays as it is."""

import math
import os
import sys

import lightning
import pytest
import torch
from fixtures.processes import run_to_end
from fixtures.teaching import Scaled, trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnnlight.backbones import ResNet
from bnnlight.nn import real_valued
from bnnlight.tasks import ClassificationTask, Teacher

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*", "ignore:.*LeafSpec.*")


def images(num_channels=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    pictures = torch.randn(16, num_channels, 8, 8, generator=generator).to(dtype)
    return DataLoader(TensorDataset(pictures, torch.arange(16) % 4), batch_size=4)


def network(seed=0, num_classes=4, **options):
    torch.manual_seed(seed)
    return ResNet((1, 1), num_classes=num_classes, width=0.125, stem="small", **options)


class Dropping(nn.Sequential):
    """Answers otherwise while it trains: batch norm, dropout."""

    def __init__(self):
        super().__init__(real_valued(network(seed=7)), nn.Dropout(0.5), nn.Linear(4, 4))


@pytest.mark.parametrize("frozen", [Dropping, lambda: network(seed=8), lambda: network(seed=8, lean=True)])
def test_a_teacher_measures_and_stays_as_it_is(teacher, frozen):
    own = frozen()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    made = teacher(own, weight=0.5)
    task = ClassificationTask(network(), teacher=made)
    answers = []

    class Look(lightning.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            module.train()
            answers.append((made(batch[0]), batch[0]))

    trainer(max_epochs=2, callbacks=Look()).fit(task, images(), images())
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in own.parameters())
    assert not any(module.training for module in own.modules())
    assert len(answers) == 8
    other = frozen()
    other.load_state_dict(before)
    for answer, pictures in answers:
        assert answer.grad_fn is None and not answer.is_inference()
        with torch.no_grad():
            torch.testing.assert_close(answer, other.eval()(pictures))


def test_a_teacher_is_no_part_of_the_task(teacher, tmp_path):
    files = {}
    for name, made in (("plain", None), ("taught", teacher(network(seed=8)))):
        task = ClassificationTask(network(), teacher=made)
        run = trainer(max_epochs=1)
        run.fit(task, images())
        run.save_checkpoint(tmp_path / name)
        files[name] = torch.load(tmp_path / name, weights_only=True)
        assert sum(p.numel() for p in task.parameters()) == sum(p.numel() for p in network().parameters())
        names = {n for n, _ in task.named_modules()}
        assert {n.split(".")[0] for n in names} == {"", "backbone", "means"}
        groups = run.optimizers[0].param_groups
        assert sum(len(group["params"]) for group in groups) == len(list(task.backbone.parameters()))
    assert files["plain"].keys() == files["taught"].keys()
    assert list(files["plain"]["state_dict"]) == list(files["taught"]["state_dict"])
    plain, taught = ((tmp_path / name).stat().st_size for name in files)
    # the moments of the optimizer and the weights, and nothing of a second network
    assert abs(plain - taught) < 1000 < plain / 10


def weights_after(made, lean=False, **options):
    task = ClassificationTask(network(lean=lean), teacher=made)
    trainer(max_epochs=2, **options).fit(task, images())
    return task.backbone.state_dict()


def test_without_weight_the_run_is_the_plain_one(teacher):
    plain = weights_after(None)
    for weight, equal in ((0.0, True), (0.5, False)):
        taught = weights_after(teacher(network(seed=8), weight=weight, temperature=4))
        assert all(torch.equal(value, taught[name]) for name, value in plain.items()) is equal


def test_a_teacher_of_the_full_weight_is_what_is_learned(teacher):
    # one that says another class than the labels, surely
    task = ClassificationTask(Scaled([1.0, 1.0]), teacher=teacher(Scaled([40.0, 40.0]), weight=1.0))
    task.optimizer, task.warmup = lambda groups: torch.optim.SGD(groups, lr=2.0), 0.0
    pictures = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[:, :, None, None]
    trainer(max_epochs=50).fit(task, DataLoader([(pictures, torch.tensor([1, 0]))], batch_size=None))
    assert (task.backbone.factors > 3).all()


def test_lean_training_with_a_teacher_is_the_same_bit_for_bit(teacher):
    made = teacher(network(seed=8, lean=True))
    plain, lean = (weights_after(made, lean=lean) for lean in (False, True))
    assert all(torch.equal(value, lean[name]) for name, value in plain.items())


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.float32), ("64-true", torch.float64)])
def test_precisions(teacher, precision, dtype):
    made = teacher(network(seed=8), temperature=2)
    run = trainer(max_epochs=1, precision=precision, callbacks=(look := Types()))
    run.fit(ClassificationTask(network(), teacher=made), images())
    assert look.parameters == dtype
    # the answer has the precision that the student computes in
    assert look.answer == (torch.bfloat16 if precision == "bf16-mixed" else dtype)
    assert math.isfinite(run.callback_metrics["train/loss_teacher"])


class Types(lightning.Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        with trainer.precision_plugin.forward_context():
            self.answer = module.teacher(batch[0]).dtype
        self.parameters = next(module.teacher._network.parameters()).dtype


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_teacher_gets_the_layout_of_the_task(teacher, channels_last):
    seen = []

    class Look(nn.Conv2d):
        def forward(self, x):
            seen.append((x, self.weight))
            assert not torch.is_grad_enabled()
            return super().forward(x).mean((2, 3))

    task = ClassificationTask(network(), channels_last=channels_last, teacher=teacher(Look(3, 4, 3)))
    trainer(max_steps=1).fit(task, images())
    (tensors,) = seen
    assert [t.is_contiguous(memory_format=torch.channels_last) for t in tensors] == [channels_last] * 2


class Linear(nn.Sequential):
    """No batch norm, which would see another batch in each process."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        super().__init__(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 4))


RANKS = """
import sys
import torch
sys.path[:0] = {folders!r}
from test_teacher_training import four_steps
if __name__ == "__main__":
    four_steps("two.pt", devices=2, strategy="ddp")
    # or its threads may abort a process that is shutting down
    torch.distributed.destroy_process_group()
"""


def four_steps(path, devices=1, **options):
    """Trains on four pictures a step, all processes together, in double precision; keeps weights and losses."""
    task = ClassificationTask(Linear(), teacher=Teacher("teacher.ckpt", Linear(seed=3)))
    rank, size = int(os.environ.get("LOCAL_RANK", 0)), 4 // devices
    batches = [list(range(start, start + size)) for start in range(rank * size, 16, 4)]
    loader = DataLoader(images(dtype=torch.float64).dataset, batch_sampler=batches)
    run = trainer(max_steps=4, precision="64-true", use_distributed_sampler=False, devices=devices, **options)
    run.fit(task, loader)
    logged = {name: float(value) for name, value in run.callback_metrics.items() if "loss" in name}
    if run.is_global_zero:
        torch.save({"weights": task.backbone.state_dict(), "logged": logged}, path)


def test_two_processes_learn_and_log_what_one_does(tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    torch.save(Linear(seed=4).state_dict(), "teacher.ckpt")
    four_steps("one.pt")
    (tmp_path / "ranks.py").write_text(RANKS.format(folders=[str(folder) for folder in request.path.parents[:2]]))
    done = run_to_end([sys.executable, "ranks.py"])
    assert done.returncode == 0, done.stderr
    one, two = (torch.load(name, weights_only=True) for name in ("one.pt", "two.pt"))
    assert set(one["logged"]) == {"train/loss", "train/loss_task", "train/loss_teacher"}
    assert two["logged"] == pytest.approx(one["logged"], rel=1e-6)
    torch.testing.assert_close(two["weights"], one["weights"], rtol=1e-9, atol=1e-12)
