"""A run that is killed at any moment and goes on is the one that was not: the benchmark, in a short form."""

import importlib.util
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
OPTIONS = (
    *("--trainer.max_epochs=3", "--data.num_workers=1", "--model.backbone.width=0.0625"),
    *("--trainer.log_every_n_steps=1", "--last_checkpoint.steps=3", "--factor_ranks.interval=30"),
)


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("kill_resume", ROOT / "benchmarks/kill_resume.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_killed_in_training_and_in_saving(tmp_path, benchmark, configs):
    found = benchmark.compare(tmp_path, configs / "quickstart.yaml", OPTIONS, ["save", "training"], seed=0)
    assert found["differences"] == []
    assert found["wandb_run_ids"] == 1
    assert found["steps"] == 3 * 19
    # and it can tell runs apart
    path = tmp_path / "broken/checkpoints/best.ckpt"
    spoiled = torch.load(path, weights_only=True)
    next(iter(spoiled["state_dict"].values())).view(-1)[0] += 1e-6
    torch.save(spoiled, path)
    with (tmp_path / "broken/metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "train/loss": 1.0}\n')
    assert benchmark.differences(tmp_path / "whole", tmp_path / "broken") == ["best.ckpt: state_dict", "metrics.jsonl"]
