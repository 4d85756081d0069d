"""What docs/shipping.md says to model servers, held against the files that they would open."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import openvino as ov
import pytest

from bnnlight.deploy import Runtime
from bnnlight.deploy.answers import name_classes
from bnnlight.deploy.formats.onnx import save_onnx
from bnnlight.deploy.formats.openvino import read_openvino, save_openvino
from bnnlight.deploy.formats.packed import load_packed
from bnnlight.deploy.runtime import find_model
from bnnlight.imaging.reading import as_picture

PAGE = (Path(__file__).parents[2] / "docs/shipping.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar10")
    for save in (save_openvino, save_onnx):
        save(*load_packed(find_model(Path("cifar10"))), folder)
    return folder


def tensors(backend):
    """Name → dims of input and output, and the batch, in the page's configuration of a Triton backend."""
    text = next(block for block in re.findall(r"```text\n(.*?)```", PAGE, re.S) if f'backend: "{backend}"' in block)
    found = re.findall(r'(?:in|out)put \[\{ name: "(\w+)" data_type: TYPE_FP32 dims: \[ ([\d, ]+) \] \}\]', text)
    batch = int(re.search(r"max_batch_size: (\d+)", text)[1])
    return {name: [int(size) for size in dims.split(",")] for name, dims in found}, batch


def test_triton_with_openvino(folder):
    model = ov.Core().read_model(folder / "model.xml")
    named, batch = tensors("openvino")
    assert batch == 0
    assert named == {port.get_any_name(): list(port.shape) for port in (*model.inputs, *model.outputs)}


def test_triton_with_onnxruntime(folder):
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    named, batch = tensors("onnxruntime")
    ports = [*session.get_inputs(), *session.get_outputs()]
    assert all(isinstance(port.shape[0], str) and port.type == "tensor(float)" for port in ports)
    assert named == {port.name: port.shape[1:] for port in ports}
    images = np.random.default_rng(0).standard_normal((batch, *named["input"]), dtype=np.float32)
    found = session.run(None, {"input": images})[0]
    np.testing.assert_allclose(found, Runtime("cifar10")(images), rtol=1e-4, atol=1e-4)


def test_model_server(folder):
    [config] = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.S) if "model_config" in block]
    [model] = [entry["config"] for entry in config["model_config_list"]]
    compiled = ov.Core().compile_model(folder / "model.xml", model["target_device"], model["plugin_config"])
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == ov.Type.f32


def test_a_batch_of_eight_and_none_of_any_size(folder):
    images = np.random.default_rng(0).standard_normal((8, 3, 32, 32), dtype=np.float32)
    model = ov.Core().read_model(folder / "model.xml")
    model.reshape([8, 3, 32, 32])
    found = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)[0]
    assert np.array_equal(found, Runtime(folder / "model.xml")(images))
    model.reshape([-1, 3, 32, 32])
    with pytest.raises(RuntimeError, match="BinaryConvolution"):
        ov.Core().compile_model(model, "CPU")


def test_a_client_answers_as_runtime_does(folder):
    _, manifest = read_openvino(folder / "model.xml")
    network = ov.Core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    pictures = list(np.random.default_rng(1).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8))
    runtime = Runtime(folder / "model.xml")
    wanted = runtime.predict(pictures)

    def asked(images):
        return np.concatenate([network({"input": image[None]})["classifier"] for image in images])

    assert name_classes(asked, manifest, [as_picture(picture) for picture in pictures], 5) == wanted


def test_a_client_of_the_onnx_file(folder):
    [block] = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "read_sealed" in block]
    found = {"Path": Path}
    exec(block.replace("model/model.onnx", str(folder / "model.onnx")), found)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    pictures = list(np.random.default_rng(1).integers(0, 256, (3, 40, 50, 3), dtype=np.uint8))

    def asked(images):
        return session.run(["classifier"], {"input": images})[0]

    answers = name_classes(asked, found["manifest"], [as_picture(picture) for picture in pictures], 5)
    for answer, wanted in zip(answers, Runtime("cifar10").predict(pictures), strict=True):
        assert [one["class"] for one in answer["classes"]] == [one["class"] for one in wanted["classes"]]
        probabilities = [[one["probability"] for one in one_of["classes"]] for one_of in (answer, wanted)]
        np.testing.assert_allclose(*probabilities, atol=1e-4)
