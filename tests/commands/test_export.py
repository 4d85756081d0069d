"""`bnnlight export`: from a run to a shipped model that gives the same answers."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from bnnlight.data import DigitsDataModule
from bnnlight.deploy import Runtime
from bnnlight.deploy.formats import onnx as onnx_format
from bnnlight.deploy.formats.packed import load_packed
from bnnlight.experiment.trained.network import load_trained

FILES = {"packed": ["model.safetensors"], "openvino": ["model.bin", "model.xml"], "onnx": ["model.onnx"]}
TINY_POSE = (
    *("--data.num_train=8", "--data.num_val=4", "--data.num_test=6", "--data.batch_size=4", "--data.num_workers=0"),
    *("--model.backbone.features=32", "--model.backbone.depth=1", "--trainer.max_steps=2"),
)


@pytest.fixture
def best(digits_run):
    return digits_run[0] / "checkpoints/best.ckpt"


@pytest.fixture
def digit_files(tmp_path):
    """The first test pictures of the digits as PNG files, in which their 16 shades are the 256."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for number, image in enumerate(load_digits().images[:12]):
        Image.fromarray((image * 15.9).astype(np.uint8)).save(folder / f"{number:02}.png")
    return folder


@pytest.mark.parametrize("form", FILES)
def test_every_format_answers_as_the_checkpoint(form, bnnlight, best, digit_files, tmp_path):
    code, out, err = bnnlight("export", "--ckpt_path", best, "--format", form, "--output", tmp_path / "model")
    assert code == 0, err
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["README.md", *FILES[form]]
    # the number of test pictures of the digits, and what was found on them
    assert re.search(r"pictures +│ 360 ", out)
    assert re.search(r"same answer +│ 100\.00 %", out)

    # logits on the whole test set against torch's, by the data module's own transform
    experiment = load_trained("test", best, None)
    data = DigitsDataModule()
    data.setup("test")
    images = torch.stack([image for image, _ in data.test_set])
    with torch.inference_mode():
        wanted = experiment.model.eval()(images).numpy()
    runtime = Runtime(tmp_path / "model", num_threads=1)
    found = runtime(images.numpy())
    assert (found.argmax(1) == wanted.argmax(1)).all()
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()

    # and the command's answers on files
    answers = {}
    for name, model in (("checkpoint", best), ("shipped", tmp_path / "model")):
        assert bnnlight("predict", digit_files, "--model", model, "--output", tmp_path / name)[0] == 0
        answers[name] = json.loads((tmp_path / name / "predictions.json").read_text())["images"]
    for one, other in zip(answers["checkpoint"], answers["shipped"], strict=True):
        assert [c["class"] for c in one["classes"]] == [c["class"] for c in other["classes"]]
        sure = [[c["probability"] for c in record["classes"]] for record in (one, other)]
        assert np.allclose(*sure, atol=1e-5)


@pytest.mark.parametrize("form", FILES)
def test_poses(form, bnnlight, configs, quick, tmp_path):
    command = ("fit", "--config", configs / "hg_people.yaml", *TINY_POSE, *quick, f"--run_dir={tmp_path / 'run'}")
    assert bnnlight(*command)[0] == 0
    checkpoint = tmp_path / "run/checkpoints/best.ckpt"
    code, out, err = bnnlight("export", "--ckpt_path", checkpoint, "--format", form, "--num_check", "4")
    assert code == 0, err
    # each picture and its mirror image
    assert re.search(r"pictures +│ 8 ", out)
    assert "PCKh@0.5" in out
    manifest = Runtime(tmp_path / "run/export" / form).manifest
    assert manifest.task == "pose"
    assert manifest.skeleton.joints[:2] == ("right ankle", "right knee")
    assert manifest.flip_test
    assert set(manifest.metrics) >= {"test/pckh", "test/pckh01", "test/pck"}


