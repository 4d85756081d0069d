"""Classes of one's own that are derived from Lightning's alone: found, trained, shipped and predicted with."""

import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from bnnlight.console.shipped_configs import shipped_configs
from bnnlight.experiment.config.own_code import find_own_code, with_own_folders

SOURCE = """
import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from bnnlight.nn import BinaryConv2d


class PlainTask(L.LightningModule):
    def __init__(self, width: int = 4):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), BinaryConv2d(width, width, 3, padding=1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2),
        )

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.backbone(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/acc1", (self.backbone(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


class PlainData(L.LightningDataModule):
    def loader(self):
        bright = torch.arange(12) % 2
        pixels = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)) / 2 + bright.view(-1, 1, 1, 1) / 2
        return DataLoader(TensorDataset((pixels - 0.5) / 0.25, bright), 4)

    train_dataloader = val_dataloader = test_dataloader = loader
"""


@pytest.fixture
def folder(tmp_path):
    """With a module and a config beside it that names its classes; not the current one."""
    place = tmp_path / "experiment"
    place.mkdir()
    (place / "plain_own.py").write_text(SOURCE)
    config = {"model": {"class_path": "plain_own.PlainTask"}, "data": {"class_path": "plain_own.PlainData"}}
    (place / "plain.yaml").write_text(yaml.safe_dump(config | {"trainer": {"max_epochs": 1}}))
    yield place
    sys.modules.pop("plain_own", None)


def test_a_plain_task_and_data_are_trained_shipped_and_predicted_with(bnnlight, quick, folder, tmp_path):
    run = tmp_path / "run"
    options = ("--test_after_fit=false", f"--run_dir={run}")
    code, _, err = bnnlight("fit", "--config", folder / "plain.yaml", *options, *quick)
    assert code == 0, err
    # told before the training what it will take
    [line] = [line for line in err.splitlines() if "before export and predict" in line]
    assert all(f"PlainData has no `{name}`" in line for name in ("image_format", "eval_transform", "classes"))
    checkpoint = run / "checkpoints/best.ckpt"
    # a new process, elsewhere, finds them by what the run's config says
    sys.path.remove(str(folder))
    sys.modules.pop("plain_own")
    assert (run / "config.yaml").read_text().startswith(f"# classes of its own: {folder}\n")
    export = ("export", "--ckpt_path", checkpoint, "--format", "packed", "--output", tmp_path / "model")
    code, _, err = bnnlight(*export)
    assert code == 2 and err.splitlines()[-1].endswith(
        "PlainData has no image_format that says how a picture is prepared: pass --mean and --std of its channels, on "
        "the scale 0 to 1 (0 and 1 where pixels are only divided by 255)"
    )
    code, _, err = bnnlight(*export, "--mean", "0.5,0.5", "--std", "0.25")
    assert code == 2 and "--mean has 2 numbers, but the pictures have 3 channels: give one for each" in err
    code, out, err = bnnlight(*export, "--mean", "0.5", "--std", "0.25", "--num_check", "8", "--json")
    assert code == 0, err
    agreement = json.loads(out)["check"]["agreement"]
    assert agreement["num_same"] == agreement["num_images"] == 8
    # the network saw (pixel / 255 − 0.5) / 0.25: so does the shipped one
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    code, _, err = bnnlight("predict", "--model", tmp_path / "model", tmp_path / "a.png", "--output", tmp_path / "out")
    assert code == 0, err
    [image] = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    import torch

    from bnnlight import load

    network = load(run).network
    with torch.no_grad():
        logits = network(torch.from_numpy((pixels / 255 - 0.5) / 0.25).permute(2, 0, 1)[None].float())[0]
    found = {answer["class"]: answer["probability"] for answer in image["classes"]}
    np.testing.assert_allclose([found["0"], found["1"]], logits.softmax(0).numpy(), atol=1e-5)
    # and with the checkpoint, once the data say how a picture becomes an input
    code, _, err = bnnlight("predict", "--model", checkpoint, tmp_path / "a.png", "--output", tmp_path / "o")
    assert code == 2 and "PlainData, has no eval_transform" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "told"),
    [("3,8", "'3,8' is not a shape"), ("3,0,8", "'3,0,8' is not a shape"), ("a,b,c", "'a,b,c' is not a shape")],
)
def test_a_wrong_shape_is_told(bnnlight_error, text, told):
    code, line = bnnlight_error("export", "--ckpt_path", "a", "--format", "packed", "--input_shape", text)
    assert code == 2 and told in line


def test_own_folders_are_looked_in_last(tmp_path, monkeypatch):
    here, beside = tmp_path / "here", tmp_path / "beside"
    for place in (here, beside):
        place.mkdir()
    (beside / "a.yaml").touch()
    monkeypatch.chdir(here)
    before = [*sys.path]
    monkeypatch.setattr(sys, "path", [*before])
    shipped = shipped_configs()["quickstart"]
    told = tmp_path / "told"
    told.mkdir()
    (beside / "b.yaml").write_text(f"# classes of its own: {told}\n# classes of its own: /no/such/folder\na: 1\n")
    for _ in range(2):
        find_own_code([str(beside / "a.yaml"), str(beside / "b.yaml"), str(shipped), "no_such.yaml"])
    assert sys.path == [*before, str(here), str(beside), str(told)]
    assert str(Path(shipped).parent) not in sys.path


def test_folders_of_own_classes_alone_are_told(tmp_path, monkeypatch):
    (tmp_path / "its_own.py").write_text("class Net: ...")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    import its_own  # noqa: F401

    names = ["bnnlight.nn.Tucker", "torch.optim.AdamW", "its_own.Net", "collections.OrderedDict", "gone.Net"]
    config = {"model": {"class_path": names[0], "init_args": {"parts": [{"class_path": name} for name in names]}}}
    assert with_own_folders(config, "model: 1\n") == f"# classes of its own: {tmp_path}\nmodel: 1\n"
    sys.modules.pop("its_own")


@pytest.mark.parametrize("value", ["{class_path: bnnlight.nn.Tucker, init_args: {rank: 1.0}}", "bnnlight.nn.Dense"])
@pytest.mark.parametrize("name", ["Net", "make", "make_any"])
def test_a_latent_for_an_argument_without_a_type_is_told(bnnlight_error, configs, tmp_path, monkeypatch, name, value):
    source = """
        from typing import Any
        from torch import nn
        from bnnlight.nn import BinaryConv2d
        class Net(nn.Module):
            def __init__(self, num_classes: int, latent=None):
                super().__init__()
                self.layers = nn.Sequential(BinaryConv2d(1, num_classes, 8, latent=latent), nn.Flatten())
        def make(latent, num_classes: int = 10) -> nn.Module:
            return Net(num_classes, latent)
        def make_any(num_classes: int = 10, latent: Any = None) -> nn.Module:
            return Net(num_classes, latent)
    """
    (tmp_path / "untyped_own.py").write_text(textwrap.dedent(source))
    monkeypatch.chdir(tmp_path)
    backbone = [f"--model.backbone=untyped_own.{name}", f"--model.backbone.latent={value}"]
    config = ["--config", configs / "quickstart.yaml", *backbone, "--model.backbone.num_classes=10"]
    _, line = bnnlight_error("summary", *config)
    sys.modules.pop("untyped_own", None)
    said = f"model.backbone.latent: untyped_own.{name} does not say what its argument latent is"
    assert f"{said}: write latent: LatentFactory there, from bnnlight.nn import LatentFactory" in line
