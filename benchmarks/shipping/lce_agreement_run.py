"""Runs a TensorFlow Lite file in Larq Compute Engine's interpreter on pictures, and times it.

Runs in an environment of its own, started by `lce_agreement.py --peer-python ENV/bin/python`:

    python -m venv ENV && ENV/bin/pip install larq-compute-engine==0.16.0 'numpy<2'
    ENV/bin/python benchmarks/shipping/lce_agreement_run.py model.tflite images.npy --output outputs.npz
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
    """Writes the outputs as `0`, `1`, … and prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, help="NumPy file of (N, H, W, C) float32")
    parser.add_argument("--output", type=Path, help="NumPy archive to write")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=0, help="of the first picture, timed one by one")
    parser.add_argument("--kernel", choices=("bgemm", "indirect", "reference"), default="bgemm")
    args = parser.parse_args()

    import numpy as np

    engine = interpreter_class()
    kernel = {"use_reference_bconv": args.kernel == "reference", "use_indirect_bgemm": args.kernel == "indirect"}
    interpreter = engine(args.model.read_bytes(), num_threads=args.threads, **kernel)
    images = np.load(args.images)
    if args.output:
        found = interpreter.predict(images)
        found = found if isinstance(found, list) else [found]
        np.savez(args.output, **{str(i): array for i, array in enumerate(found)})
    times = []
    for _ in range(args.runs):
        start = time.perf_counter()
        interpreter.predict(images[:1])
        times.append(1e3 * (time.perf_counter() - start))
    imported = "tensorflow" in sys.modules
    print(json.dumps({"ms": times, "version": importlib.metadata.version("larq-compute-engine"), "tensorflow": imported}))


if __name__ == "__main__":
    main()