def test_the_manifest_tells_where_the_model_is_from(bnnlight, best, digits_run, tmp_path):
    assert bnnlight("export", "--ckpt_path", best, "--format", "packed", "--output", tmp_path / "m")[0] == 0
    _, manifest = load_packed(tmp_path / "m/model.safetensors")
    results = json.loads((digits_run[0] / "results.json").read_text())
    assert manifest.metrics["test/acc1"] == results["results"]["test/acc1"]
    assert manifest.origin["command"] == results["command"]
    assert manifest.origin["commit"] == results["commit"]
    assert manifest.network == "bnnlight.backbones.resnet.ResNet"
    assert manifest.classes == tuple("0123456789")
    done = subprocess.run(["sha256sum", best], capture_output=True, text=True, check=True)
    assert manifest.origin["checkpoint_sha256"] == done.stdout.split()[0]
    card = (tmp_path / "m/README.md").read_text()
    assert f"{100 * results['results']['test/acc1']:.2f} %" in card
    assert "same answer" in card
    # by the folder's own name, not by that of the place where it was made
    assert "bnnlight predict --model m photos/" in card
    assert (
        bnnlight("export", "--ckpt_path", best, "--format", "onnx", "--output", tmp_path / "m", "--overwrite")[0] == 0
    )
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["README.md", "model.onnx"]


def test_one_bit_a_weight(bnnlight, best, tmp_path):
    assert bnnlight("export", "--ckpt_path", best, "--format", "packed", "--output", tmp_path / "m")[0] == 0
    program, _ = load_packed(tmp_path / "m/model.safetensors")
    layers = [m for m in load_trained("test", best, None).model.modules() if hasattr(m, "binary_weight")]
    assert program.num_binary == sum(layer.weight_shape.numel() for layer in layers)
    for step, layer in zip(program.binary_steps, layers, strict=True):
        bits = np.unpackbits(step.tensors["bits"], bitorder="little")[: layer.weight_shape.numel()]
        assert np.array_equal(2.0 * bits - 1, layer.binary_weight().numpy().reshape(-1))


def test_half_precision_and_integers_are_reported_and_not_judged(bnnlight, best, tmp_path):
    for number, options in enumerate((["--real_dtype", "fp16"], ["--int8"])):
        output = tmp_path / str(number)
        code, out, err = bnnlight("export", "--ckpt_path", best, "--format", "openvino", "--output", output, *options)
        assert code == 0, err
        assert "at least" not in out
        assert "may differ from the checkpoint" in (output / "README.md").read_text()


def test_no_comparison_on_demand(bnnlight, best, tmp_path):
    command = ("export", "--ckpt_path", best, "--format", "onnx", "--output", tmp_path / "m", "--num_check", "0")
    code, out, _ = bnnlight(*command)
    assert code == 0
    assert out.strip().endswith("not compared with the checkpoint")
    assert "was not compared" in (tmp_path / "m/README.md").read_text()


