"""Rounding to fixed-point numbers in every format, against Python's own, halves included."""

import numpy as np
import pytest

from bnnlight.deploy.formats.onnx import OnnxEngine, save_onnx
from bnnlight.deploy.formats.openvino import OpenVINOEngine, save_openvino
from bnnlight.deploy.formats.packed import PackedEngine, save_packed
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import INPUT, Program, Step

ENGINES = {
    "packed": (save_packed, PackedEngine),
    "openvino": (save_openvino, OpenVINOEngine),
    "onnx": (save_onnx, OnnxEngine),
}
MANIFEST = Manifest("classification", "tests.Net", PictureInput(1, 16, (0.5,), (0.25,), 16))


@pytest.mark.parametrize("form", ENGINES)
@pytest.mark.parametrize("fraction_bits", [3, -1])
def test_rounds_halves_to_even_and_stays_within_its_bounds(form, fraction_bits, tmp_path):
    save, engine = ENGINES[form]
    unit = 2.0**-fraction_bits
    settings = {"fraction_bits": fraction_bits, "min": -8 * unit, "max": 7 * unit}
    steps = (Step("it", "round", (INPUT,), settings), Step("row", "flatten", ("it",)))
    x = np.arange(-128, 128).reshape(1, 1, 16, 16).astype(np.float32) * np.float32(unit / 8)
    expected = [min(max(round(float(v) / unit), -8), 7) * unit for v in x.ravel()]
    assert engine(save(Program((1, 16, 16), steps), MANIFEST, tmp_path))(x).ravel().tolist() == expected
