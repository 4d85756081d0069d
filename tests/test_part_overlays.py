"""Overlays that add a part to any experiment: they stack, they train, and those that exclude each other are told."""

import importlib
import inspect
import json
from pathlib import Path

import pytest
import torch
import yaml

from bnnlight.experiment.experiment import Experiment
from bnnlight.nn import named_binary_layers

ROOT = Path(__file__).parents[1] / "configs"
# overlay → parts of weights, parts of inputs, callbacks
PARTS = {
    "standardized": (["Standardized"], [], []),
    "balanced": (["Balanced"], [], []),
    "clamped": (["Clamped"], [], ["Loosen"]),
    "recu": (["Standardized", "Clamped"], ["Normalized"], ["Loosen"]),
    "rbnn": (["Standardized", "BiRotated"], [], ["Turn", "Sharpen"]),
    "learned_pair": ([], ["LearnedPair"], []),
    "normalized": ([], ["Normalized"], []),
    "shifted": ([], ["Shifted"], []),
}
BASES = ["resnet_small_cifar10", "hg_lsp_small"]
each_overlay = pytest.mark.parametrize("name", PARTS)


def overlay(name):
    return ROOT / "methods" / f"{name}.yaml"


def configured(*names, base=BASES[0]):
    configs = [f"--config={path}" for path in (ROOT / f"{base}.yaml", *map(overlay, names))]
    return Experiment("summary", "", configs)


def found(experiment):
    layers = [layer for _, layer in named_binary_layers(experiment.model)]
    kinds = {
        tuple(tuple(type(part).__name__ for part in parts or ()) for parts in (layer.weight_parts, layer.input_parts))
        for layer in layers
    }
    assert len(layers) > 8 and len(kinds) == 1
    return [*map(list, kinds.pop())]


@pytest.fixture(scope="module")
def plain():
    return {base: configured(base=base) for base in BASES}


@pytest.mark.parametrize(("name", "base"), [*((name, BASES[0]) for name in PARTS), ("recu", BASES[1])])
def test_makes_the_network_that_it_says_and_leaves_all_else(plain, name, base):
    plain, experiment = plain[base], configured(name, base=base)
    assert found(experiment) == list(PARTS[name][:2])
    saved, before = (one.config.model.init_args.backbone.init_args for one in (experiment, plain))
    changed = {key for key in vars(saved) if saved[key] != before[key]}
    gradients = {"activation_gradient", "weight_gradient"} if name == "recu" else set()
    kinds = zip(("weight_parts", "input_parts"), PARTS[name], strict=False)
    assert changed == {kind for kind, parts in kinds if parts} | gradients


@each_overlay
def test_names_all_options_and_opens_with_its_source_its_command_and_what_it_changes(name):
    text = overlay(name).read_text()
    content = yaml.safe_load(text)
    backbone = content["model"]["init_args"]["backbone"]["init_args"]
    callbacks = content.get("trainer", {}).get("callbacks+", [])
    assert [one["class_path"].rpartition(".")[2] for one in callbacks] == PARTS[name][2]
    lists = [backbone.get(f"{kind}+", []) for kind in ("weight_parts", "input_parts")]
    for kind, part in [*((1, part) for parts in lists for part in parts), *((0, part) for part in callbacks)]:
        module, _, cls = part["class_path"].rpartition(".")
        options = [*inspect.signature(getattr(importlib.import_module(module), cls)).parameters][kind:]
        assert list(part["init_args"]) == options, cls
    comment = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    assert f"--config configs/resnet_small_cifar10.yaml --config configs/methods/{name}.yaml" in comment
    assert (
        "https://arxiv.org/abs/" in comment
        and "# Adds " in comment
        and "ll else\n# stays" in comment.replace("ll else stays", "ll else\n# stays")
    )


def test_overlays_stack_in_their_order():
    assert found(configured("tucker", "clamped", "normalized", "learned_pair", "balanced")) == [
        ["Balanced", "Clamped"],  # as Normalized, last wherever it stands
        ["LearnedPair", "Normalized"],
    ]


def test_one_callback_of_two_overlays_is_one_line(bnnlight, tmp_path):
    configs = [f"--config={path}" for path in (ROOT / f"{BASES[0]}.yaml", overlay("clamped"), overlay("recu"))]
    code, _, err = bnnlight("fit", *configs, f"--run_dir={tmp_path / 'run'}")
    assert code == 2 and "callback Loosen is named twice" in err


def test_those_that_exclude_each_other_are_one_line_that_names_both(bnnlight, tmp_path):
    configs = [f"--config={path}" for path in (ROOT / f"{BASES[0]}.yaml", overlay("recu"), overlay("balanced"))]
    code, _, err = bnnlight("fit", *configs, f"--run_dir={tmp_path / 'run'}")
    assert code != 0 and len(err.strip().splitlines()) == 1, err
    assert "weight_parts: Standardized and Balanced both set the sign's threshold: leave one out" in err


def test_a_run_with_parts_goes_on_as_if_it_had_not_been_stopped(tmp_path, fit_probe, same_run):
    options = [f"--config={overlay(name)}" for name in ("tucker", "rbnn", "clamped", "normalized", "learned_pair")]
    told = {"class_path": "noisy.Told", "init_args": {"hook": "on_train_batch_end", "step": 8}}
    code, text = fit_probe(tmp_path / "whole", *options)
    assert code == 0, text
    code, text = fit_probe(tmp_path / "broken", *options, f"--trainer.callbacks+={json.dumps(told)}")
    assert code == 75, text
    code, text = fit_probe(tmp_path / "broken", *options)
    assert code == 0, text
    same_run(tmp_path / "whole", tmp_path / "broken")
    state = torch.load(tmp_path / "whole/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    parts = {name: value for name, value in state.items() if "_parts." in name}
    rotations = [value for name, value in parts.items() if name.endswith((".left", ".right"))]
    assert rotations and not any(torch.equal(value, torch.eye(len(value))) for value in rotations)
    distances = [float(value) for name, value in parts.items() if name.endswith("distance")]
    assert distances and 1 not in distances
