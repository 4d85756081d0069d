"""Lightning's private parts are where the adapter looks for them; another layout fails here with a clear word."""

import copy
import operator

import lightning
import pytest
import torch
from fixtures.small_network import Network, loader
from lightning.pytorch.callbacks import ModelCheckpoint

from bnnlight.guards import lightning_figures
from bnnlight.guards import lightning_internals as internals

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


class Look(lightning.Callback):
    """Keeps what it finds in some hooks."""

    def __init__(self):
        self.found, self.answers = {}, []

    def look(self, trainer, name):
        self.found.setdefault(name, (copy.deepcopy(trainer.fit_loop.state_dict()), internals.is_within_step(trainer)))

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == 2:
            self.look(trainer, "start")

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 2:
            self.look(trainer, "step")
            self.figures, self.sums = lightning_figures.figures(trainer), lightning_figures.sums(trainer)
            self.gradients = internals.gathered_gradients(trainer)
        loop = trainer.fit_loop.epoch_loop
        self.answers.append(
            (
                loop._num_ready_batches_reached(),
                loop._should_accumulate(),
                loop._should_check_val_fx(trainer.fit_loop._data_fetcher),
                loop._batches_that_stepped,
                trainer._logger_connector._first_loop_iter,
                loop.val_loop._has_run,
            )
        )

    def on_validation_start(self, trainer, *args):
        if not trainer.sanity_checking:
            self.look(trainer, "validation")

    def on_train_epoch_start(self, trainer, *args):
        if trainer.current_epoch == 1:
            self.look(trainer, "epoch")


class Summing(Network):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("mean", loss, on_epoch=True, on_step=True)
        self.log("most", torch.tensor(float(batch_idx)), on_epoch=True, on_step=False, reduce_fx="max")
        return loss


def trainer():
    return lightning.Trainer(accelerator="cpu", logger=False, callbacks=[ModelCheckpoint(".")])


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    look, checkpoint = Look(), ModelCheckpoint(tmp_path_factory.mktemp("a"))
    torch.manual_seed(0)
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, limit_train_batches=3, logger=False, callbacks=[look, checkpoint],
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Summing(), loader(4), loader(1))
    return trainer, look, checkpoint


def counts(loops, name):
    return loops[name]["total"], loops[name]["current"]


def test_the_counters_have_the_names_that_are_written(looked):
    loops, _ = looked[1].found["validation"]
    for name in ("epoch_loop.batch_progress", "epoch_progress", "epoch_loop.val_loop.batch_progress"):
        for part in counts(loops, name):
            assert set(part) == {"ready", "started", "processed", "completed"}, f"{name} has another layout"
    assert "_batches_that_stepped" in loops["epoch_loop.state_dict"]


@pytest.mark.parametrize(
    ("hook", "place", "batches", "epochs", "stepped"),
    [
        # a validation behind the third batch; the epoch is under way
        ("validation", "validation", (3, 3), (1, 0), 2),
        # in the hooks of the second step: two batches are done, whatever Lightning has counted by then
        ("step", "step", (2, 2), (1, 0), 1),
        ("step", "batch", (2, 2), (1, 0), 2),
        ("epoch", "epoch", (3, 3), (1, 1), 3),
    ],
)
def test_a_place_is_written_as_whole_steps(looked, hook, place, batches, epochs, stepped):
    loops, _ = looked[1].found[hook]
    found = internals.placed(loops, place)
    for part in counts(found, "epoch_loop.batch_progress"):
        assert set(part.values()) == set(batches)
    ready, done = epochs
    for part in counts(found, "epoch_progress"):
        assert part == {"ready": ready, "started": ready, "processed": done, "completed": done}
    assert found["epoch_loop.state_dict"]["_batches_that_stepped"] == stepped
    validation = found["epoch_loop.val_loop.batch_progress"]["total"]
    assert validation["started"] - validation["completed"] == (place in ("step", "validation"))


def test_a_step_is_told_from_what_is_between_two(looked):
    assert {name: within for name, (_, within) in looked[1].found.items()} == {
        "start": False, "step": True, "validation": False, "epoch": False,
    }  # fmt: skip


def test_sums_are_kept_as_plain_data(looked):
    look = looked[1]
    found = {entry["meta"]["name"]: entry for entry in look.sums}
    assert set(found) == {"mean", "most"} and found["most"]["meta"]["reduce_fx"] == "max"
    assert found["most"]["values"]["value"] == 1 and found["mean"]["values"]["cumulated_batch_size"] == 8
    assert look.gradients == {} and torch.equal(look.figures["callback"]["mean_step"], look.figures["callback"]["mean"])


def test_what_a_model_checkpoint_leaves_out_is_there(looked):
    trainer, _, checkpoint = looked
    (states,) = internals.checkpoint_states(trainer).values()
    assert states["_last_global_step_saved"] == 6 and states["_last_checkpoint_saved"] == checkpoint.best_model_path
    assert states["_defer_save_until_validation"] is False
    internals.restore_checkpoint_states(trainer, {checkpoint.state_key: states | {"_last_global_step_saved": 5}})
    assert checkpoint._last_global_step_saved == 5
    internals.forget_last_save(checkpoint)
    assert checkpoint._last_global_step_saved == 0


def test_this_lightning_has_all_that_is_relied_on():
    internals.check_layout(trainer())


PARTS = [*(("trainer", name) for name in internals._TRAINER), ("checkpoint", "_last_global_step_saved")]


@pytest.mark.parametrize(("owner", "name"), PARTS)
def test_a_part_that_is_gone_is_told_before_the_training(monkeypatch, owner, name):
    there = trainer()
    parent, _, last = name.rpartition(".")
    part = there.checkpoint_callback if owner == "checkpoint" else there
    part = operator.attrgetter(parent)(part) if parent else part
    place = next(place for place in (part, *type(part).__mro__) if last in vars(place))
    monkeypatch.delattr(place, last)
    line = rf"^lightning {lightning.__version__}: \w+ has no {name} any more: .*lightning_internals.py"
    with pytest.raises(ValueError, match=line):
        internals.check_layout(there)


def test_lightnings_answers_are_what_they_are_taken_for(looked):
    is_last = [False, False, True] * 2
    validates, accumulates, begins = is_last, [False] * 6, [True, False, False] * 2
    # a validation was, since the run began or was taken up
    validated = [False] * 3 + [True] * 3
    assert looked[1].answers == list(zip(is_last, accumulates, validates, range(6), begins, validated, strict=True))