def test_a_model_is_uploaded_once_it_is_written(bnnlight, bnnlight_error, best, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("bnnlight.commands.export.check_upload", lambda repo: calls.append(("asked", repo)))

    def upload(folder, files, repo, private):
        calls.append((sorted(files), repo, private, sorted(file.name for file in folder.iterdir())))
        return f"https://hub/{repo}"

    monkeypatch.setattr("bnnlight.commands.export.upload", upload)
    command = (
        "export",
        "--ckpt_path",
        best,
        "--format",
        "openvino",
        "--num_check",
        "0",
        "--output",
        tmp_path / "model",
    )
    code, out, err = bnnlight(*command, "--hub", "me/digits", "--private")
    assert code == 0, err
    files = ["README.md", "model.bin", "model.xml"]
    assert calls == [("asked", "me/digits"), (files, "me/digits", True, files)]
    assert out.splitlines()[-1] == (
        "uploaded: https://hub/me/digits; to run it: bnnlight predict --model hf://me/digits photos/"
    )
    card = (tmp_path / "model/README.md").read_text()
    assert card.startswith("---\nlibrary_name: bnnlight\n") and "--model hf://me/digits photos/" in card
    code, out, _ = bnnlight(*command, "--hub", "me/digits", "--overwrite", "--json")
    assert json.loads(out)["hub"] == "https://hub/me/digits" and calls[-1][2] is False

    def fail(*args):
        raise OSError("--hub me/digits: https://hub cannot be reached")

    monkeypatch.setattr("bnnlight.commands.export.upload", fail)
    code, line = bnnlight_error(*command, "--hub", "me/digits", "--overwrite")
    place = f"the model lies in {tmp_path / 'model'}, to upload it: hf upload me/digits {tmp_path / 'model'}"
    assert code == 1 and line.endswith(f"https://hub cannot be reached; {place}")
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == files


def test_who_may_not_upload_is_told_before_the_work(bnnlight_error, tmp_path, monkeypatch):
    def refuse(repo):
        raise ValueError(f"--hub {repo}: you are not logged in")

    monkeypatch.setattr("bnnlight.commands.export.check_upload", refuse)
    (tmp_path / "nothing.ckpt").touch()
    command = ("export", "--ckpt_path", "nothing.ckpt", "--format", "packed", "--output", tmp_path / "model")
    assert "you are not logged in" in bnnlight_error(*command, "--hub", "me/x")[1]
    assert "--private needs --hub" in bnnlight_error(*command, "--private")[1]
    assert not (tmp_path / "model").exists()


def test_a_model_that_differs_is_not_written(bnnlight_error, best, tmp_path, monkeypatch):
    class Wrong(onnx_format.OnnxEngine):
        def __call__(self, images):
            return super().__call__(images)[:, ::-1].copy()

    monkeypatch.setattr(onnx_format, "OnnxEngine", Wrong)
    code, line = bnnlight_error("export", "--ckpt_path", best, "--format", "onnx", "--output", tmp_path / "m")
    assert code == 1
    assert "nothing was written" in line and "of the answers are the same" in line
    assert not (tmp_path / "m").exists()
    assert not list(tmp_path.glob(".export*"))


def test_an_export_that_fails_leaves_what_was_there(bnnlight, bnnlight_error, best, tmp_path, monkeypatch):
    command = ("export", "--ckpt_path", best, "--format", "onnx", "--output", tmp_path / "m", "--num_check", "0")
    assert bnnlight(*command)[0] == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()}
    code, line = bnnlight_error(*command)
    assert code == 2
    assert "already exists" in line and "--overwrite" in line

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_format, "save_onnx", full)
    assert "no space left" in bnnlight_error(*command, "--overwrite")[1]
    assert {p.name: p.read_bytes() for p in (tmp_path / "m").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".export")] == []


def test_binary_layers_that_openvino_cannot_run_on_bits_are_told(bnnlight, configs, quick, tmp_path):
    # four channels in places: no multiple of eight
    small = [option.replace("features=32", "features=16") for option in TINY_POSE]
    command = ("fit", "--config", configs / "hg_people.yaml", *small, *quick, f"--run_dir={tmp_path / 'run'}")
    assert bnnlight(*command)[0] == 0
    checkpoint = tmp_path / "run/checkpoints/best.ckpt"
    command = (
        "export",
        "--ckpt_path",
        checkpoint,
        "--format",
        "openvino",
        "--num_check",
        "2",
        "--output",
        tmp_path / "m",
    )
    code, out, err = bnnlight(*command)
    assert code == 0, err
    told = next(line for line in out.splitlines() if line.startswith("warning:"))
    assert "binary layers do not run on bits here" in told and "unit3.conv.sum" in told and "unit1.conv.sum (" in told


