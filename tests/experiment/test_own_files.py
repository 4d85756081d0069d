"""A run that goes on writes its own later files again, and no others."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from bnnlight.experiment.checkpoint_io import RUN, WholeCheckpointIO
from bnnlight.experiment.own_files import Start, leave_last, write_over_own
from bnnlight.guards.moment import MOMENT

TRAINER = SimpleNamespace(
    is_global_zero=True,
    strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
)


def save(path, step, run="mine", **more):
    WholeCheckpointIO(run).save_checkpoint({"global_step": step, "optimizer_states": [], **more}, path)


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ({"step": 9}, "a"),
        ({"step": 8}, "a-v1"),  # before the stop: the run knows of it, or has it left to it
        ({"step": 9, "run": "another"}, "a-v1"),
        ({"step": 9, "run": None}, "a-v1"),
        (None, "a"),
    ],
)
def test_which_files_are_written_again(tmp_path, written, wanted):
    checkpoint = ModelCheckpoint(tmp_path, filename="a", monitor="val/acc1")
    if written:
        save(tmp_path / "a.ckpt", **written)
    save(tmp_path / "last.ckpt", 8)
    write_over_own(checkpoint, Start.of(str(tmp_path / "last.ckpt")))
    name = checkpoint._get_metric_interpolated_filepath_name({}, TRAINER)
    assert name == str(tmp_path / f"{wanted}.ckpt")
    # what this start itself has written is another checkpoint
    save(name, 12)
    assert checkpoint._get_metric_interpolated_filepath_name({}, TRAINER) != name


def test_files_that_it_knows_of_are_its_own_to_keep(tmp_path):
    checkpoint = ModelCheckpoint(tmp_path, filename="a", monitor="val/acc1")
    save(tmp_path / "a.ckpt", 9)
    checkpoint.best_k_models = {str(tmp_path / "a.ckpt"): torch.tensor(0.5)}
    write_over_own(checkpoint, Start("mine", 9))
    assert checkpoint.file_exists(str(tmp_path / "a.ckpt"), TRAINER)


@pytest.mark.parametrize(
    ("moment", "first"),
    [({"place": "epoch", "callbacks": None}, 9), ({"place": "validation", "callbacks": {}}, 8), ({"place": "step"}, 8)],
)
def test_hooks_that_run_again_write_the_files_of_their_step_again(tmp_path, moment, first):
    save(tmp_path / "last.ckpt", 8, **{MOMENT: moment})
    assert Start.of(str(tmp_path / "last.ckpt")) == Start("mine", first)


def test_a_run_that_is_taken_up_at_an_earlier_checkpoint_writes_all_later_files_again(tmp_path):
    save(tmp_path / "last.ckpt", 8)
    save(tmp_path / "early.ckpt", 3, run="another")
    assert Start.of(str(tmp_path / "last.ckpt"), str(tmp_path / "early.ckpt")) == Start("mine", 4)
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    assert Start.of(str(tmp_path / "last.ckpt"), str(tmp_path / "broken.ckpt")) == Start("mine")


def test_a_run_keeps_its_name_and_a_new_one_has_another(tmp_path):
    assert Start.of(None).run != Start.of(None).run
    save(tmp_path / "last.ckpt", 8)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)[RUN] == "mine"


@pytest.mark.parametrize(
    ("folder", "name", "wanted"),
    [("here", "last", "last-v1"), (None, "last", "last-v1"), ("there", "last", "last"), ("here", "newest", "newest")],
)
def test_last_is_left_to_the_runs_own(tmp_path, folder, name, wanted):
    checkpoint = ModelCheckpoint(folder and tmp_path / folder, save_last=True)
    checkpoint.CHECKPOINT_NAME_LAST = name
    leave_last(checkpoint, str(tmp_path / "here"))
    path = checkpoint.format_checkpoint_name({}, checkpoint.CHECKPOINT_NAME_LAST)
    assert path.endswith(f"{wanted}.ckpt")
