import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from bnnlight.deploy.formats.onnx import OnnxEngine, onnx_signs, save_onnx
from bnnlight.deploy.formats.onnx_bytes import with_outputs
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.seal import sealed

MANIFEST = Manifest("classification", "tests.Net", PictureInput(1, 2, (0.5,), (0.25,), 3), ("ant", "bée"))


def step(name, op, *inputs, settings=None, **tensors):
    arrays = {k: np.asarray(v, np.uint8 if k == "bits" else np.float32) for k, v in tensors.items()}
    return Step(name, op, inputs or ("input",), settings or {}, arrays)


SIGN = step("sign", "binarize", threshold=[0.5])
# -1 -1 +1 +1 +1 in the first row, +1 +1 +1 -1 +1 in the second, last bit first
LINEAR = (
    step("row", "flatten", "sign"),
    step("sum", "binary_linear", "row", settings={"shape": [2, 4]}, bits=[0b01111100]),
    step("y", "affine", "sum", scale=[1, 10]),
)
PROGRAM = Program((1, 2, 2), (SIGN, *LINEAR))
PICTURES = np.array([[[[0, 1], [1, 1]]], [[[0.5, 0.4], [-3, 7]]], [[[np.nan, 0], [0, 0]]]], np.float32)
SIGNS = np.array([[-1, 1, 1, 1], [1, -1, -1, 1], [-1, -1, -1, -1]])
WEIGHT = np.array([[-1, -1, 1, 1], [1, 1, 1, -1]])


@pytest.fixture
def file(tmp_path):
    return save_onnx(PROGRAM, MANIFEST, tmp_path)


def test_a_file_comes_back_as_it_was_written(tmp_path):
    file = save_onnx(PROGRAM, MANIFEST, tmp_path / "new" / "folder")
    assert file == tmp_path / "new" / "folder" / "model.onnx"
    assert os.listdir(file.parent) == ["model.onnx"]
    engine = OnnxEngine(file)
    assert engine.manifest == MANIFEST
    assert engine.input_shape == (1, 2, 2)
    expected = SIGNS @ WEIGHT.T * [1, 10]
    for pictures in (PICTURES, PICTURES[:1], PICTURES[:0], np.asfortranarray(PICTURES), PICTURES[::-1][::-1]):
        output = engine(pictures)
        assert output.dtype == np.float32
        np.testing.assert_array_equal(output, expected[: len(pictures)])
    # whoever has onnx finds the same manifest
    (entry,) = onnx.load(file).metadata_props
    assert entry.key == "bnnlight"
    assert Manifest.from_json(entry.value)[0] == MANIFEST


def test_the_same_model_gives_the_same_bytes(file):
    before = file.read_bytes()
    assert save_onnx(PROGRAM, MANIFEST, file.parent).read_bytes() == before


@pytest.mark.parametrize(
    ("steps", "names"),
    [
        ((SIGN, *LINEAR), ["sign"]),
        ((SIGN,), ["sign"]),  # the output itself
        ((step("y", "relu"),), []),
        ((SIGN, step("other", "binarize", threshold=[0], direction=[-1]), step("y", "add", "sign", "other")), None),
    ],
)
def test_signs_are_those_of_every_binarization(tmp_path, steps, names):
    found = onnx_signs(save_onnx(Program((1, 2, 2), steps), MANIFEST, tmp_path))(PICTURES)
    assert list(found) == (["sign", "other"] if names is None else names)
    for name, sign in found.items():
        expected = SIGNS > 0 if name == "sign" else PICTURES.reshape(3, 4) <= 0
        assert sign.dtype == bool
        np.testing.assert_array_equal(sign, expected.reshape(3, 1, 2, 2))


def test_outputs_are_added_as_onnx_reads_them(file):
    model = onnx.load_from_string(with_outputs(file.read_bytes(), ["sign", "y", "row"]))
    assert [value.name for value in model.graph.output] == ["y", "sign", "row"]
    assert model.graph.node == onnx.load(file).graph.node
    long = "name" * 100  # its length takes two bytes
    assert onnx.load_from_string(with_outputs(b"", [long])).graph.output[0].name == long


@pytest.mark.parametrize(
    "pictures",
    [PICTURES[0], PICTURES[:, :, :1], np.zeros((3, 3, 2, 2), np.float32), PICTURES.astype(np.float64), PICTURES > 0],
)
def test_other_pictures_are_refused(file, pictures, check_one_line):
    for run in (OnnxEngine(file), onnx_signs(file)):
        with pytest.raises(ValueError, match="pictures of shape") as error:
            run(pictures)
        check_one_line(error, pictures.shape, pictures.dtype, "(N, 1, 2, 2) float32")


