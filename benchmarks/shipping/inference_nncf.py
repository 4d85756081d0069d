"""Quantizes an OpenVINO model with NNCF, in an environment of its own, with its defaults.

The pictures `(N, C, H, W)` that the ranges are found with come from a file; else it is one of noise, which will do for
`inference.py`: it times alone.

python benchmarks/shipping/inference_nncf.py float32.xml int8.xml [pictures.npy]
"""

import sys

import nncf
import numpy as np
import openvino as ov

source, target, *files = sys.argv[1:]
model = ov.Core().read_model(source)
if files:
    pictures = np.load(files[0])
else:
    pictures = np.random.default_rng(0).standard_normal(tuple(model.input(0).shape), dtype=np.float32)
dataset = nncf.Dataset([picture[None] for picture in pictures])
ov.save_model(nncf.quantize(model, dataset, subset_size=len(pictures)), target, compress_to_fp16=False)
