"""Light stems in every format, against torch in float64."""

import numpy as np
import pytest
import torch
from fixtures.lce_in_torch import operators, run
from fixtures.lce_interpreter import interpret
from fixtures.trained_networks import trained
from torch import nn

from bnnlight.backbones.stems import hourglass_stem, resnet_stem
from bnnlight.deploy.formats.int8 import find_ranges
from bnnlight.deploy.formats.lce import save_lce
from bnnlight.deploy.formats.onnx import OnnxEngine, save_onnx
from bnnlight.deploy.formats.openvino import OpenVINOEngine, save_openvino
from bnnlight.deploy.formats.packed import PackedEngine, save_packed
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput

MANIFEST = Manifest("classification", "tests.Net", PictureInput(3, 29, (0.5,) * 3, (0.25,) * 3, 29))
IMAGES = np.random.default_rng(0).normal(size=(3, 3, 29, 29)).astype(np.float32)
ENGINES = {
    "packed": (save_packed, PackedEngine),
    "openvino": (save_openvino, OpenVINOEngine),
    "onnx": (save_onnx, OnnxEngine),
}


@pytest.fixture(params=["residual", "hourglass"])
def shipped(request):
    """The program of a stem, and what it gives."""
    torch.manual_seed(0)
    stem = resnet_stem("light", 3, 24) if request.param == "residual" else hourglass_stem("light", 24)
    stem = trained(stem.append(nn.Flatten()))
    program = freeze(stem, IMAGES.shape[1:])
    with torch.no_grad():
        return program, stem.double()(torch.from_numpy(IMAGES).double()).numpy()


@pytest.mark.parametrize("form", ENGINES)
def test_same_values(form, shipped, tmp_path):
    program, wanted = shipped
    save, engine = ENGINES[form]
    found = engine(save(program, MANIFEST, tmp_path))(IMAGES)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_same_values_for_larq(shipped, tmp_path):
    program, wanted = shipped
    content = save_lce(program, MANIFEST, tmp_path).read_bytes()
    (found,) = run(content, IMAGES)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    assert operators(content).count("CONV_2D") == 2


def test_same_values_by_larqs_interpreter(shipped, tmp_path):
    program, wanted = shipped
    ((found,),) = interpret(tmp_path, [(save_lce(program, MANIFEST, tmp_path / "m").read_bytes(), IMAGES)])
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_eight_bits_are_near(shipped, tmp_path):
    program, wanted = shipped
    file = save_openvino(program, MANIFEST, tmp_path, ranges=find_ranges(program, [IMAGES]))
    error = OpenVINOEngine(file)(IMAGES) - wanted
    # each layer adds a 256th of its input's range, more or less
    assert np.sqrt((error**2).mean()) <= 0.03 * np.sqrt((wanted**2).mean())
