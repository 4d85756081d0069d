"""Part of fpga.py, run by the Python of qonnx: the file in qonnx's own executor."""

import json
import sys
from importlib.metadata import version

import numpy as np
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model


def agreement(outputs, given):
    """How far outputs ``(N, classes)`` agree with the checkpoint's."""
    expected = given["outputs"][: len(outputs)]
    difference = np.abs(outputs - expected).max(1) / np.abs(expected).max(1)
    return {
        "pictures": len(outputs),
        "same_answers": int((outputs.argmax(1) == expected.argmax(1)).sum()),
        "right": int((outputs.argmax(1) == given["classes"][: len(outputs)]).sum()),
        "largest_relative_difference": float(difference.max()),
    }


def executed(model, pixels):
    """Outputs of a model, picture by picture."""
    names = model.graph.input[0].name, model.graph.output[0].name
    return np.concatenate([execute_onnx(model, {names[0]: pixel[None]})[names[1]].reshape(1, -1) for pixel in pixels])


def main(file, settings, pictures, found):
    given = np.load(pictures)
    outputs = executed(cleanup_model(ModelWrapper(file)), given["pixels"])
    record = {"versions": {"qonnx": version("qonnx")}, "executor": agreement(outputs, given)}
    with open(found, "w") as stream:
        json.dump(record, stream)


if __name__ == "__main__":
    main(*sys.argv[1:])