def test_layers_that_cannot_be_shipped_are_named_before_anything_is_written(bnnlight_error, best, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(best.parent.parent, run)
    content = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    sys.modules["own_network"] = module = type(sys)("own_network")
    exec(
        "import torch\nfrom bnnlight.backbones import ResNet\n"
        "class Own(ResNet):\n"
        "    def __init__(self, **options):\n"
        "        super().__init__(**options)\n"
        "        self.curve = torch.nn.Softplus()\n"
        "    def forward(self, x):\n"
        "        return super().forward(self.curve(x))\n",
        module.__dict__,
    )
    try:
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(config.replace("bnnlight.backbones.ResNet", "own_network.Own"))
        torch.save(content, run / "checkpoints/best.ckpt")
        command = ("export", "--ckpt_path", run / "checkpoints/best.ckpt", "--format", "onnx", "--output")
        code, line = bnnlight_error(*command, tmp_path / "new/m")
    finally:
        del sys.modules["own_network"]
    assert code == 2
    assert "layer curve" in line and "Softplus" in line
    assert not (tmp_path / "new").exists()


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("write", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content))])
def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(write, bnnlight_error, best, tmp_path):
    shutil.copytree(best.parent.parent, tmp_path / "run")
    bad = tmp_path / "run/checkpoints/best.ckpt"
    write({"state_dict": {}, "more": Malicious(tmp_path / "marker")}, bad)
    code, line = bnnlight_error("export", "--ckpt_path", bad, "--format", "packed", "--output", tmp_path / "m")
    assert code == 2
    assert str(bad) in line
    assert not (tmp_path / "marker").exists() and not (tmp_path / "m").exists()
    # it would have run
    torch.load(bad, weights_only=False) if write is torch.save else pickle.loads(bad.read_bytes())
    assert (tmp_path / "marker").exists()


def test_a_network_of_real_numbers_does_not_go_to_an_fpga(bnnlight_error, best, tmp_path):
    code, line = bnnlight_error("export", "--ckpt_path", best, "--format", "qonnx", "--output", tmp_path / "m")
    assert code != 0
    assert "cannot go to an FPGA: " in line and "bnnlight.nn.FixedPoint" in line and len(line) < 800, line
    assert not (tmp_path / "m").exists()


def test_wrong_options_are_named(bnnlight_error, best, tmp_path):
    base = ("export", "--ckpt_path", best, "--output", tmp_path / "m")
    for more, parts in (
        (("--format", "tflite"), ("--format", "packed", "openvino", "onnx")),
        (("--format", "packed", "--int8"), ("--int8", "openvino")),
        (("--format", "packed", "--num_check", "-1"), ("--num_check", "-1")),
        (("--format", "packed", "--config", tmp_path / "no.yaml"), ("config of the run not found", "no.yaml")),
    ):
        code, line = bnnlight_error(*base, *more)
        assert code == 2
        assert all(part in line for part in parts), line
    code, line = bnnlight_error("export", "--ckpt_path", tmp_path / "no.ckpt", "--format", "onnx")
    assert code == 2 and "checkpoint not found" in line
    assert not (tmp_path / "m").exists()


ALONE = """
import sys
from bnnlight.cli import main
code = main(["predict", sys.argv[2], "--model", sys.argv[1], "--output", sys.argv[3]])
names = {"torch", "lightning", "wandb", "tensorly", "torchvision", "jsonargparse", "openvino", "onnxruntime", "onnx"}
print("LOADED", *sorted(names & set(sys.modules)))
sys.exit(code)
"""


@pytest.mark.parametrize("form,loaded", [("openvino", ["openvino"]), ("onnx", ["onnxruntime"]), ("packed", ["torch"])])
def test_shipped_models_run_without_the_code_that_trains(form, loaded, bnnlight, best, digit_files, tmp_path):
    command = ("export", "--ckpt_path", best, "--format", form, "--output", tmp_path / "m", "--num_check", "0")
    assert bnnlight(*command)[0] == 0
    command = [sys.executable, "-c", ALONE, tmp_path / "m", digit_files, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["LOADED", *loaded]
    assert len(json.loads((tmp_path / "out/predictions.json").read_text())["images"]) == 12
