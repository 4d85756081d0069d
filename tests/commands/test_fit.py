"""What a run leaves behind, what it repeats, and how it fails."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from bnnlight.tracking import wandb_mode


def metrics(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_run_directory_holds_everything(digits_run):
    run_dir, _ = digits_run
    for name in ("config.yaml", "metrics.jsonl", "curves.png", "results.json", "checkpoints/best.ckpt"):
        assert (run_dir / name).is_file(), name
        assert (run_dir / name).stat().st_size > 0
    assert (run_dir / "checkpoints/last.ckpt").exists()
    assert Image.open(run_dir / "curves.png").size[0] > 1000
    assert len(list(run_dir.glob("wandb/offline-run-*/run-*.wandb"))) == 1
    assert not list(run_dir.rglob("*.part"))


def test_output_says_where_things_are_and_how_to_sync(digits_run):
    run_dir, out = digits_run
    offline = next(run_dir.glob("wandb/offline-run-*"))
    assert out.count("W&B is offline") == 1
    assert offline.parent == run_dir / "wandb" and f"wandb beta sync {offline.parent}" in out
    assert str(run_dir / "curves.png") in out
    assert "test/acc1" in out


def test_results_are_those_of_the_best_checkpoint(digits_run, bnnlight):
    run_dir, _ = digits_run
    results = json.loads((run_dir / "results.json").read_text())["results"]
    code, out, err = bnnlight(
        "test", "--config", run_dir / "config.yaml", "--ckpt_path", run_dir / "checkpoints/best.ckpt"
    )
    assert code == 0, err
    assert f"{100 * results['test/acc1']:.2f} %" in out
    validated = [row["val/acc1"] for row in metrics(run_dir) if "val/acc1" in row]
    assert results["best val/acc1"] == pytest.approx(max(validated))


def test_saved_config_is_whole_and_repeats_the_run(digits_run, bnnlight, quick, tmp_path):
    run_dir, _ = digits_run
    code, _, err = bnnlight("fit", "--config", run_dir / "config.yaml", *quick, f"--run_dir={tmp_path / 'again'}")
    assert code == 0, err
    first, again = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for folder in (run_dir, tmp_path / "again")
    )
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_another_seed_gives_other_weights(digits_run, bnnlight, quick, tmp_path):
    run_dir, _ = digits_run
    code, _, err = bnnlight(
        *("fit", "--config", run_dir / "config.yaml", *quick, "--seed_everything=1"),
        f"--run_dir={tmp_path / 'other'}",
    )
    assert code == 0, err
    weights = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]["backbone.classifier.weight"]
        for folder in (run_dir, tmp_path / "other")
    ]
    assert not torch.equal(*weights)


def test_saved_config_names_loggers_as_yaml_not_as_objects(digits_run):
    run_dir, _ = digits_run
    loggers = yaml.safe_load((run_dir / "config.yaml").read_text())["trainer"]["logger"]
    assert [entry["class_path"].rsplit(".", 1)[-1] for entry in loggers] == ["WandbRun", "MetricsFile"]


def test_flip_rates_of_every_layer_are_in_the_metrics_file(digits_run):
    run_dir, _ = digits_run
    names = {name for row in metrics(run_dir) for name in row}
    layers = [f"backbone.stages.{s}.0.unit{u}.conv" for s in (0, 1) for u in (1, 2)]
    for key in ("train/loss", "train/acc", "val/loss", "val/acc1", "val/acc5", "bnn/flip_rate_mean"):
        assert key in names
    for layer in layers:
        assert f"bnn/flip_rate/{layer}" in names


def test_ranks_alphas_activations_and_times_are_in_the_metrics_file_from_start_to_end(digits_run):
    run_dir, _ = digits_run
    rows = metrics(run_dir)
    layer = "backbone.stages.0.0.unit1.conv"
    last = json.loads((run_dir / "results.json").read_text())["num_steps"]

    def steps(key):
        return [row["step"] for row in rows if key in row]

    for key in (f"bnn/rank_effective/{layer}/mode0", f"bnn/rank_nominal/{layer}/factor1", f"bnn/alpha_mean/{layer}"):
        assert (steps(key)[0], steps(key)[-1]) == (0, last)
    assert last > 20
    shares = [f"bnn/{name}/{layer}" for name in ("positive", "dead", "cut")]
    for key in (*shares, "time/step", "time/data", "mem/peak"):
        assert steps(key) == list(range(20, last + 1, 20))


def test_a_run_that_ends_before_it_is_validated_ends_well_beside_checkpoints_of_the_users_own(bnnlight, quick, configs):
    own = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"every_n_train_steps": 1}}
    code, out, err = bnnlight(
        *("fit", "--config", configs / "quickstart.yaml", "--trainer.max_steps=1", "--run_dir=run", *quick),
        *("--model.backbone.width=0.0625", f"--trainer.callbacks={json.dumps([own])}"),
    )
    assert code == 0, err
    assert "best val/acc1" not in out and "test/acc1" not in out


def test_the_wandb_run_carries_config_code_layers_and_checkpoints(digits_run):
    run_dir, _ = digits_run
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(next(run_dir.glob("wandb/offline-*")))]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    config = {}
    for record in records:
        config |= record.get("config", {}).get("update", {})
    saved = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["model"] == json.loads(json.dumps(saved["model"])) and config["data"] == saved["data"]
    assert config["bnnlight"]["version"] == version("bnnlight")
    assert config["bnnlight"]["command"] == json.loads((run_dir / "results.json").read_text())["command"]
    summary = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert summary["bnn/layers"]["nrows"] == 4
    validated = [row["val/acc1"] for row in metrics(run_dir) if "val/acc1" in row]
    assert summary["val/acc1"] == pytest.approx({"max": max(validated), "last": validated[-1]})
    artifacts = [record["artifact"] for record in records if record.get("artifact", {}).get("type") == "model"]
    results = json.loads((run_dir / "results.json").read_text())["results"]
    expected = {"best": ("test/acc1", results["test/acc1"]), "last": ("val/acc1", results["last val/acc1"])}
    assert len({artifact["name"] for artifact in artifacts}) == 1
    for artifact, (alias, (key, value)) in zip(reversed(artifacts), expected.items(), strict=True):
        assert alias in artifact["aliases"]
        assert json.loads(artifact["metadata"])[key] == pytest.approx(value)
        (entry,) = artifact["manifest"]["contents"]
        # the checkpoint itself, not a second copy of it on the disk
        assert (entry["path"], Path(entry["local_path"])) == (f"{alias}.ckpt", run_dir / f"checkpoints/{alias}.ckpt")


def test_new_runs_get_directories_of_their_own(bnnlight, quick, configs, tmp_path):
    for _ in range(2):
        code, _, err = bnnlight(
            *("fit", "--config", configs / "quickstart.yaml", "--trainer.max_steps=1", "--test_after_fit=false"),
            *(*quick, "--trainer.limit_val_batches=1", "--model.backbone.width=0.0625"),
        )
        assert code == 0, err
    assert len(list((tmp_path / "runs/quickstart").iterdir())) == 2


def test_last_checkpoint_is_the_last_also_where_an_earlier_one_was_better(bnnlight, quick, configs, tmp_path):
    code, _, err = bnnlight(
        *("fit", "--config", configs / "quickstart.yaml", *quick, "--model.backbone.width=0.0625"),
        # by this measure the first epoch is the best
        *("--checkpoint.monitor=epoch", "--checkpoint.mode=min", "--trainer.max_epochs=3"),
        *("--trainer.limit_train_batches=2", "--test_after_fit=false", f"--run_dir={tmp_path / 'run'}"),
    )
    assert code == 0, err
    steps = {
        name: torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True)["global_step"]
        for name in ("best", "last")
    }
    assert steps == {"best": 2, "last": 6}
    # and the one before the last, in case that is damaged
    kept = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert kept == {"best.ckpt", "last.ckpt", "previous.ckpt"}


def test_a_run_that_ends_before_its_first_validation_is_not_lost(bnnlight, quick, configs, tmp_path):
    code, _, err = bnnlight(
        *("fit", "--config", configs / "quickstart.yaml", "--trainer.max_steps=3", *quick),
        *("--model.backbone.width=0.0625", f"--run_dir={tmp_path / 'run'}"),
    )
    assert code == 0, err
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["global_step"] == 3


def test_checkpoints_may_lie_elsewhere(bnnlight, quick, configs, tmp_path):
    code, out, err = bnnlight(
        *("fit", "--config", configs / "quickstart.yaml", *quick, "--model.backbone.width=0.0625"),
        *(f"--checkpoint.dirpath={tmp_path / 'kept'}", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"),
        *("--trainer.limit_test_batches=1", f"--run_dir={tmp_path / 'run'}"),
    )
    assert code == 0, err
    assert str(tmp_path / "kept/best.ckpt") in out
    assert (tmp_path / "run/results.json").is_file()


def test_a_run_directory_in_use_is_refused(digits_run, bnnlight_error):
    run_dir, _ = digits_run
    before = {p: p.stat().st_mtime_ns for p in run_dir.rglob("*") if p.is_file()}
    code, line = bnnlight_error("fit", "--config", run_dir / "config.yaml", f"--run_dir={run_dir}")
    assert code == 2
    assert str(run_dir) in line
    assert {p: p.stat().st_mtime_ns for p in run_dir.rglob("*") if p.is_file()} == before


def test_training_goes_on_from_a_checkpoint(digits_run, bnnlight, quick, tmp_path):
    run_dir, _ = digits_run
    code, _, err = bnnlight(
        *("fit", "--config", run_dir / "config.yaml", "--ckpt_path", run_dir / "checkpoints/last.ckpt"),
        *("--trainer.max_epochs=3", *quick, f"--run_dir={tmp_path / 'longer'}"),
    )
    assert code == 0, err
    steps = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]
        for folder in (run_dir, tmp_path / "longer")
    ]
    assert steps[1] == 3 * steps[0] // 2


@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_checkpoint_of_another_network(digits_run, bnnlight_error, configs, tmp_path, verb):
    run_dir, _ = digits_run
    checkpoint = run_dir / "checkpoints/best.ckpt"
    code, line = bnnlight_error(
        verb, "--config", configs / "quickstart.yaml", "--model.backbone.blocks=[1]", "--ckpt_path", checkpoint
    )
    assert code == 2
    for part in (str(checkpoint), "a different network", "backbone.stem.0.weight", "8×1×3×3"):
        assert part in line, line
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_missing_checkpoints(digits_run, bnnlight_error, tmp_path):
    run_dir, _ = digits_run
    whole = (run_dir / "checkpoints/best.ckpt").read_bytes()
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(whole[: len(whole) // 2])
    for checkpoint, word in ((damaged, "damaged"), (tmp_path / "none.ckpt", "not found")):
        code, line = bnnlight_error("test", "--config", run_dir / "config.yaml", "--ckpt_path", checkpoint)
        assert code == 2
        assert word in line
        assert str(checkpoint) in line


def test_no_checkpoint_to_test(bnnlight_error, configs):
    code, line = bnnlight_error("test", "--config", configs / "quickstart.yaml")
    assert code == 2
    assert "--ckpt_path" in line


@pytest.fixture
def folder_fit(configs, quick):
    """Options that train the small CIFAR network on class folders."""

    def options(root, *more):
        config = configs / "resnet18_imagenet.yaml"
        return (
            *("fit", "--config", config, f"--data.root={root}", "--data.image_size=32", "--data.batch_size=2"),
            *("--model.backbone.width=0.0625", "--trainer.devices=1", "--trainer.max_epochs=1", *quick, *more),
        )

    return options


def test_missing_data_folder(bnnlight_error, folder_fit, tmp_path):
    code, line = bnnlight_error(*folder_fit(tmp_path / "nowhere"))
    assert code == 2
    assert str(tmp_path / "nowhere") in line
    assert "--data.root" in line
    assert list(tmp_path.iterdir()) == []


def test_empty_data_folder(bnnlight_error, folder_fit, tmp_path):
    (tmp_path / "data/train").mkdir(parents=True)
    code, line = bnnlight_error(*folder_fit(tmp_path / "data"))
    assert code == 2
    assert str(tmp_path / "data/train") in line
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_class_folder_without_images(bnnlight_error, folder_fit, draw_folder, tmp_path):
    root = tmp_path / "data"
    for split in ("train", "val"):
        draw_folder(split, root=root)
        (root / split / "dodo").mkdir()
    code, line = bnnlight_error(*folder_fit(root))
    assert code == 2
    assert "dodo" in line
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_truncated_image_is_named(bnnlight_error, folder_fit, draw_folder, tmp_path, num_workers):
    root = tmp_path / "data"
    for split in ("train", "val"):
        draw_folder(split, root=root, size=(40, 40))
    broken = root / "train/bee/001.png"
    broken.write_bytes(broken.read_bytes()[:-30])
    options = (f"--data.num_workers={num_workers}", "--model.backbone.num_classes=3")
    code, line = bnnlight_error(*folder_fit(root, *options))
    assert code == 1
    assert str(broken) in line


def test_wandb_is_online_only_for_the_logged_in(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def mode(given=""):
        monkeypatch.setenv("WANDB_MODE", given)
        return wandb_mode()

    assert mode() == "offline"
    assert mode("online") == "online"
    (tmp_path / ".netrc").write_text("machine example.org login user password key\n")
    assert mode() == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password key\n")
    assert mode() == "online"
    assert mode("disabled") == "disabled"
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert mode() == "online"


def test_any_optimizer_and_scheduler_by_config(bnnlight, quick, configs, tmp_path):
    code, _, err = bnnlight(
        *("fit", "--config", configs / "quickstart.yaml", *quick, "--model.backbone.width=0.0625"),
        *("--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1", "--model.optimizer.momentum=0.9"),
        *("--model.scheduler=torch.optim.lr_scheduler.StepLR", "--model.scheduler.step_size=1"),
        *("--model.scheduler.gamma=0.5", "--trainer.max_epochs=2", "--trainer.limit_train_batches=2"),
        *("--trainer.limit_val_batches=1", "--test_after_fit=false", f"--run_dir={tmp_path / 'run'}"),
    )
    assert code == 0, err
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    assert all(group["momentum"] == 0.9 for group in groups)
    rates = {group["name"]: group["lr"] for group in groups}
    # halved once an epoch
    assert rates["weight"] == pytest.approx(0.1 / 2**2)
    assert rates["alpha"] == pytest.approx(0.1 * rates["weight"])
