"""Every shipped config trains two real steps through the real entry point."""

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

ROOT = Path(__file__).parents[1] / "configs"
# what starts experiments, or changes one, is none: see test_sweeps.py, matrix/test_shipped.py, test_methods.py,
# test_method_parts.py and test_recipes.py
OTHERS = ("sweeps", "matrix", "methods", "optimizers")
CONFIGS = sorted(path for path in ROOT.glob("**/*.yaml") if path.parent.name not in OTHERS)


def test_there_are_configs():
    assert {c.name for c in CONFIGS} >= {
        "quickstart.yaml",
        "resnet18_imagenet.yaml",
        "resnet18_cifar10.yaml",
        "resnet18_cifar10_recu.yaml",
        "resnet_small_cifar10.yaml",
        "resnet_medium_cifar10.yaml",
        "resnet_small_fashion.yaml",
        "resnet_small_imagenette.yaml",
        "hg_mpii.yaml",
        "hg2_mpii.yaml",
        "hg_lsp.yaml",
        "hg_lsp_small.yaml",
        "hg_people.yaml",
        "hg_coco.yaml",
        "hg_coco_small.yaml",
        "hg_hands_small.yaml",
    }


def _kind(content):
    if "methods" in content:
        return "matrix"
    if set(content) == {"model"} and set(content["model"]["init_args"]) == {"optimizer"}:
        return "optimizers"
    # an overlay names no task and no data, which are the experiment's
    if content.keys() <= {"model", "data", "trainer"} and "class_path" not in content.get("model", {}):
        return "methods"
    return "sweeps" if "method" in content else "configs"


def test_each_folder_holds_files_of_one_kind():
    kinds = {path: _kind(yaml.safe_load(path.read_text())) for path in ROOT.glob("**/*.yaml")}
    assert {(path.parent.name, kind) for path, kind in kinds.items()} == {(k, k) for k in ("configs", *OTHERS)}
    content = {path: yaml.safe_load(path.read_text()) for path in CONFIGS}
    assert [path for path in CONFIGS if not {"model", "data", "trainer"} <= content[path].keys()] == []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_two_real_steps(bnnlight, quick, data_for, config, tmp_path):
    content = yaml.safe_load(config.read_text())
    options = data_for(content["data"]["class_path"].rsplit(".", 1)[-1])
    code, out, err = bnnlight(
        *("fit", "--config", config, *options, *quick, f"--run_dir={tmp_path / 'run'}", "--trainer.devices=1"),
        *("--trainer.max_epochs=1", "--trainer.limit_train_batches=2"),
        *("--trainer.limit_val_batches=2", "--trainer.limit_test_batches=2"),
    )
    assert code == 0, err
    checkpoint = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    # two steps of an optimizer that reached the factors: their moments are there and not all zero
    states = checkpoint["optimizer_states"][0]["state"].values()
    kinds = ("exp_avg", "square_avg", "momentum_buffer")
    moments = [next(state[kind] for kind in kinds if kind in state) for state in states]
    assert all(moment.abs().sum() > 0 for moment in moments)
    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    backbones = [c["model"]["init_args"]["backbone"]["class_path"] for c in (saved, content)]
    assert backbones[0] == backbones[1]
    assert ("test/pck" if "PoseTask" in content["model"]["class_path"] else "test/acc1") in out


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_opens_with_its_command_hardware_and_result(config):
    comment = "".join(line for line in config.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert f"bnnlight fit --config configs/{config.name}" in comment
    for word in ("Hardware:", "Time", "esult"):
        assert word in comment, f"{config.name} does not say {word}"


def test_real_data_with_one_command(bnnlight, quick, real_data, configs, tmp_path):
    root = real_data("imagenette72")
    assert Image.open(next((root / "train").glob("*/*"))).mode == "RGB"
    code, _, err = bnnlight(
        *("fit", "--config", configs / "resnet18_imagenet.yaml", f"--data.root={root}", "--data.image_size=64"),
        *("--data.batch_size=8", "--model.backbone.width=0.125", "--model.backbone.num_classes=10", *quick),
        f"--run_dir={tmp_path / 'run'}",
        *("--trainer.devices=1", "--trainer.max_steps=2", "--trainer.limit_val_batches=2"),
        *("--trainer.limit_test_batches=2", "--data.num_workers=0"),
    )
    assert code == 0, err
    assert torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)["class_names"][0] == "n01440764"
