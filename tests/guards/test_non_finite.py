"""Steps that go wrong in known places, against plain torch that does not step there."""

import copy
import math
import re

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from bnnlight.guards.non_finite import NonFinite
from bnnlight.nn import BinaryConv2d, Tucker, factorize

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*")

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
}


class Network(lightning.LightningModule):
    """A real convolution with batch norm, a binary one beside a shortcut, and a linear layer.

    `spoil` is batch index → function of network and loss, which returns the loss.
    """

    def __init__(self, spoil=None, optimizer="sgd"):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4, momentum=None)  # a mean over all batches, which the count of batches enters
        self.binary = BinaryConv2d(4, 4, 3, padding=1, scale="analytic")
        self.head = nn.Linear(64, 3)
        self.accuracy = MeanMetric()
        self.spoil, self.optimizer = spoil or {}, optimizer
        factorize(self, Tucker)

    def forward(self, x):
        x = self.norm(self.stem(x))
        return self.head((x + self.binary(x)).flatten(1))

    def training_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.accuracy.update(logits.argmax(1) == batch[1])
        self.log("train/acc", self.accuracy, on_step=False, on_epoch=True)
        loss = nn.functional.cross_entropy(logits, batch[1])
        return self.spoil[batch_idx](self, loss) if batch_idx in self.spoil else loss

    def configure_optimizers(self):
        optimizer = OPTIMIZERS[self.optimizer](self.parameters())
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9), "interval": "step"}]


def batches(num_batches=6, nan_at=()):
    """Batches of four pictures; `nan_at` are pairs of batch and picture."""
    generator = torch.Generator().manual_seed(3)
    made = [(torch.randn(4, 2, 4, 4, generator=generator), torch.arange(4) % 3) for _ in range(num_batches)]
    for batch, item in nan_at:
        made[batch][0][item, 1, 2, 3] = math.nan
    return DataLoader(made, batch_size=None)


def network(**options):
    torch.manual_seed(1)
    return Network(**options)


