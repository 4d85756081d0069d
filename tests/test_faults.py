"""What can go wrong while a run goes on for days: it is told in one line, and nothing that was saved is lost.

Here are those that need a whole run. A server of W&B out of reach: tests/tracking/test_wandb_run.py. Pictures that
cannot be read: tests/data/loading/test_bad_images.py. What a machine runs out of:
tests/console/test_machine_errors.py. Numbers that are not finite: tests/guards/test_non_finite.py. Hosts that die:
tests/test_two_hosts.py.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile

import pytest
import torch
import yaml

from bnnlight.experiment import run_lock
from bnnlight.tracking.fragments import find_fragments

FAULTS = """
import multiprocessing, os
import lightning as L


class Fault(L.Callback):
    def __init__(self, step: int, path: str = ""):
        self.step, self.path = step, path

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.step:
            self.happen()


class FullDisk(Fault):
    "From now on there is no room for what is being written."

    def happen(self):
        os.symlink("/dev/full", self.path)


class Gone(Fault):
    def happen(self):
        os.rename(self.path, self.path + "-unmounted")


class KilledWorker(Fault):
    def setup(self, *args, **kwargs):
        self.others = multiprocessing.active_children()  # of tests before, whose end would be no fault of this run

    def happen(self):
        next(child for child in multiprocessing.active_children() if child not in self.others).kill()
