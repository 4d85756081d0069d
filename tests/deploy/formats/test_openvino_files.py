"""OpenVINO's files: what is in them, what is refused, and what an error leaves."""

import os
import re

import numpy as np
import openvino as ov
import pytest
from torch import nn

from bnnlight.deploy.formats.openvino import OpenVINOEngine, openvino_signs, save_openvino
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import Program, Step

MANIFEST = Manifest(
    task="classification",
    network="tests.Network",
    input=PictureInput(channels=3, size_px=8, mean=(0.5,) * 3, std=(0.25,) * 3, resize_px=8),
    classes=("a & b", "<c>", 'd "e"', "it's"),
)


def shipped(model, shape, folder):
    return save_openvino(freeze(model, shape), MANIFEST, folder)


def test_the_manifest_comes_back(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1)).eval()
    engine = OpenVINOEngine(shipped(model, (3, 8, 8), tmp_path))
    assert engine.manifest == MANIFEST
    assert engine.input_shape == (3, 8, 8)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["model.bin", "model.xml"]


@pytest.mark.parametrize("images", [np.zeros((1, 3, 9, 8), np.float32), np.zeros((1, 3, 8, 8)), np.zeros((3, 8, 8))])
def test_other_images_are_refused(images, tmp_path):
    engine = OpenVINOEngine(shipped(nn.Sequential(nn.Conv2d(3, 4, 1)), (3, 8, 8), tmp_path))
    with pytest.raises(ValueError, match=re.escape(f"images of shape {images.shape}")):
        engine(images)


def damage(file, kind):
    xml, binary = file.read_bytes(), file.with_suffix(".bin").read_bytes()
    if kind == "flipped bit of a weight":
        file.with_suffix(".bin").write_bytes(bytes([binary[0] ^ 1]) + binary[1:])
    elif kind == "flipped bit of the text":
        file.write_bytes(xml.replace(b'strides="1, 1"', b'strides="1, 3"', 1))
    elif kind == "weights cut off":
        file.with_suffix(".bin").write_bytes(binary[:-8])
    elif kind == "text cut off":
        file.write_bytes(xml[: len(xml) // 2])
    elif kind == "foreign":
        ov.save_model(ov.Model([p := ov.opset13.parameter([1])], [p]), file)
    elif kind == "newer":
        file.write_bytes(xml.replace(b'"format": 1', b'"format": 2'))
    elif kind == "no model at all":
        file.write_bytes(os.urandom(1000))


@pytest.mark.parametrize(
    "kind,message",
    [
        ("flipped bit of a weight", "checksum is wrong"),
        ("flipped bit of the text", "checksum is wrong"),
        ("weights cut off", "checksum is wrong"),
        ("text cut off", "not an OpenVINO model of bnnlight"),
        ("foreign", "not an OpenVINO model of bnnlight"),
        ("newer", "format is 2"),
        ("no model at all", "not an OpenVINO model of bnnlight"),
    ],
)
def test_damaged_files_are_refused(kind, message, tmp_path):
    file = shipped(nn.Sequential(nn.Conv2d(3, 4, 1)), (3, 8, 8), tmp_path)
    damage(file, kind)
    for read in (OpenVINOEngine, openvino_signs):
        with pytest.raises(ValueError, match=rf"^{re.escape(str(file))}: .*{message}"):
            read(file)


def test_a_missing_half_is_named(tmp_path):
    file = shipped(nn.Sequential(nn.Conv2d(3, 4, 1)), (3, 8, 8), tmp_path)
    file.with_suffix(".bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.bin"):
        OpenVINOEngine(file)


def test_an_error_leaves_the_old_files(tmp_path, monkeypatch):
    program = freeze(nn.Sequential(nn.Conv2d(3, 4, 1)).eval(), (3, 8, 8))
    before = save_openvino(program, MANIFEST, tmp_path).read_bytes()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ov, "save_model", full)
    with pytest.raises(OSError, match="No space"):
        save_openvino(program, MANIFEST, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    assert (tmp_path / "model.xml").read_bytes() == before


def test_unsound_programs_are_refused(tmp_path):
    step = Step("a", "conv2d", ("input",), {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1})
    with pytest.raises(ValueError, match="step 'a'"):
        save_openvino(Program((3, 8, 8), (step,)), MANIFEST, tmp_path)
    assert not list(tmp_path.iterdir())
