"""Runs TensorFlow Lite files in Larq Compute Engine's interpreter, and times them.

Runs in an environment of its own, started by `lce_agreement.py --peer-python ENV/bin/python`:

    python -m venv ENV && ENV/bin/pip install larq-compute-engine==0.16.0 'numpy<2'
    ENV/bin/python benchmarks/shipping/lce_agreement_run.py --run model.tflite images.npy outputs.npz
"""

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import time
import types
from pathlib import Path


def interpreter_class():
    """The engine's interpreter, without its converter: the package imports TensorFlow for that one when it opens."""
    place = importlib.util.find_spec("larq_compute_engine").submodule_search_locations
    package = types.ModuleType("larq_compute_engine")
    package.__path__ = list(place)
    sys.modules["larq_compute_engine"] = package
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    return Interpreter


def main() -> None:
    """Writes each file's outputs as arrays `0`, `1`, … and prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    names = ("MODEL", "IMAGES", "OUTPUTS")
    text = "a .tflite, an .npy with (N, H, W, C) float32, and the .npz to write; may be given several times"
    parser.add_argument("--run", nargs=3, type=Path, metavar=names, action="append", required=True, help=text)
    parser.add_argument("--kernel", choices=("bgemm", "indirect", "reference"), default="bgemm")
    parser.add_argument("--threads", type=int, default=1)
    text = "runs of each file's first picture whose processor time is taken"
    parser.add_argument("--times", type=int, default=0, help=text)
    args = parser.parse_args()

    import numpy as np

    engine = interpreter_class()
    kernel = {"use_reference_bconv": args.kernel == "reference", "use_indirect_bgemm": args.kernel == "indirect"}
    milliseconds = []
    for model, images, outputs in args.run:
        interpreter = engine(model.read_bytes(), num_threads=args.threads, **kernel)
        pictures = np.load(images)
        found = interpreter.predict(pictures)
        found = found if isinstance(found, list) else [found]
        np.savez(outputs, **{str(i): array for i, array in enumerate(found)})
        milliseconds.append([])
        for _ in range(args.times):
            start = time.process_time()
            interpreter.predict(pictures[:1])
            milliseconds[-1].append(1e3 * (time.process_time() - start))
    version = importlib.metadata.version("larq-compute-engine")
    print(json.dumps({"milliseconds": milliseconds, "version": version, "tensorflow": "tensorflow" in sys.modules}))


if __name__ == "__main__":
    main()
