"""Overlays that add a part of a method to any experiment: they train, combine, and name all of their options."""

import importlib
import inspect
import json
from pathlib import Path

import pytest
import torch
import yaml

ROOT = Path(__file__).parents[1] / "configs"
# overlay → experiments that it is for
PARTS = {
    "layer_by_layer": ("resnet_small_cifar10", "hg_lsp_small"),
    "two_steps": ("resnet_small_cifar10",),
    "attention": ("resnet_small_cifar10", "hg_lsp_small"),
    "frozen_signs": ("resnet_small_cifar10", "hg_lsp_small"),
    "latent_decay": ("resnet_small_cifar10", "hg_lsp_small"),
    "mixup": ("resnet_small_cifar10",),
    "cutmix": ("resnet_small_cifar10",),
    "randaugment": ("resnet_small_cifar10",),
    "long": ("resnet_small_cifar10", "hg_lsp_small"),
}
TAUGHT = {"two_steps", "attention"}


def overlay(name):
    return ROOT / "methods" / f"{name}.yaml"


@pytest.fixture
def fit(bnnlight, quick, data_for, tmp_path):
    """Train an experiment with overlays for two epochs of two steps; return its saved config and checkpoint."""

    def run(base, names, *options, name="run"):
        if not hasattr(run, "data"):
            content = yaml.safe_load((ROOT / f"{base}.yaml").read_text())
            run.data = data_for(content["data"]["class_path"].rsplit(".", 1)[-1])
        small = ["--model.backbone.depth=1"] if base.startswith("hg") else ["--model.backbone.width=0.125"]
        overlays = [option for part in names for option in ("--config", overlay(part))]
        code, _, err = bnnlight(
            *("fit", "--config", ROOT / f"{base}.yaml", *overlays, *run.data, *quick, *small),
            *(f"--run_dir={tmp_path / name}", "--trainer.devices=1", "--trainer.max_epochs=2", "--pictures.count=0"),
            *("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--test_after_fit=false", *options),
        )
        assert code == 0, err
        saved = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        return saved, torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True)

    return run


def teacher(fit, base, tmp_path):
    fit(base, [], name="teacher")
    return f"--model.teacher.checkpoint={tmp_path / 'teacher/checkpoints/last.ckpt'}"


def holds(saved, asked):
    """Whether all that was asked for is there; of lists, in some place."""
    if isinstance(asked, dict):
        # what has no options is saved without an empty list of them
        return all(holds(saved.get(key.removesuffix("+"), {}), value) for key, value in asked.items())
    if isinstance(asked, list):
        return all(any(holds(entry, wanted) for entry in saved) for wanted in asked)
    return saved == asked


@pytest.mark.parametrize(("name", "base"), [(name, base) for name, bases in PARTS.items() for base in bases])
def test_trains_with_what_it_adds(fit, name, base, tmp_path):
    options = [teacher(fit, base, tmp_path)] if name in TAUGHT else []
    saved, checkpoint = fit(base, [name], *options)
    asked = yaml.safe_load(overlay(name).read_text())
    asked.get("trainer", {}).pop("max_epochs", None)  # the test's own
    assert holds(saved, asked)
    assert checkpoint["global_step"] == 4


def test_all_that_can_be_combined_train_together(fit, tmp_path):
    options = [teacher(fit, "resnet_small_cifar10", tmp_path)]
    parts = ["reactnet", "layer_by_layer", "attention", "frozen_signs", "latent_decay", "cutmix", "randaugment"]
    saved, _ = fit("resnet_small_cifar10", parts, *options, "--model.mixing.mixup=0.5")
    for name in parts:
        assert holds(saved, yaml.safe_load(overlay(name).read_text()) | ({"model": {}} if name == "cutmix" else {}))
    assert saved["model"]["init_args"]["mixing"]["init_args"] == {"mixup": 0.5, "cutmix": 1.0}
    kinds = [callback["class_path"].rsplit(".", 1)[-1] for callback in saved["trainer"]["callbacks"]]
    assert kinds == ["LayerByLayer", "FreezeSigns", "WeightDecay"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("layer_by_layer", "two_steps"), "Stages and LayerByLayer both say when a layer becomes binary"),
        (("two_steps", "frozen_signs"), "FreezeSigns (share 0.4) would freeze the signs before Stages"),
        (("layer_by_layer", "frozen_signs"), "FreezeSigns (share 0.4) would freeze the signs before LayerByLayer"),
    ],
)
def test_parts_that_exclude_each_other_are_one_line(bnnlight_error, quick, tmp_path, names, said):
    early = {"class_path": "bnnlight.callbacks.FreezeSigns", "init_args": {"share": 0.4}}
    added = [f"--trainer.callbacks+={json.dumps([early])}"] if "frozen_signs" in names else []
    overlays = [option for name in names if name != "frozen_signs" for option in ("--config", overlay(name))]
    plain = ["--model.teacher=null"] if "two_steps" in names else []
    code, line = bnnlight_error(
        *("fit", "--config", ROOT / "quickstart.yaml", *overlays, *added, *plain, *quick),
        *("--trainer.max_epochs=4", f"--run_dir={tmp_path / 'run'}"),
    )
    assert code == 2 and said in line


def parts_of(content):
    """Every object that an overlay names."""
    if isinstance(content, dict):
        if "class_path" in content:
            yield content
        for value in content.values():
            yield from parts_of(value)
    elif isinstance(content, list):
        for value in content:
            yield from parts_of(value)


@pytest.mark.parametrize("name", list(PARTS))
def test_names_all_options_of_what_it_adds(name):
    for part in parts_of(yaml.safe_load(overlay(name).read_text())):
        module, _, kind = part["class_path"].rpartition(".")
        options = set(inspect.signature(getattr(importlib.import_module(module), kind)).parameters)
        # of a teacher, its file is the run's own, and the rest has defaults that say "none"
        left_out = {"checkpoint", "backbone", "attention", "features", "blocks"} if kind == "Teacher" else set()
        assert options - left_out <= set(part["init_args"]) <= options, kind


@pytest.mark.parametrize("name", list(PARTS))
def test_opens_with_its_command_and_what_it_changes(name):
    text = overlay(name).read_text()
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert f"--config configs/resnet_small_cifar10.yaml --config configs/methods/{name}.yaml" in comment
    assert "# Sets " in comment or "# Adds " in comment
    # what is ours alone, and how long one trains, has no source
    assert ("https://arxiv.org/abs/" in comment) == (name not in ("frozen_signs", "long"))
    assert all(option in comment for option in (["--model.teacher.checkpoint RUN"] if name in TAUGHT else []))