class Backward(torch.autograd.Function):
    """Hands its input on, and back a gradient that is NaN."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


@pytest.fixture
def stopped(fit, tmp_path):
    """Train until the guard ends it; return its line, checked to be one."""

    def run(model, data=None, guard=None, *callbacks, **options):
        with pytest.raises(FloatingPointError) as error:
            fit(
                *(guard or NonFinite(), *callbacks),
                network=model,
                data=data or batches(),
                default_root_dir=tmp_path,
                **options,
            )
        line = str(error.value)
        assert "\n" not in line
        return line

    return run


def by_hand(model, data, skipped, accumulate=1):
    """Plain torch: at the skipped steps neither is the optimizer called nor do buffers change."""
    (optimizer,), (schedule,) = model.configure_optimizers()
    correct = []
    made = list(data)
    for step, group in enumerate(made[i : i + accumulate] for i in range(0, len(made), accumulate)):
        before = copy.deepcopy(dict(model.named_buffers()))
        optimizer.zero_grad()
        hits = []
        for images, labels in group:
            logits = model(images)
            (nn.functional.cross_entropy(logits, labels) / accumulate).backward()
            hits += (logits.argmax(1) == labels).tolist()
        if step in skipped:
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])
        else:
            optimizer.step()
            correct += hits
        schedule["scheduler"].step()
    return model.state_dict(), sum(correct) / len(correct)


def check_equal(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert value.isfinite().all(), name
        assert torch.equal(found[name], value), name


# stop: the line


def test_a_picture_with_nan_is_named(stopped):
    line = stopped(network(), batches(nan_at=[(3, 2)]), max_steps=6)
    assert line.startswith(
        "step 4 (epoch 0, batch 3): the loss is nan, where it begins: the batch itself: "
        "batch[0] holds nan in item 2 of 4. The weights are those before this step: "
    )
    assert "lower the learning rate, look at the batch, or pass --non_finite.action skip" in line
    assert line.endswith("There is no checkpoint yet: begin again")


def test_the_first_of_several_pictures_is_named(stopped):
    line = stopped(network(), batches(nan_at=[(1, 3), (1, 1)]), max_steps=6)
    assert "batch[0] holds nan in 2 items, first item 1 of 4" in line


class Poke(lightning.Callback):
    """Writes a value into a parameter before the batch of an index, or behind it."""

    def __init__(self, name, value, at, behind=False):
        self.name, self.value, self.at, self.behind = name, value, at, behind

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.write(pl_module, batch_idx == self.at and not self.behind)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.write(pl_module, batch_idx == self.at and self.behind)

    def write(self, pl_module, now):
        if now:
            with torch.no_grad():
                pl_module.get_parameter(self.name).flatten()[0] = self.value


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("stem.weight", math.inf, "the weights of stem hold inf (weight)"),
        ("norm.bias", math.nan, "the weights of norm hold nan (bias)"),
        ("head.bias", -math.inf, "the weights of head hold -inf (bias)"),
        # of a binary layer the path is the layer's, not the latent's
        ("binary.latent.factors.1", math.inf, "the weights of binary hold inf (latent.factors.1)"),
        # finite weights whose products are not: 1e30 times 1e30
        ("stem.weight", 3e38, "the output of stem holds inf"),
    ],
)
def test_a_layer_is_named(stopped, name, value, expected):
    data = batches()
    for images, _ in data:
        images *= 10
    line = stopped(network(), data, None, Poke(name, value, at=2), max_steps=6)
    assert line.startswith("step 3 (epoch 0, batch 2): the loss is ")
    assert f", where it begins: {expected}. The weights are those before this step: " in line


def test_what_a_sign_hides_from_the_loss_is_found_by_the_gradient(stopped):
    class Hiding(Network):
        def forward(self, x):
            return self.head(self.binary(self.norm(self.stem(x))).flatten(1))

    line = stopped(Hiding(), batches(nan_at=[(3, 2)]), max_steps=6)
    assert re.match(
        r"step 4 \(epoch 0, batch 3\): the loss is \d\.\d+, the gradient is not finite, where it begins: "
        r"the batch itself: batch\[0\] holds nan in item 2 of 4\. ",
        line,
    )


def test_what_is_done_between_layers_is_named_by_the_next_layer(stopped):
    class Between(Network):
        def forward(self, x):
            return self.head(self.binary(self.norm(self.stem(x) / 0)).flatten(1))

    line = stopped(Between(), max_steps=6)  # no stem's output is 0, so that there is no 0 / 0
    assert "where it begins: the input of norm holds inf. " in line


def test_a_loss_by_itself(stopped):
    line = stopped(network(spoil={4: lambda _, loss: loss + math.inf}), max_steps=6)
    assert line.startswith(
        "step 5 (epoch 0, batch 4): the loss is inf, where it begins: the loss itself, "
        "as the outputs of all layers are finite. The weights"
    )


def test_targets_that_are_not_finite_are_named_with_the_loss(stopped):
    class Regression(Network):
        def training_step(self, batch, batch_idx):
            return (self(batch["x"]).sum(1) - batch["y"]).square().mean()

    made = [{"x": images, "y": labels.float()} for images, labels in batches()]
    made[1]["y"][3] = math.nan
    line = stopped(Regression(), DataLoader(made, batch_size=None), max_steps=6)
    assert "the loss itself, as the outputs of all layers are finite, batch['y'] holds nan in item 3 of 4" in line


def test_a_gradient_with_a_finite_loss(stopped):
    class Through(Network):
        def forward(self, x):
            return self.head(Backward.apply(self.binary(self.norm(self.stem(x)))).flatten(1))

    line = stopped(Through(), max_steps=6)
    assert re.match(r"step 1 \(epoch 0, batch 0\): the loss is [\d.]+, the gradient is not finite, ", line)
    # the head's is finite; from there back, and of those no more than three names
    num_bad = sum(1 for name, _ in Through().named_parameters() if not name.startswith("head"))
    listed = line.split("closest to the output first: ")[1].split(". The weights")[0]
    names = re.split(", | and ", listed)
    assert [name.split(".")[0] for name in names[:3]] == ["binary"] * 3
    assert names[3] == f"{num_bad - 3} more"


def test_gradients_are_listed_in_the_order_of_the_calls(stopped):
    class Swapped(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(32, 3, bias=False), nn.Linear(32, 32, bias=False)

        def training_step(self, batch):
            return Backward.apply(self.last(self.first(batch[0].flatten(1)))).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters())

    assert "closest to the output first: last.weight, first.weight. " in stopped(Swapped(), max_steps=6)


def test_an_accumulated_step_names_its_batch(stopped):
    model = network()
    start = copy.deepcopy(model.state_dict())
    line = stopped(model, batches(nan_at=[(4, 0)]), accumulate_grad_batches=3, max_steps=6)
    assert line.startswith("step 2 (epoch 0, batch 4): the loss is nan, where it begins: the batch itself: batch[0] ")
    assert not torch.equal(model.stem.weight, start["stem.weight"])


def test_the_loss_of_an_accumulated_step_is_that_of_the_batch(stopped):
    line = stopped(network(spoil={1: lambda _, loss: Backward.apply(0 * loss + 7)}), accumulate_grad_batches=2)
    assert line.startswith("step 1 (epoch 0, batches 0 to 1): the loss is ")
    assert ", 7, the gradient is not finite" in line


def test_weights_are_those_of_a_run_that_ended_before(fit, stopped):
    ended = network(optimizer="adamw")
    fit(network=ended, data=batches(), max_steps=3)
    model = network(optimizer="adamw")
    stopped(model, batches(nan_at=[(3, 2)]), max_steps=6)
    for (name, value), other in zip(model.named_parameters(), ended.parameters(), strict=True):
        assert torch.equal(value, other), name


def test_finite_gradients_of_any_size_are_good(fit):
    # their squares overflow
    model = network(spoil={1: lambda model, loss: loss + 1e30 * model.head.bias[0]})
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=1e-30)
    trainer, _, _ = fit(NonFinite(), network=model, data=batches(), max_steps=6)
    assert trainer.global_step == 6


def test_looking_changes_nothing(fit):
    models = [network(), network()]
    for model, guards in zip(models, ([], [NonFinite(action="skip")]), strict=True):
        _, logged, _ = fit(*guards, network=model, data=batches(), max_steps=6)
    check_equal(models[0].state_dict(), models[1].state_dict())
    assert not any("train/skipped_batches" in row for row in logged.values())


class Waits(TorchDispatchMode):
    """Counts how often a number is asked of the device."""

    num = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.num += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("action", ["stop", "skip"])
def test_a_good_step_waits_for_the_device_once(fit, action):
    guard, waits = NonFinite(action), Waits()

    def counted(hook):
        def call(*args):
            with waits:
                hook(*args)

        return call

    for name in ("on_train_batch_start", "on_before_backward", "on_before_optimizer_step", "on_train_batch_end"):
        setattr(guard, name, counted(getattr(guard, name)))
    fit(guard, network=network(), data=batches(), accumulate_grad_batches=2, max_steps=3)
    assert waits.num == 3


# skip


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


# fp16 and its loss scale


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


# checkpoints


def test_a_checkpoint_is_not_written_over_with_weights_that_are_not_finite(stopped, tmp_path):
    # as a step of too high a rate leaves it; the checkpoint comes before the next batch
    save = ModelCheckpoint(tmp_path / "checkpoints", "last", every_n_train_steps=1, enable_version_counter=False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[NonFinite(), Poke("head.weight", math.inf, at=2, behind=True), save],
        default_root_dir=tmp_path,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=6,
    )
    with pytest.raises(FloatingPointError) as error:
        trainer.fit(network(), batches())
    last = tmp_path / "checkpoints/last.ckpt"
    told = "after step 3 the weights of head hold inf (weight). No checkpoint is written: lower the learning rate"
    assert str(error.value).startswith(told)
    assert f"Last good checkpoint: {last} (--run_dir {tmp_path} --resume goes on from it" in str(error.value)
    kept = torch.load(last, weights_only=False)
    assert kept["global_step"] == 2
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_what_is_saved_on_an_exception_is_whole_or_not_there(tmp_path):
    for number, (nan_at, poke) in enumerate([([(3, 2)], None), ([], Poke("head.bias", math.inf, at=3))]):
        folder = tmp_path / str(number)
        save = ModelCheckpoint(folder, "saved", every_n_epochs=100, save_on_exception=True)
        trainer = lightning.Trainer(
            accelerator="cpu",
            callbacks=[NonFinite(), save, *([poke] if poke else [])],
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            max_steps=6,
        )
        with pytest.raises(FloatingPointError, match=r"step 4 \(epoch 0, batch 3\): the loss is "):
            trainer.fit(network(), batches(nan_at=nan_at))
        # NaN went through the batch norm in the first run, inf stands in a weight in the second
        assert list(folder.rglob("*.ckpt")) == []


def test_running_statistics_are_looked_at_too(tmp_path):
    model = network()
    model.norm.running_var.fill_(math.inf)
    trainer = lightning.Trainer(accelerator="cpu", callbacks=[NonFinite()], logger=False, default_root_dir=tmp_path)
    trainer.strategy.connect(model)
    with pytest.raises(FloatingPointError, match="after step 0 the running statistics of norm hold inf"):
        trainer.save_checkpoint(tmp_path / "any.ckpt")


def test_a_checkpoint_elsewhere_is_named_by_its_place(fit, tmp_path):
    save = ModelCheckpoint(tmp_path / "elsewhere", "last", every_n_train_steps=1)
    trainer = lightning.Trainer(
        accelerator="cpu",
        callbacks=[NonFinite(), save],
        default_root_dir=tmp_path / "run",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_steps=6,
    )
    with pytest.raises(FloatingPointError, match=re.escape(f"(--ckpt_path {tmp_path / 'elsewhere/last.ckpt'} goes")):
        trainer.fit(network(), batches(nan_at=[(3, 2)]))


@pytest.mark.parametrize(
    ("options", "text"), [({"action": "halt"}, "choose stop or skip"), ({"max_skipped_in_a_row": 0}, "at least 1")]
)
def test_wrong_options(check_one_line, options, text):
    with pytest.raises(ValueError) as error:
        NonFinite(**options)
    check_one_line(error, text)
