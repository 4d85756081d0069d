"""Quantizes an OpenVINO model with NNCF, in an environment of its own, with its defaults and noise: for `inference.py`.

python benchmarks/shipping/inference_nncf.py float32.xml int8.xml
"""

import sys

import nncf
import numpy as np
import openvino as ov

source, target = sys.argv[1:]
model = ov.Core().read_model(source)
noise = np.random.default_rng(0).standard_normal(tuple(model.input(0).shape), dtype=np.float32)
ov.save_model(nncf.quantize(model, nncf.Dataset([noise]), subset_size=1), target, compress_to_fp16=False)
