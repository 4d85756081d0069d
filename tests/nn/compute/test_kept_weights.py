import contextlib
import copy

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from bnnlight.backbones import ResNet
from bnnlight.nn import BinaryConv2d, Rotated, Tucker
from bnnlight.nn.compute.kept_weights import KeptWeights
from bnnlight.tasks import ClassificationTask

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


@pytest.fixture
def rebuilt(monkeypatch):
    """One entry for each W̃ that a Tucker latent has rebuilt without gradients, as forward passes do."""
    found = []
    forward = Tucker.forward

    def counted(latent):
        if not torch.is_grad_enabled():
            found.append(latent)
        return forward(latent)

    monkeypatch.setattr(Tucker, "forward", counted)
    return found


def train(network, kept, steps):
    """Parameters after some steps of several batches each."""
    optimizer = torch.optim.AdamW(network.parameters(), 0.1)
    kept.follow(optimizer)
    for batches in steps:
        for batch in batches:
            with kept.used():
                y = network(batch)
            (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach() for parameter in network.parameters()]


@pytest.mark.parametrize("scale", ["channel", "analytic"])
def test_each_weight_is_rebuilt_once_a_step_and_training_is_the_same(rebuilt, scale):
    layers = [BinaryConv2d(6, 6, 3, padding=1, latent=latent, scale=scale) for latent in (Tucker, Rotated, Tucker)]
    network = nn.Sequential(*layers).double()
    steps = torch.randn(2, 3, 4, 6, 5, 5, dtype=torch.float64)
    found = []
    for batches_a_step in (1, 3):
        rebuilt.clear()
        kept = KeptWeights()
        kept.begin(batches_a_step > 1)
        found.append(train(copy.deepcopy(network), kept, steps))
        # with a single batch a step there is nothing to keep
        assert len(rebuilt) == {1: 2 * 2 * 3, 3: 2 * 2}[batches_a_step]
    assert all(map(torch.equal, *found))
    assert not torch.equal(found[0][1], next(iter(network.parameters())))


def test_outside_of_it_weights_are_rebuilt_as_ever(rebuilt):
    layer, x = BinaryConv2d(6, 6, 3, latent=Tucker), torch.randn(2, 6, 5, 5)
    kept = KeptWeights()
    kept.begin()
    with kept.used():
        first = layer(x)
    with torch.no_grad():
        layer.latent.core.neg_()
    assert torch.equal(layer(x), -first)
    with kept.used():
        assert torch.equal(layer(x), first)
    kept.begin()
    with kept.used():
        assert torch.equal(layer(x), -first)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_task_keeps_them_while_gradients_are_accumulated(rebuilt, monkeypatch, accumulated):
    images, labels = torch.randn(5, 4, 3, 8, 8), torch.randint(3, (5, 4))
    found, num_rebuilt = [], []
    for keeps in (True, False):
        if not keeps:
            monkeypatch.setattr(KeptWeights, "used", lambda self: contextlib.nullcontext())
        torch.manual_seed(0)
        task = ClassificationTask(ResNet((1,), 3, width=0.125, stem="small", latent=Tucker))
        rebuilt.clear()
        trainer = lightning.Trainer(
            accelerator="cpu",
            max_epochs=2,
            accumulate_grad_batches=accumulated,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(task, DataLoader(list(zip(images, labels, strict=True)), batch_size=None))
        found.append([parameter.detach() for parameter in task.parameters()])
        num_rebuilt.append(len(rebuilt))
        # of five batches the last makes a step by itself
        assert trainer.global_step == {1: 10, 2: 6}[accumulated]
    assert all(map(torch.equal, *found))
    num_layers = 2
    assert num_rebuilt == [trainer.global_step * num_layers, 10 * num_layers]


class Averaged(lightning.Callback):
    """Measures other weights than are trained, as callbacks do that average them."""

    def on_validation_epoch_start(self, trainer, task):
        self.switch(task)

    def on_validation_epoch_end(self, trainer, task):
        self.switch(task)

    @staticmethod
    def switch(task):
        for layer in (module for module in task.modules() if isinstance(module, Tucker)):
            layer.core.data.neg_()


def test_a_task_rebuilds_weights_once_while_it_measures_what_stands_there_then(rebuilt):
    images, labels = torch.randn(3, 4, 3, 8, 8), torch.randint(3, (3, 4))
    batches = DataLoader(list(zip(images, labels, strict=True)), batch_size=None)
    torch.manual_seed(0)
    task = ClassificationTask(ResNet((1,), 3, width=0.125, stem="small", latent=Tucker), torch.optim.SGD)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        val_check_interval=1,
        num_sanity_val_steps=0,
        callbacks=[Averaged()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    seen, twin = [], copy.deepcopy(task.backbone).eval()

    def note(backbone, inputs, logits):
        if not backbone.training:
            seen.append((copy.deepcopy(backbone.state_dict()), inputs[0], logits))

    task.backbone.register_forward_hook(note)
    rebuilt.clear()
    trainer.fit(task, batches, batches)
    # two layers; three steps, each of them followed by three batches without gradients
    num_layers, num_steps = 2, 3
    assert len(rebuilt) == num_layers * (num_steps + num_steps)
    assert len(seen) == num_steps * len(images)
    for state, x, logits in seen:
        twin.load_state_dict(state)
        with torch.no_grad():
            assert torch.equal(twin(x), logits)
    for run in (trainer.test, trainer.predict):
        rebuilt.clear()
        run(task, batches)
        assert len(rebuilt) == num_layers
    rebuilt.clear()
    with torch.no_grad():
        task.predict_step(images[0], 0), task.predict_step(images[0], 0)
    assert len(rebuilt) == 2 * num_layers


class Broken(torch.utils.data.Dataset):
    """Its second batch cannot be read."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index:
            raise OSError("gone")
        return torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)


def test_weights_that_are_loaded_behind_a_broken_validation_are_seen():
    torch.manual_seed(0)
    task, other = (ClassificationTask(ResNet((1,), 3, width=0.125, stem="small", latent=Tucker)) for _ in range(2))
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    with pytest.raises(OSError, match="gone"):
        trainer.validate(task, DataLoader(Broken(), batch_size=None))
    x = torch.randn(4, 3, 8, 8)
    for network in (task, copy.deepcopy(task)):
        network.load_state_dict(other.state_dict())
        with torch.no_grad():
            assert torch.equal(network.eval().predict_step(x, 0), other.eval().predict_step(x, 0))