def test_threads(file):
    options = OnnxEngine(file, num_threads=2)._network._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert options.log_severity_level == 4  # nothing but what ends the process
    with pytest.raises(ValueError, match="num_threads is 0"):
        OnnxEngine(file, num_threads=0)


def refused(file, check_one_line, *parts):
    for reader in (OnnxEngine, onnx_signs):
        with pytest.raises(ValueError) as error:
            reader(file)
        check_one_line(error, f"{file}: ", *parts)


def test_a_missing_file(tmp_path, check_one_line):
    for reader in (OnnxEngine, onnx_signs):
        with pytest.raises(FileNotFoundError) as error:
            reader(tmp_path / "model.onnx")
        check_one_line(error, tmp_path / "model.onnx")


@pytest.fixture
def unopened(monkeypatch):
    """Fail if onnxruntime is given anything."""

    def fail(*args, **kwargs):
        pytest.fail("onnxruntime was given a file whose checksum is wrong")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)


@pytest.mark.usefixtures("unopened")
def test_a_file_that_was_cut_off(file, check_one_line):
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        refused(file, check_one_line)
        if length == len(content) // 2:
            refused(file, check_one_line, "only a part of one")


@pytest.mark.usefixtures("unopened")
def test_a_file_in_which_one_bit_changed(file, check_one_line):
    content = file.read_bytes()
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        file.write_bytes(changed)
        refused(file, check_one_line)
    file.write_bytes(content + b"\0")
    refused(file, check_one_line)


@pytest.mark.usefixtures("unopened")
def test_random_bytes(file, check_one_line):
    rng = np.random.default_rng(0)
    for length in (*range(20), *rng.integers(20, 10_000, 300)):
        file.write_bytes(rng.bytes(length))
        refused(file, check_one_line, "it is not a")


@pytest.mark.usefixtures("unopened")
def test_files_of_others(file, check_one_line):
    model = onnx.load(file)
    (entry,) = model.metadata_props
    text = entry.value
    for metadata in ({}, {"author": "somebody"}, {"bnnlight": "yes"}, {"bnnlight": "[]"}):
        helper.set_model_props(model, metadata)
        onnx.save(model, file)
        refused(file, check_one_line)
    helper.set_model_props(model, {"bnnlight": text})
    model.metadata_props.append(model.metadata_props[0])
    onnx.save(model, file)
    refused(file, check_one_line, "it is not a model that bnnlight wrote")


@pytest.mark.usefixtures("unopened")
def test_another_version_and_another_seal(tmp_path, file, check_one_line, monkeypatch):
    content = file.read_bytes()
    with monkeypatch.context() as newer:
        newer.setattr("bnnlight.deploy.manifest.FORMAT", 2)
        later = save_onnx(PROGRAM, MANIFEST, tmp_path / "later")
    refused(later, check_one_line, "its format is 2")
    at = content.index(b"sha256:") + 7
    file.write_bytes(content[:at] + b"0" * 64 + content[at + 64 :])
    refused(file, check_one_line, "its checksum is wrong")


def seal_anew(file, change):
    """Change a file's model and give it a right checksum."""
    model = onnx.load(file)
    change(model)
    helper.set_model_props(model, {"bnnlight": MANIFEST.to_json()})
    file.write_bytes(sealed(model.SerializeToString()))


def test_a_sealed_file_that_onnxruntime_cannot_load(file, check_one_line, capfd):
    seal_anew(file, lambda model: setattr(model.graph.node[0], "op_type", "Unheard"))
    refused(file, check_one_line, onnxruntime.__version__, "Unheard")
    assert capfd.readouterr().err == ""


def test_a_sealed_file_that_takes_something_else(file, check_one_line):
    def change(model):
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"

    seal_anew(file, change)
    refused(file, check_one_line, "height")


@pytest.mark.parametrize("place", ["os.replace", "os.fsync"])
def test_nothing_half_written_is_left(file, place, monkeypatch):
    before = file.read_bytes()

    def fail(*args):
        raise OSError("the disk is full")

    monkeypatch.setattr(place, fail)
    with pytest.raises(OSError, match="the disk is full"):
        save_onnx(Program((1, 2, 2), (SIGN,)), MANIFEST, file.parent)
    monkeypatch.undo()
    assert os.listdir(file.parent) == ["model.onnx"]
    assert file.read_bytes() == before


def test_running_needs_onnxruntime_alone_and_prints_nothing(file):
    code = f"""
import sys, numpy
from pathlib import Path
from bnnlight.deploy.formats.onnx import OnnxEngine, onnx_signs
pictures = numpy.zeros((2, 1, 2, 2), numpy.float32)
OnnxEngine(Path({str(file)!r}))(pictures)
onnx_signs(Path({str(file)!r}))(pictures)
print({{"torch", "lightning", "wandb", "tensorly", "onnx"}} & {{name.split(".")[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")
