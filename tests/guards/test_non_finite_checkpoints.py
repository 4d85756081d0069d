"""No checkpoint is written with numbers that are not finite."""

import math
import re

import lightning
import pytest
import torch
from fixtures.spoiled_network import Poke, batches, network
from lightning.pytorch.callbacks import ModelCheckpoint

from bnnlight.guards.non_finite import NonFinite

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore:.*LeafSpec.*")


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
