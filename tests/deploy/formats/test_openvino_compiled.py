"""Two OpenVINO networks that go in the order in which they came, in a process with a signal handler."""

import subprocess
import sys

import pytest

SCRIPT = """
import gc, signal, subprocess, sys
from pathlib import Path
import numpy as np
from bnnlight.deploy.formats.openvino import OpenVINOEngine

seen = []
signal.signal(signal.SIGCHLD, lambda number, frame: seen.append(number))
if sys.argv[2] == "faults":
    import faulthandler
    faulthandler.enable()  # has a stack of its own for signals
images = np.zeros((1, 3, 8, 8), np.float32)
for _ in range(3):
    one, two = (OpenVINOEngine(Path(sys.argv[1])) for _ in range(2))
    one(images), two(images), one(images)
    del one
    gc.collect()
    del two
    gc.collect()
    subprocess.run(["true"], check=True)
assert len(seen) >= 3
print("alive")
"""


@pytest.mark.parametrize("handler", ["plain", "faults"])
def test_signals_find_a_stack(handler, tmp_path):
    from torch import nn

    from bnnlight.deploy.formats.openvino import save_openvino
    from bnnlight.deploy.freezing.freeze import freeze
    from bnnlight.deploy.manifest import Manifest, PictureInput
    from bnnlight.nn import BinaryConv2d

    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), BinaryConv2d(8, 8, 3)).eval()
    manifest = Manifest("classification", "tests.Network", PictureInput(3, 8, (0.0,) * 3, (1.0,) * 3))
    file = save_openvino(freeze(network, (3, 8, 8)), manifest, tmp_path)
    done = subprocess.run([sys.executable, "-c", SCRIPT, file, handler], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "alive\n"
