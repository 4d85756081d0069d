"""What would end or spoil a run later is one line before any data are trained on."""

import copy
import json

import pytest
import torch

from bnnlight.backbones import StackedHourglass
from bnnlight.data import DigitsDataModule
from bnnlight.tasks import ClassificationTask
from bnnlight.tasks.dry_run import answer, picture_shape

NETWORKS = """
import torch

class Own(torch.nn.Module):
    "Takes 16×16 px alone."
    def __init__(self, num_outputs: int = 10, channels: int = 1, side: int = 8):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, 4, 3, padding=1)
        self.last = torch.nn.Linear(4 * side**2, num_outputs)
    def forward(self, x):
        return self.last(self.conv(x).flatten(1))
"""
MODEL = "--model.backbone"
EARLY = "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping"
PLATEAU = "--model.scheduler=lightning.pytorch.cli.ReduceLROnPlateau"
WRONG = {
    (f"{MODEL}.num_classes=3",): ("the data have 10 classes", "model.backbone.num_classes to 10"),
    (f"{MODEL}.num_classes=1000",): ("the data have 10 classes", "model.backbone.num_classes to 10"),
    (f"{MODEL}.in_channels=3",): ("1 channel", "takes 3", "model.backbone.in_channels to 1"),
    (f"{MODEL}=own_networks.Own", f"{MODEL}.num_outputs=7"): ("the data have 10 classes", "distinguishes 7"),
    (f"{MODEL}=own_networks.Own", f"{MODEL}.channels=3"): ("1 channel", "takes 3"),
    (f"{MODEL}=own_networks.Own", f"{MODEL}.side=16"): ("8×8 px", "does not take them"),
    ("--checkpoint.monitor=val/acc",): ("checkpoint.monitor is 'val/acc'", "never logs", "did you mean val/acc1?"),
    ("--checkpoint.monitor=val_loss",): ("'val_loss'", "did you mean val/loss?"),
    ("--checkpoint.monitor=test/acc1",): ("'test/acc1'", "never logs"),
    ("--checkpoint.monitor=bnn/flip_rate_mean",): ("'bnn/flip_rate_mean'", "goes only to the loggers"),
    (EARLY, "--trainer.callbacks.monitor=loss"): ("EarlyStopping monitors 'loss'", "never logs"),
    (PLATEAU, "--model.scheduler.monitor=val/los"): ("ReduceLROnPlateau monitors 'val/los'", "val/loss?"),
    (EARLY, "--trainer.callbacks.monitor=val/loss", "--trainer.limit_val_batches=0"): ("EarlyStopping", "limit_val"),
    ("--trainer.check_val_every_n_epoch=2",): ("no validation would ever take place", "check_val_every_n_epoch is 2"),
    ("--trainer.val_check_interval=20",): ("val_check_interval is 20 batches", "an epoch has 19"),
    ("--trainer.val_check_interval=20", "--trainer.check_val_every_n_epoch=null"): ("no validation", "the run has 19"),
    ("--ckpt_path=nowhere/best.ckpt",): ("checkpoint not found: nowhere/best.ckpt",),
}  # fmt: skip


