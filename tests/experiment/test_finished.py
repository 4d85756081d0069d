"""A run that has ended and is started again says so, and leaves every file as it was."""

import json

import pytest
import torch
from fixtures.probe_runs import differences, kept

STOPPING = json.dumps(
    [
        {
            "class_path": "lightning.pytorch.callbacks.EarlyStopping",
            "init_args": {"monitor": "val/acc1", "mode": "min", "patience": 1},
        }
    ]
)
ENDINGS = {
    "epochs": ("--trainer.max_epochs=1",),
    "steps within an epoch": ("--trainer.max_epochs=-1", "--trainer.max_steps=8"),
    "EarlyStopping": ("--trainer.max_epochs=9", f"--trainer.callbacks={STOPPING}"),
}
NUM_STEPS = {"epochs": 6, "steps within an epoch": 8}


def content(run_dir):
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


def last(run_dir):
    return torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_finished_run_is_left_as_it_was(tmp_path, fit_probe, ending):
    run = tmp_path / "run"
    tested = "--test_after_fit=true"
    code, text = fit_probe(run, *ENDINGS[ending], tested)
    assert code == 0, text
    before, steps = content(run), last(run)["global_step"]
    assert steps == NUM_STEPS.get(ending, steps) and steps < 9 * 6
    results = json.loads((run / "results.json").read_text())["results"]
    assert {"best val/acc1", "last val/acc1", "last train/acc", "test/acc1"} <= results.keys()
    for _ in range(2):
        code, text = fit_probe(run, *ENDINGS[ending], tested)
        (line,) = [line for line in text.splitlines() if line.startswith("bnnlight fit: ")]
        assert code == 0 and f"the run in {run} has finished" in line and f"{steps} steps" in line
        assert content(run) == before


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_killed_behind_its_training_writes_the_results_it_would_have_written(tmp_path, fit_probe, ending):
    run = tmp_path / "run"
    code, text = fit_probe(run, *ENDINGS[ending], "--test_after_fit=true")
    assert code == 0, text
    before, steps = json.loads((run / "results.json").read_text()), last(run)["global_step"]
    (run / "results.json").unlink()
    code, text = fit_probe(run, *ENDINGS[ending], "--test_after_fit=true")
    assert code == 0 and last(run)["global_step"] == steps, text
    after = json.loads((run / "results.json").read_text())
    for told in (before, after):
        del told["command"]
    assert after == before


def test_a_test_that_was_left_out_is_made_up_for(tmp_path, fit_probe):
    run = tmp_path / "run"
    fit_probe(run, *ENDINGS["epochs"])
    code, text = fit_probe(run, *ENDINGS["epochs"], "--test_after_fit=true")
    assert code == 0 and "has finished" not in text
    results = json.loads((run / "results.json").read_text())["results"]
    assert {"test/acc1", "last val/acc1", "last train/acc"} <= results.keys()
    assert last(run)["global_step"] == 6