"""


@pytest.fixture
def fault(tmp_path, fit_probe):
    """Options that let a fault happen as a step begins."""
    (tmp_path / "faults.py").write_text(FAULTS)

    def at(kind, step, path=""):
        made = {"class_path": f"faults.{kind}", "init_args": {"step": step, "path": str(path)}}
        return f"--trainer.callbacks={json.dumps([made])}"

    return at


def files(run_dir):
    return {path.name: path.read_bytes() for path in (run_dir / "checkpoints").iterdir()}


def last_line(text):
    return text.rstrip().splitlines()[-1]


def steps(run_dir, name="last.ckpt"):
    return torch.load(run_dir / "checkpoints" / name, weights_only=True)["global_step"]


def test_disk_full_while_saving(tmp_path, fit_probe, fault, same_run):
    assert fit_probe(tmp_path / "whole")[0] == 0
    run_dir = tmp_path / "run"
    part = run_dir / "checkpoints/next.ckpt.part"
    code, text = fit_probe(run_dir, "--last_checkpoint.steps=2", fault("FullDisk", 5, part))
    # steps 2 and 4 are there, and at the end of the epoch there was no room
    assert code == 1 and "no space left" in last_line(text).lower() and "checkpoints" in last_line(text), text
    assert steps(run_dir) == 4 and steps(run_dir, "previous.ckpt") == 2
    assert set(files(run_dir)) == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert fit_probe(run_dir)[0] == 0
    same_run(tmp_path / "whole", run_dir)


STOP_AT_10 = json.dumps([{"class_path": "noisy.Told", "init_args": {"hook": "on_train_batch_end", "step": 10}}])


@pytest.mark.parametrize("how", ["cut off", "a bit", "empty"])
def test_a_damaged_checkpoint(tmp_path, fit_probe, same_run, how):
    assert fit_probe(tmp_path / "whole")[0] == 0
    run_dir = tmp_path / "run"
    assert fit_probe(run_dir, "--last_checkpoint.steps=4", f"--trainer.callbacks={STOP_AT_10}")[0] == 75
    path = run_dir / "checkpoints/last.ckpt"
    before = steps(run_dir, "previous.ckpt")
    assert 0 < before < steps(run_dir) == 10
    content = bytearray(path.read_bytes())
    if how == "a bit":
        with zipfile.ZipFile(path) as archive:
            largest = max(archive.infolist(), key=lambda entry: entry.file_size)
        content[largest.header_offset + largest.file_size // 2] ^= 4
    path.write_bytes(content if how == "a bit" else content[: len(content) // 3] if how == "cut off" else b"")
    code, text = fit_probe(run_dir)
    assert code == 0, text
    told = f"going on from {run_dir}/checkpoints/previous.ckpt, step {before}"
    assert "last.ckpt is damaged: " in text and told in text
    same_run(tmp_path / "whole", run_dir)
    assert (run_dir / "checkpoints/last.ckpt.damaged").exists()


def test_every_checkpoint_damaged(tmp_path, fit_probe):
    run_dir = tmp_path / "run"
    assert fit_probe(run_dir, "--trainer.max_steps=2")[0] == 0
    for path in (run_dir / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    before, rows = files(run_dir), (run_dir / "metrics.jsonl").read_bytes()
    code, text = fit_probe(run_dir)
    assert code == 2 and "is damaged: cut off or overwritten" in last_line(text) and "--run_dir" in last_line(text)
    assert files(run_dir) == before and (run_dir / "metrics.jsonl").read_bytes() == rows


PICTURES = (
    *("--data=bnnlight.data.ImageFolderDataModule", "--data.image_size=16", "--data.batch_size=4"),
    *("--model.backbone.in_channels=3", "--model.backbone.num_classes=3", "--data.num_workers=1"),
)


def test_the_data_folder_gone_in_mid_run(tmp_path, fit_probe, fault, same_run, draw_folder):
    root = draw_folder("train", num_images=14, root=tmp_path / "pictures")
    options = (*PICTURES, f"--data.root={root}")
    code, text = fit_probe(tmp_path / "whole", *options)
    assert code == 0, text
    run_dir = tmp_path / "run"
    code, text = fit_probe(run_dir, *options, "--last_checkpoint.steps=2", fault("Gone", 8, root))
    assert code == 1 and f"the folder {root} is gone, mount it again and resume" in last_line(text), text
    assert 6 <= steps(run_dir) < 18
    # and it is said before anything is begun while it stays away
    kept = files(run_dir)
    code, text = fit_probe(run_dir, *options)
    assert code == 2 and str(root) in last_line(text) and files(run_dir) == kept
    os.rename(f"{root}-unmounted", root)
    assert fit_probe(run_dir, *options)[0] == 0
    same_run(tmp_path / "whole", run_dir)


def test_a_corrupt_jpeg_that_is_replaced(tmp_path, fit_probe, same_run, draw_folder):
    root = draw_folder("train", num_images=14, root=tmp_path / "pictures")
    options = (*PICTURES, f"--data.root={root}", "--last_checkpoint.steps=1")
    assert fit_probe(tmp_path / "whole", *options)[0] == 0
    run_dir, picture = tmp_path / "run", root / "train/bee/005.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:40])
    code, text = fit_probe(run_dir, *options)
    assert code == 1 and f"cannot read image {picture}" in last_line(text), text
    picture.write_bytes(whole)
    assert fit_probe(run_dir, *options)[0] == 0
    same_run(tmp_path / "whole", run_dir)


def test_a_killed_worker(tmp_path, fit_probe, fault, same_run):
    options = ("--data.num_workers=1",)
    assert fit_probe(tmp_path / "whole", *options)[0] == 0
    run_dir = tmp_path / "run"
    code, text = fit_probe(run_dir, *options, "--last_checkpoint.steps=2", fault("KilledWorker", 9))
    assert code == 1 and "loader" in last_line(text) and "memory" in last_line(text), text
    assert "last.ckpt" in files(run_dir), (sorted(files(run_dir)), text)
    assert 8 <= steps(run_dir) < 18
    assert fit_probe(run_dir, *options)[0] == 0
    same_run(tmp_path / "whole", run_dir)


def test_a_worker_lost_between_the_two_moves_of_a_save(tmp_path, fit_probe, same_run, monkeypatch):
    assert fit_probe(tmp_path / "whole")[0] == 0
    run_dir, move = tmp_path / "run", os.replace

    def tell(source, target):
        move(source, target)
        if str(target).endswith("previous.ckpt") and steps(run_dir, "previous.ckpt") == 4:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", tell)
        code, text = fit_probe(run_dir, "--last_checkpoint.steps=2")
    assert code == 1 and "loader" in last_line(text) and "memory" in last_line(text), text
    assert steps(run_dir) == 6 and steps(run_dir, "previous.ckpt") == 4
    assert fit_probe(run_dir)[0] == 0
    same_run(tmp_path / "whole", run_dir)


def test_a_read_only_run_directory(tmp_path, configs):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    run_dir.chmod(0o555)
    command = [sys.executable, "-m", "bnnlight", "fit", "--config", configs / "quickstart.yaml", f"--run_dir={run_dir}"]
    if os.geteuid() == 0:  # for whom there is no permission, unless that power is taken away
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    env = {**os.environ, "WANDB_MODE": "disabled", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*map(str, command), "--resume"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    text = f"cannot write to the run's directory {run_dir}: permission denied; choose another --run_dir"
    assert last_line(done.stderr) == f"bnnlight fit: error: {text}"
    assert list(run_dir.iterdir()) == []


def test_two_runs_in_one_directory(tmp_path, fit_probe, monkeypatch):
    run_dir = tmp_path / "run"
    assert fit_probe(run_dir, "--trainer.max_steps=2")[0] == 0
    kept = files(run_dir)
    hold = "import sys; from pathlib import Path; from bnnlight.experiment.run_lock import RunLock"
    hold += "; lock = RunLock(Path(sys.argv[1])); print('held', flush=True); input()"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen([sys.executable, "-c", hold, run_dir], env=env, **pipes)
    try:
        assert other.stdout.readline() == b"held\n"
        monkeypatch.setattr(run_lock, "_PATIENCE_S", 0.3)
        code, text = fit_probe(run_dir)
        assert code == 1 and f"{run_dir} is in use by another run (process {other.pid} on " in last_line(text)
        assert files(run_dir) == kept
    finally:
        other.kill()
        other.communicate()
    # the lock went with the process that was killed
    assert fit_probe(run_dir, "--trainer.max_steps=3")[0] == 0


def test_a_config_changed_between_stop_and_resume(tmp_path, fit_probe):
    run_dir = tmp_path / "run"
    assert fit_probe(run_dir, "--trainer.max_epochs=1")[0] == 0
    kept, config = files(run_dir), (run_dir / "config.yaml").read_bytes()
    # what cannot take effect, as the optimizer's state is in the checkpoint, is not left out without a word
    code, text = fit_probe(run_dir, "--model.optimizer.lr=0.02")
    line = last_line(text)
    assert code == 2 and "model.init_args.optimizer.init_args.lr: 0.01 -> 0.02" in line, text
    assert f"--config {run_dir}/config.yaml" in line
    for change in ("--seed_everything=3", "--model.backbone.width=0.125", "--data.split_seed=1"):
        assert fit_probe(run_dir, change)[0] == 2
    assert files(run_dir) == kept and (run_dir / "config.yaml").read_bytes() == config
    # what can is told, takes effect, and stands in the run's config from then on
    code, text = fit_probe(run_dir, "--trainer.max_epochs=2", "--data.num_workers=1")
    assert code == 0, text
    told = [line for line in text.splitlines() if line.startswith("bnnlight fit: changed since the run began: ")]
    assert [line.rsplit(": ", 2)[1:] for line in told] == [
        ["trainer.max_epochs", "1 -> 2"],
        ["data.init_args.num_workers", "0 -> 1"],
    ]
    assert steps(run_dir) == 12
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["trainer"]["max_epochs"] == 2


def test_an_option_that_there_was_not_yet_when_the_run_began(tmp_path, fit_probe):
    """A run of days outlives an update, which brings options with it."""
    run_dir = tmp_path / "run"
    assert fit_probe(run_dir, "--trainer.max_epochs=1")[0] == 0
    config = run_dir / "config.yaml"
    older = yaml.safe_load(config.read_text())
    assert older["model"]["init_args"].pop("alpha_lr") == 0.1
    assert "activation" in older["model"]["init_args"]["backbone"]["init_args"]
    del older["model"]["init_args"]["backbone"]["init_args"]["activation"]
    config.write_text(yaml.safe_dump(older))
    kept = files(run_dir)
    code, text = fit_probe(run_dir, "--trainer.max_epochs=2", "--model.alpha_lr=0.2")
    assert code == 2 and "model.init_args.alpha_lr: 0.1 -> 0.2" in last_line(text), text
    assert files(run_dir) == kept
    code, text = fit_probe(run_dir, "--trainer.max_epochs=2")
    assert code == 0, text
    told = [line for line in text.splitlines() if line.startswith("bnnlight fit: changed since the run began: ")]
    assert [line.rsplit(": ", 2)[1] for line in told] == ["trainer.max_epochs"]
    assert steps(run_dir) == 12
    assert yaml.safe_load(config.read_text())["model"]["init_args"]["alpha_lr"] == 0.1


def test_another_batch_size_within_an_epoch(tmp_path, fit_probe):
    run_dir = tmp_path / "run"
    assert fit_probe(run_dir, "--trainer.max_steps=4", "--trainer.limit_val_batches=0")[0] == 0
    code, text = fit_probe(run_dir, "--trainer.limit_val_batches=0", "--data.batch_size=32")
    assert code == 2 and "a step took 64 pictures in all processes, and now it takes 32" in last_line(text), text


@pytest.mark.slow
def test_a_clock_that_jumps(tmp_path, configs, bnnlight):
    """The second start thinks it is a day earlier; W&B orders the starts of a run by their time."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\nreal = time.time\ntime.time = lambda: real() + float(os.environ['CLOCK'])\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT"))}
    env |= {"WANDB_MODE": "offline", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "OMP_NUM_THREADS": "1"}
    options = ("--trainer.enable_progress_bar=false", "--model.backbone.width=0.0625", "--test_after_fit=false")
    days = [time.strftime("%Y%m%d", time.localtime(time.time() - 86400))]
    for epochs, clock in ((2, 0), (4, -86400)):
        command = [sys.executable, "-m", "bnnlight", "fit", "--config", str(configs / "quickstart.yaml"), *options]
        command += [f"--run_dir={tmp_path / 'run'}", "--resume", f"--trainer.max_epochs={epochs}"]
        done = subprocess.run(command, env={**env, "CLOCK": str(clock)}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    starts = find_fragments(tmp_path / "run")
    assert len(starts) == 2
    days.append(time.strftime("%Y%m%d", time.localtime(time.time() - 86400)))  # midnight may have passed
    assert all(start.parent.name.split("run-")[1].startswith(tuple(days)) for start in starts)
    assert starts[0].stat().st_size != starts[1].stat().st_size
    code, out, err = bnnlight("compare", "--json", tmp_path / "run/wandb")
    assert code == 0, err
    (run,) = json.loads(out)["runs"]
    assert run["starts"] == 2 and run["series"]["val/acc1"]["steps"] == [18, 37, 56, 75]
    assert steps(tmp_path / "run") == 76
    shutil.rmtree(tmp_path / "run")
