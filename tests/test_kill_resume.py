"""A run that is killed and goes on is the one that was not: the benchmark, with moments that are not left to chance."""

import contextlib
import importlib.util
from pathlib import Path

import pytest
import torch
from fixtures.processes import Started

ROOT = Path(__file__).parents[1]
OPTIONS = (
    *("--trainer.max_epochs=3", "--data.num_workers=1", "--model.backbone.width=0.0625"),
    *("--trainer.log_every_n_steps=1", "--last_checkpoint.steps=3", "--factor_ranks.interval=30"),
)


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("kill_resume", ROOT / "benchmarks/reliability/kill_resume.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow  # minutes; test_resume compares a stopped run with an unbroken one each time
def test_killed_in_training_and_in_saving(tmp_path, benchmark, configs):
    runs = [
        benchmark.Run(tmp_path / name, configs / "quickstart.yaml", OPTIONS, "fixtures.held.Batches")
        for name in ("whole", "broken")
    ]
    whole, broken = runs
    whole.end()
    for where in ("save 6", "training 20"):
        held = tmp_path / where
        # W&B's process is killed as well: it would go on writing
        process = Started(broken.command, {**broken.environment, "HOLD": f"{where} {held}"})
        with contextlib.closing(process):
            process.wait_until(held.exists)
        assert (tmp_path / "broken/checkpoints/next.ckpt.part").exists() == where.startswith("save")
    broken.end()
    assert benchmark.differences(tmp_path / "whole", tmp_path / "broken") == []
    last = torch.load(tmp_path / "broken/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 3 * 19
    # and it can tell runs apart
    path = tmp_path / "broken/checkpoints/best.ckpt"
    spoiled = torch.load(path, weights_only=True)
    next(iter(spoiled["state_dict"].values())).view(-1)[0] += 1e-6
    torch.save(spoiled, path)
    with (tmp_path / "broken/metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "train/loss": 1.0}\n')
    assert benchmark.differences(tmp_path / "whole", tmp_path / "broken") == ["best.ckpt: state_dict", "metrics.jsonl"]
