"""Part of fpga.py, run by the Python of hls4ml: the file converted to C++, compiled by g++, and run."""

import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import hls4ml
import numpy as np
from fpga_qonnx import agreement
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.util.cleanup import cleanup_model


def main(file, settings, pictures, found):
    given, chosen = np.load(pictures), json.loads(Path(settings).read_text())
    # channels-last leaves unnamed constants behind, so that it is cleaned twice
    model = cleanup_model(cleanup_model(ModelWrapper(file)).transform(ConvertToChannelsLastAndClean()))
    config = hls4ml.utils.config_from_onnx_model(model, backend="Vitis", **chosen["config_from_onnx_model"])
    for layer, types in chosen["precision"].items():
        config["LayerName"][layer]["Precision"] = types
    options = {"output_dir": "project", "backend": "Vitis", "io_type": "io_parallel", "hls_config": config}
    made = hls4ml.converters.convert_from_onnx_model(model, **options)
    start = time.time()
    made.compile()
    seconds = time.time() - start
    outputs = np.asarray(made.predict(np.ascontiguousarray(given["pixels"]))).reshape(len(given["pixels"]), -1)
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    record = {
        "versions": {name: version(name) for name in ("hls4ml", "qonnx")} | {"g++": compiler},
        "default_precision": chosen["config_from_onnx_model"]["default_precision"],
        "compile_s": round(seconds),
        "compiled": agreement(outputs, given),
    }
    with open(found, "w") as stream:
        json.dump(record, stream)


if __name__ == "__main__":
    main(*sys.argv[1:])
