"""Runs of the real command that meet NaN: one process and two."""

import json
import os
import re
import sys

import pytest
import torch
from fixtures.processes import run_to_end

PROBE = """
import math
import torch
from bnnlight.data import DigitsDataModule
from bnnlight.tasks import ClassificationTask


class BadDigits(DigitsDataModule):
    "The fourth step's picture 2 has a pixel that is NaN, in the last process."

    def on_after_batch_transfer(self, batch, dataloader_idx):
        last = self.trainer.global_rank == self.trainer.world_size - 1
        if self.trainer.training and self.trainer.global_step == 3 and last:
            batch[0][2, 0, 1, 1] = math.nan
        return batch


class BadLoss(ClassificationTask):
    "The loss of rank 1 is inf at the third step; its gradient is what it is."

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss + math.inf if self.global_rank == 1 and batch_idx == 2 else loss

    def on_train_end(self):
        kept = {name: value for name, value in self.state_dict().items() if "running" not in name}
        torch.save(kept, f"rank{self.global_rank}.pt")
"""
SHORT = (
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=6", "--trainer.limit_val_batches=1"),
    *("--model.backbone.width=0.0625", "--test_after_fit=false", "--num_threads=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu"),
)


@pytest.fixture
def probe(tmp_path, monkeypatch):
    (tmp_path / "probe.py").write_text(PROBE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "probe", raising=False)


def skipped(run_dir):
    rows = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["train/skipped_batches"] for row in rows if "train/skipped_batches" in row}


@pytest.mark.usefixtures("probe")
def test_a_run_stops_with_one_line_and_goes_on_with_skip(bnnlight, bnnlight_error, configs, tmp_path):
    run_dir = tmp_path / "RUN"
    # saved every two steps: at two, and not after it
    command = ("fit", "--config", configs / "quickstart.yaml", "--data=probe.BadDigits", "--run_dir", run_dir, *SHORT)
    command += ("--trainer.val_check_interval=2", "--trainer.logger=bnnlight.tracking.MetricsFile")
    code, line = bnnlight_error(*command)
    assert code == 3
    assert line.startswith("bnnlight fit: error: step 4 (epoch 0, batch 3): the loss is ")
    last = run_dir / "checkpoints/last.ckpt"
    for part in (
        "where it begins: the batch itself: batch[0] holds nan in item 2 of 64.",
        "The weights are those before this step: lower the learning rate, look at the batch, "
        "or pass --non_finite.action skip.",
        f"Last good checkpoint: {last} (--run_dir {run_dir} --resume goes on from it",
    ):
        assert part in line
    kept = [torch.load(path, weights_only=False) for path in run_dir.rglob("*.ckpt")]
    assert {checkpoint["global_step"] for checkpoint in kept} == {2}
    assert all(value.isfinite().all() for checkpoint in kept for value in checkpoint["state_dict"].values())
    assert not (run_dir / "results.json").exists()

    code, _, err = bnnlight(*command, "--resume", "--non_finite.action=skip")
    assert code == 0, err
    assert re.search(r"^bnnlight: step 4 \(epoch 0, batch 3\): .* in item 2 of 64\. The step is skipped$", err, re.M)
    assert skipped(run_dir) == {4: 1}
    last = torch.load(last, weights_only=False)
    assert last["global_step"] == 6
    assert all(value.isfinite().all() for value in last["state_dict"].values())
    assert last["callbacks"]["NonFinite"] == {"num_skipped": 1, "num_in_a_row": 0}


@pytest.fixture
def two_processes(configs, tmp_path):
    """Run the real command in two processes that sync batch norm; return what became of it."""

    def run(*options):
        command = [
            *(sys.executable, "-m", "bnnlight", "fit", "--config", str(configs / "quickstart.yaml"), "--run_dir=RUN"),
            *("--trainer.devices=2", "--trainer.sync_batchnorm=true", "--data.batch_size=32", *SHORT, *options),
            "--trainer.logger=bnnlight.tracking.MetricsFile",
        ]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT", "PL_"))}
        env |= {"HOME": str(tmp_path), "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        # the folder comes before the one that holds the package
        env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
        return run_to_end(command, env, tmp_path)

    return run


@pytest.mark.usefixtures("probe")
@pytest.mark.parametrize(
    ("bad", "where", "what"),
    [
        ("--model=probe.BadLoss", "step 3 (epoch 0, batch 2, rank 1): the loss is inf, ", "the loss itself, "),
        (
            "--data=probe.BadDigits",
            "step 4 (epoch 0, batch 3, rank 1): ",
            "the batch itself: batch[0] holds nan in item 2 of 32. ",
        ),
    ],
    ids=["loss", "picture"],
)
def test_two_processes_stop_with_one_line_from_the_rank_that_is_bad(two_processes, bad, where, what):
    done = two_processes(bad)
    assert done.returncode == 3, done.stderr
    lines = [line for line in done.stderr.splitlines() if "error" in line or "Error" in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"bnnlight fit: error: {where}")
    assert f"where it begins: {what}" in lines[0]


@pytest.mark.usefixtures("probe")
def test_two_processes_skip_together(two_processes, tmp_path):
    done = two_processes("--model=probe.BadLoss", "--non_finite.action=skip")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "skipped" in line]
    assert lines == ["bnnlight: step 3 (epoch 0, batch 2, rank 1): the loss is inf. The step is skipped"]
    assert skipped(tmp_path / "RUN") == {3: 1}
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert all(torch.equal(second[name], value) for name, value in first.items())
    # five steps of six reached the optimizer
    kept = torch.load(tmp_path / "RUN/checkpoints/last.ckpt", weights_only=False)
    assert kept["global_step"] == 6
    assert {int(state["step"]) for state in kept["optimizer_states"][0]["state"].values()} == {5}