def test_a_run_that_EarlyStopping_ended_goes_on_as_long_as_its_new_patience_says(tmp_path, fit_probe):
    """Accuracy grows and is watched for falling: the best is the first epoch's, and all others are waited through."""
    falling = json.loads(STOPPING)
    run, lasting = tmp_path / "run", ENDINGS["EarlyStopping"]
    fit_probe(run, *lasting)
    ended_at = last(run)["global_step"] // 6
    falling[0]["init_args"]["patience"] = 4
    code, text = fit_probe(run, *lasting, f"--trainer.callbacks={json.dumps(falling)}")
    (state,) = [s for key, s in last(run)["callbacks"].items() if key.startswith("EarlyStopping")]
    assert code == 0 and state["patience"] == 4, text
    assert (last(run)["global_step"] // 6 > ended_at and state["wait_count"] == 4) or last(run)["global_step"] == 9 * 6


def test_a_run_that_is_to_be_longer_is_the_one_that_was_longer_from_the_start(tmp_path, fit_probe):
    steady = ("--model.scheduler=torch.optim.lr_scheduler.StepLR", "--model.scheduler.step_size=1")
    by_steps = (*steady, "--trainer.max_epochs=-1", "--flip_rates.interval=4")
    run = tmp_path / "run"
    code, text = fit_probe(run, *by_steps, "--trainer.max_steps=15")
    assert code == 0, text
    run.rename(tmp_path / "whole")
    for num_steps in (8, 12, 15):  # within an epoch, at an epoch's end
        code, text = fit_probe(run, *by_steps, f"--trainer.max_steps={num_steps}")
        assert code == 0 and "has finished" not in text, text
    one, other = last(tmp_path / "whole"), last(run)
    assert one["global_step"] == other["global_step"] == 15
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    for part in ("loops", "callbacks", "processes", "optimizer_states", "lr_schedulers"):
        assert differences(kept(one[part]), kept(other[part])) == [], part


def test_another_run_may_begin_where_one_was_ended_early(tmp_path, fit_probe):
    fit_probe(tmp_path / "run", *ENDINGS["EarlyStopping"])
    steps = last(tmp_path / "run")["global_step"]
    begin = f"--ckpt_path={tmp_path / 'run/checkpoints/last.ckpt'}"
    code, text = fit_probe(tmp_path / "other", "--trainer.max_epochs=6", begin, "--no_resume")
    assert code == 0 and steps < last(tmp_path / "other")["global_step"] == 36, text


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_that_an_earlier_version_finished_is_left_as_it_was(tmp_path, fit_probe, ending):
    run = tmp_path / "run"
    fit_probe(run, *ENDINGS[ending])
    path = run / "checkpoints/last.ckpt"
    kept = torch.load(path, weights_only=True)
    del kept["moment"], kept["processes"]
    # such a version saved last behind the last validation, within the epoch
    kept["loops"]["fit_loop"]["epoch_progress"]["total"]["completed"] -= 1
    torch.save(kept, path)
    before = content(run)
    code, text = fit_probe(run, *ENDINGS[ending])
    assert code == 0 and "has finished" in text and content(run) == before, text


def test_another_option_takes_up_no_run_that_was_ended_early(tmp_path, fit_probe):
    run = tmp_path / "run"
    fit_probe(run, "--trainer.max_epochs=6", f"--trainer.callbacks={STOPPING}")
    before = content(run)
    for other in ("--trainer.max_epochs=7", "--trainer.log_every_n_steps=2"):
        code, text = fit_probe(run, "--trainer.max_epochs=6", f"--trainer.callbacks={STOPPING}", other)
        assert code == 0 and "has finished" in text and content(run) == before, text


def test_what_ended_another_run_does_not_end_one_that_begins_from_it(tmp_path, fit_probe):
    fit_probe(tmp_path / "one", "--trainer.max_epochs=6", f"--trainer.callbacks={STOPPING}")
    begun = f"--ckpt_path={tmp_path / 'one/checkpoints/last.ckpt'}"
    code, text = fit_probe(tmp_path / "other", "--trainer.max_epochs=6", begun)
    assert code == 0 and last(tmp_path / "other")["global_step"] == 36, text


def test_a_run_whose_checkpoints_are_to_go_elsewhere_is_still_finished(tmp_path, fit_probe):
    run = tmp_path / "run"
    fit_probe(run, *ENDINGS["epochs"])
    before = content(run)
    elsewhere = f"--last_checkpoint.dirpath={tmp_path / 'elsewhere'}"
    code, text = fit_probe(run, *ENDINGS["epochs"], elsewhere)
    assert code == 0 and "has finished" in text and content(run) == before, text
    code, text = fit_probe(run, "--trainer.max_epochs=2", elsewhere)
    assert code == 0 and last(run)["global_step"] == 6, text
    assert torch.load(tmp_path / "elsewhere/last.ckpt", weights_only=True)["global_step"] == 12
    code, text = fit_probe(run, "--trainer.max_epochs=2")
    assert code == 0 and "has finished" in text, text


def test_what_ended_a_run_early_can_be_taken_away(tmp_path, fit_probe):
    run = tmp_path / "run"
    options = ("--trainer.max_epochs=6",)
    fit_probe(run, *options, f"--trainer.callbacks={STOPPING}")
    assert last(run)["global_step"] < 36
    code, text = fit_probe(run, *options, "--trainer.callbacks=null")
    assert code == 0 and last(run)["global_step"] == 36, text


def test_a_run_that_began_from_a_checkpoint_goes_on_where_it_has_come_to(tmp_path, fit_probe):
    fit_probe(tmp_path / "one", *ENDINGS["epochs"])
    start, run = tmp_path / "one/checkpoints/best.ckpt", tmp_path / "run"
    options = ("--trainer.max_epochs=3", f"--ckpt_path={start}")
    told = {"class_path": "noisy.Told", "init_args": {"hook": "on_train_batch_end", "step": 8}}
    code, text = fit_probe(run, *options, f"--trainer.callbacks={json.dumps([told])}")
    assert code == 75 and last(run)["global_step"] == 8, text
    start.unlink()
    # were it taken up at step 6, it would be stopped at step 8 again
    code, text = fit_probe(run, *options, f"--trainer.callbacks={json.dumps([told])}")
    assert code == 0 and last(run)["global_step"] == 18, text
    for again in (options, options[:1]):
        code, text = fit_probe(run, *again, f"--trainer.callbacks={json.dumps([told])}")
        assert code == 0 and "has finished" in text, text