@pytest.mark.parametrize("options", WRONG, ids=" ".join)
def test_said_before_anything_is_trained(bnnlight_error, configs, quick, tmp_path, monkeypatch, options):
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(tmp_path)
    steps = []
    monkeypatch.setattr(ClassificationTask, "training_step", lambda *args: steps.append(args))
    code, line = bnnlight_error(
        *("fit", "--config", configs / "quickstart.yaml", *quick, "--run_dir=run", "--trainer.max_epochs=1"),
        *(*(() if "own_networks" in options[0] else (f"{MODEL}.width=0.0625",)), *options),
    )
    assert code == 2 and steps == []
    for part in WRONG[options]:
        assert part in line, line
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    "options",
    [
        (EARLY, "--trainer.callbacks.monitor=val/acc5", "--checkpoint.monitor=train/loss"),
        (PLATEAU, "--model.scheduler.monitor=train/loss"),
        ("--checkpoint.monitor=null", "--trainer.limit_val_batches=0"),
        ("--trainer.limit_val_batches=0",),
    ],
)
def test_what_is_right_trains(bnnlight, configs, quick, options):
    code, _, err = bnnlight(
        *("fit", "--config", configs / "quickstart.yaml", *quick, f"{MODEL}.width=0.0625", "--trainer.max_epochs=1"),
        *("--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1", "--test_after_fit=false", *options),
    )
    assert code == 0, err
    # a validation that was turned off is told, since the best checkpoint goes with it
    assert ("no best checkpoint" in err) == (options == ("--trainer.limit_val_batches=0",))


def test_wrong_heat_maps(bnnlight_error, configs, quick, data_for):
    options = data_for("PeopleDataModule")
    for wrong, parts in (
        ("--model.backbone.num_joints=14", ("16 joints", "model.backbone.num_joints to 16")),
        ("--checkpoint.monitor=val/pckk", ("'val/pckk'", "did you mean val/pck")),
    ):
        code, line = bnnlight_error("fit", "--config", configs / "hg_people.yaml", *quick, *options, wrong)
        assert code == 2 and all(part in line for part in parts), line


def test_options_of_a_network_that_is_wrapped_are_named_as_they_are_typed(
    bnnlight_error, configs, quick, data_for, tmp_path
):
    network = {"num_joints": 14, "features": 16, "depth": 2}
    torch.save(StackedHourglass(**network).state_dict(), tmp_path / "start.pt")
    inner = {"class_path": "bnnlight.backbones.StackedHourglass", "init_args": network}
    start = {"model": inner, "checkpoint": str(tmp_path / "start.pt")}
    backbone = json.dumps({"class_path": "bnnlight.nn.start_from", "init_args": start})
    twice = {"class_path": "bnnlight.nn.real_valued", "init_args": {"model": json.loads(backbone)}}
    given = ("--config", configs / "hg_people.yaml", *data_for("PeopleDataModule"))
    for option, path in ((backbone, "model.backbone.model"), (json.dumps(twice), "model.backbone.model.model")):
        for verb in ("fit", "check"):
            more = quick if verb == "fit" else ()
            code, line = bnnlight_error(verb, *given, *more, f"--model.backbone={option}")
            assert code == 2 and f"set {path}.num_joints to 16" in line, line


def test_no_pckh_without_head_boxes(bnnlight_error, configs, quick, data_for):
    options = data_for("LSPDataModule")
    code, line = bnnlight_error(
        "fit", "--config", configs / "hg_lsp_small.yaml", *quick, *options, "--checkpoint.monitor=val/pckh"
    )
    assert code == 2 and "'val/pckh', which the task never logs: did you mean val/pck" in line


def test_looking_changes_nothing():
    class Counts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.last = torch.nn.BatchNorm2d(1), torch.nn.Linear(64, 10)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.last(torch.nn.functional.dropout(self.norm(x).flatten(1), 0.5, training=True))

    task = ClassificationTask(Counts())
    task.backbone.norm.eval()
    before, modes = copy.deepcopy(task.state_dict()), [module.training for module in task.modules()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    assert answer(task, picture_shape(DigitsDataModule())).shape == (1, 10)
    assert torch.equal(torch.rand(4), expected)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert [module.training for module in task.modules()] == modes


def test_shape_of_a_users_own_pictures():
    class Own:
        def train_dataloader(self):
            return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(5, 2, 6, 7), torch.zeros(5)))

    assert picture_shape(Own()) == (2, 6, 7)
    assert picture_shape(None) is None and picture_shape(object()) is None
    # one that has no weights yet is left to its first step
    with torch.device("meta"):
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    assert answer(ClassificationTask(network), (1, 4, 4)) is None
