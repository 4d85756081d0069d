"""Every method's overlay makes of real experiments the networks that it speaks of, and they train."""

import importlib
import inspect
from pathlib import Path

import pytest
import torch
import yaml
from test_part_overlays import PARTS

from bnnlight.backbones import BinaryUnit
from bnnlight.experiment.experiment import Experiment
from bnnlight.nn import named_binary_layers

ROOT = Path(__file__).parents[1] / "configs"
# those that add a part to any method are in test_part_overlays.py
METHODS = sorted(path for path in (ROOT / "methods").glob("*.yaml") if path.stem not in PARTS)
# latent, scale, gradients of activations and of weights, activation
EXPECTED = {
    "bnn": ("Dense", "none", "clipped", "clipped", "PReLU"),
    "xnor_net": ("Dense", "analytic", "clipped", "clipped", "PReLU"),
    "learned_alpha": ("Dense", "channel", "clipped", "clipped", "PReLU"),
    "xnor_net_pp": ("Dense", "spatial", "clipped", "clipped", "PReLU"),
    "bireal": ("Dense", "analytic", "polynomial", "clipped", "Identity"),
    "reactnet": ("Dense", "analytic", "polynomial", "clipped", "RPReLU"),
    "matrix": ("Matrix", "channel", "clipped", "clipped", "PReLU"),
    "tucker": ("Tucker", "channel", "clipped", "clipped", "PReLU"),
    "holistic": ("Holistic", "channel", "clipped", "clipped", "PReLU"),
    "cp": ("CP", "channel", "clipped", "clipped", "PReLU"),
    "tensor_train": ("TensorTrain", "channel", "clipped", "clipped", "PReLU"),
    "rotated": ("Rotated", "channel", "clipped", "clipped", "PReLU"),
    "bop": ("Dense", "channel", "clipped", "identity", "PReLU"),
}


def asked(content, part="backbone"):
    return content["model"]["init_args"][part]["init_args"]


def test_there_is_a_line_here_for_every_method():
    assert {path.stem for path in METHODS} == set(EXPECTED)


@pytest.mark.parametrize("base", ["resnet_small_cifar10", "hg_lsp_small"])
@pytest.mark.parametrize("method", METHODS, ids=lambda path: path.stem)
def test_trains_the_network_that_it_says(bnnlight, quick, data_for, method, base, tmp_path):
    overlay, content = (yaml.safe_load(p.read_text()) for p in (method, ROOT / f"{base}.yaml"))
    options = data_for(content["data"]["class_path"].rsplit(".", 1)[-1])
    options += ["--model.backbone.depth=1"] if base.startswith("hg") else ["--model.backbone.width=0.125"]
    if method.stem == "xnor_net_pp":
        options.append(f"--model.backbone.image_size={64 if base.startswith('hg') else 32}")
    code, _, err = bnnlight(
        *("fit", "--config", ROOT / f"{base}.yaml", "--config", method, *options, *quick),
        *(f"--run_dir={tmp_path / 'run'}", "--trainer.devices=1", "--trainer.max_epochs=1"),
        *("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--test_after_fit=false"),
    )
    assert code == 0, err
    checkpoint = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    moments = [s["exp_avg"] for s in checkpoint["optimizer_states"][0]["state"].values()]
    assert len(moments) > 10 and all(moment.abs().sum() > 0 for moment in moments)

    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    for option, value in asked(overlay).items():
        found = asked(saved)[option]
        if isinstance(value, dict):
            assert found["class_path"] == value["class_path"]
            # nothing of what stood there before
            assert found.get("init_args", {}) == value["init_args"], option
        else:
            assert found == value, option
    kept = asked(content).keys() - asked(overlay).keys() - {"features", "depth", "width"}
    assert {option: asked(saved)[option] for option in kept} == {option: asked(content)[option] for option in kept}
    optimizer = (overlay if "optimizer" in overlay["model"]["init_args"] else content)["model"]["init_args"][
        "optimizer"
    ]
    assert saved["model"]["init_args"]["optimizer"]["class_path"] == optimizer["class_path"]
    assert optimizer["init_args"].items() <= asked(saved, "optimizer").items()

    network = Experiment("summary", "", ["--config", str(tmp_path / "run/config.yaml")]).model.backbone
    network.load_state_dict(
        {name[9:]: value for name, value in checkpoint["state_dict"].items() if name.startswith("backbone.")}
    )
    found = {
        (type(layer.latent).__name__, layer.scale.name, layer.activation_gradient, layer.weight_gradient)
        for _, layer in named_binary_layers(network)
    }
    latent, *rest, activation = EXPECTED[method.stem]
    # a shape that stands once in a network has nothing to share
    assert found in ({(latent, *rest)}, {("Holistic", *rest), ("Tucker", *rest)} if latent == "Holistic" else {})
    units = [module for module in network.modules() if isinstance(module, BinaryUnit)]
    assert {type(unit.activation).__name__ for unit in units} == {activation} and len(units) > 8


@pytest.mark.parametrize("method", METHODS, ids=lambda path: path.stem)
def test_names_all_options_of_what_it_replaces(method):
    content = yaml.safe_load(method.read_text())
    given = content["model"]["init_args"]
    assert given.keys() <= {"backbone", "optimizer"}
    places = {"latent", "scale", "activation_gradient", "weight_gradient", "activation"}
    assert asked(content).keys() == places
    named = [asked(content)["latent"], asked(content)["activation"], *([given["optimizer"]] if len(given) > 1 else [])]
    for part in named:
        module, _, name = part["class_path"].rpartition(".")
        parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
        # the first is what the network itself hands over: a weight, a number of channels, parameters
        first, *options = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)] or [None]
        assert first in (None, "weight", "num_parameters", "num_channels", "params")
        assert list(part["init_args"]) == options, name


@pytest.mark.parametrize("method", METHODS, ids=lambda path: path.stem)
def test_opens_with_its_source_its_command_and_what_it_changes(method):
    comment = "".join(line for line in method.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert method.read_text().startswith("# ")
    assert f"--config configs/resnet_small_cifar10.yaml --config configs/methods/{method.name}" in comment
    assert "https://arxiv.org/abs/" in comment and "# Sets latent, scale, gradients and activation" in comment
