"""Real runs of two shipped configs: what stands in W&B's file, against what follows from the saved weights alone."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bnnlight.backbones import ResNet, StackedHourglass
from bnnlight.nn import Tucker, named_binary_layers
from bnnlight.tracking.fragments import find_fragments, read_fragment

EVERY = 2
NUM_STEPS = 6
SHARED = ["bnn/flip_rate_mean", "time/step", "time/data", "mem/peak"]
RANKS = ("effective", "stable", "energy", "nominal")


def options(run_dir):
    names = ("flip_rates", "factor_ranks", "alphas", "activations", "step_time")
    keep = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {
            "dirpath": str(run_dir / "steps"),
            "filename": "{step}",
            "every_n_train_steps": EVERY,
            "save_top_k": -1,
        },
    }
    return [
        *(f"--{name}.interval={EVERY}" for name in names),
        *("--trainer.max_epochs=1", f"--trainer.limit_train_batches={NUM_STEPS}", f"--run_dir={run_dir}"),
        f"--trainer.log_every_n_steps={EVERY}",
        *("--trainer.limit_val_batches=2", "--trainer.limit_test_batches=2", "--data.batch_size=8"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--data.num_workers=0"),
        f"--trainer.callbacks={json.dumps([keep])}",
    ]


@pytest.fixture(scope="module", params=["cifar10", "people"])
def run(request, tmp_path_factory, configs):
    """(rows of W&B's file, step → weights, network to load them into, its layers, what is measured)."""
    folder = tmp_path_factory.mktemp(request.param)
    run_dir = folder / "run"
    if request.param == "cifar10":
        write_pictures(folder / "data")
        args = [configs / "resnet_small_cifar10.yaml", f"--data.root={folder / 'data'}", "--data.val_size=10"]
        measured = ["acc1", "acc5", "loss"]
    else:
        sizes = ["--data.num_train=64", "--data.num_val=8", "--data.num_test=8", "--data.image_size=64"]
        args = [configs / "hg_people.yaml", *sizes, "--model.init_args.backbone.init_args.features=16"]
        measured = ["pckh", "pckh_wrist", "pckh_mean", "pckh01", "pck", "loss"]
    command = [sys.executable, "-m", "bnnlight", "fit", "--config", *map(str, args), *options(run_dir)]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "BNNLIGHT"))}
    env |= {"HOME": str(folder), "WANDB_MODE": "offline"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = find_fragments(run_dir)
    saved = {}
    for file in (run_dir / "steps").glob("*.ckpt"):
        content = torch.load(file, weights_only=True)
        saved[content["global_step"]] = content["state_dict"]
    network = torch.nn.Module()
    backbone = read_fragment(path).config["model"]["init_args"]["backbone"]["init_args"]
    backbone = {key: value for key, value in backbone.items() if key not in ("latent", "activation", "image_size")}
    made = ResNet if request.param == "cifar10" else StackedHourglass
    network.backbone = made(**backbone, latent=Tucker)
    return read_fragment(path).rows, dict(sorted(saved.items())), network, measured


def write_pictures(root):
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for number in range(8):
                picture = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(picture).save(root / split / name / f"{number}.png")


def series(rows, key):
    return {row["trainer/global_step"]: row[key] for row in rows if key in row}


def weights_of(network, state):
    """Layer → its real weight, rebuilt from saved factors by numpy in float64."""
    found = {}
    for name, layer in named_binary_layers(network):
        core = state[f"{name}.latent.core"].double().numpy()
        for mode in range(len(layer.weight_shape)):
            factor = state[f"{name}.latent.factors.{mode}"].double().numpy()
            core = np.moveaxis(np.tensordot(factor, core, (1, mode)), 0, mode)
        assert core.shape == layer.weight_shape
        found[name] = core
    return found


def test_every_key_is_there_for_every_layer_at_every_interval(run):
    rows, _, network, measured = run
    looks = list(range(EVERY, NUM_STEPS + 1, EVERY))
    layers = [name for name, _ in named_binary_layers(network)]
    assert len(layers) > 3
    for key in SHARED:
        assert list(series(rows, key)) == looks, key
    for name in layers:
        for kind in ("flip_rate", "positive", "dead", "cut"):
            assert list(series(rows, f"bnn/{kind}/{name}")) == looks, (kind, name)
        for kind in ("alpha_mean", "alpha_std", "alpha_min", "alpha_max", "alpha_negative"):
            assert list(series(rows, f"bnn/{kind}/{name}")) == [0, *looks], (kind, name)
        for kind in RANKS:
            for part in ("mode0", "mode1", "mode2", "mode3", "factor0", "factor3"):
                assert list(series(rows, f"bnn/rank_{kind}/{name}/{part}")) == [0, *looks], (kind, name, part)
        histograms = [row for row in rows if row.get(f"bnn/alpha/{name}", {}).get("_type") == "histogram"]
        assert [row["trainer/global_step"] for row in histograms] == [0, *looks]
    assert len(series(rows, "train/loss")) == NUM_STEPS // EVERY
    for key in measured:
        assert series(rows, f"val/{key}") and series(rows, f"test/{key}"), key


def test_flip_rates_follow_from_the_saved_weights(run):
    rows, saved, network, _ = run
    steps = [step for step in saved if step % EVERY == 0]
    assert len(steps) >= 3
    before = weights_of(network, saved[steps[0]])
    for step in steps[1:]:
        after = weights_of(network, saved[step])
        flips, count = 0, 0
        for name, weight in after.items():
            changed = ((weight >= 0) != (before[name] >= 0)).sum()
            # a weight of almost nothing may have another sign in float32
            assert abs(series(rows, f"bnn/flip_rate/{name}")[step] * weight.size - changed) <= 2
            flips, count = flips + changed, count + weight.size
        assert series(rows, "bnn/flip_rate_mean")[step] == pytest.approx(flips / count, abs=1e-3)
        assert flips > 0
        before = after


def test_ranks_follow_from_the_saved_weights(run):
    rows, saved, network, _ = run
    for step, state in saved.items():
        for name, weight in weights_of(network, state).items():
            for mode in range(weight.ndim):
                unfolded = np.moveaxis(weight, mode, 0).reshape(weight.shape[mode], -1)
                s = np.linalg.svd(unfolded, compute_uv=False)
                p = s[s > 0] / s.sum()
                cumulated = np.cumsum(s**2) / (s**2).sum()
                expected = {
                    "effective": np.exp(-(p * np.log(p)).sum()),
                    "stable": (s**2).sum() / s[0] ** 2,
                    "energy": int(np.searchsorted(cumulated, 0.9)) + 1,
                    "nominal": min(unfolded.shape),
                }
                for kind in RANKS:
                    logged = series(rows, f"bnn/rank_{kind}/{name}/mode{mode}")[step]
                    assert logged == pytest.approx(expected[kind], rel=1e-4), (kind, name, mode)


def test_alphas_follow_from_the_saved_weights(run):
    rows, saved, network, _ = run
    for step, state in saved.items():
        for name, _ in named_binary_layers(network):
            alpha = state[f"{name}.scale.alpha"].double().numpy()
            expected = {
                "mean": alpha.mean(),
                "std": alpha.std(),
                "min": alpha.min(),
                "max": alpha.max(),
                "negative": (alpha < 0).mean(),
            }
            for kind, value in expected.items():
                assert series(rows, f"bnn/alpha_{kind}/{name}")[step] == pytest.approx(value, rel=1e-5, abs=1e-9)
            (row,) = [r for r in rows if r.get("trainer/global_step") == step and f"bnn/alpha/{name}" in r]
            assert sum(row[f"bnn/alpha/{name}"]["values"]) == alpha.size
