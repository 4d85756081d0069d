"""Files of Larq Compute Engine: whole, found again, refused in one line."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from fixtures.lce_in_torch import operators, run
from torch import nn

from bnnlight.backbones import ResNet
from bnnlight.deploy import Runtime
from bnnlight.deploy.formats.larq.operators import to_lce
from bnnlight.deploy.formats.lce import check_lce, read_lce, save_lce
from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import Program, Step
from bnnlight.nn import BinaryConv2d, convert, named_binary_layers

MANIFEST = Manifest("classification", "tests.Net", PictureInput(3, 16, (0.5,) * 3, (0.25,) * 3, 18), ("ant", "bée"))


@pytest.fixture(scope="module")
def program():
    torch.manual_seed(0)
    return freeze(ResNet((1, 1), num_classes=2, width=0.5, stem="half").eval(), (3, 16, 16))


def test_a_file_comes_back_as_it_was_written(program, tmp_path):
    file = save_lce(program, MANIFEST, tmp_path / "new" / "folder")
    assert file == tmp_path / "new" / "folder" / "model.tflite"
    assert os.listdir(file.parent) == ["model.tflite"]
    assert read_lce(file) == MANIFEST
    content = file.read_bytes()
    assert save_lce(program, MANIFEST, tmp_path).read_bytes() == content
    # binary weights take a bit each: what is left is real numbers and the graph
    assert len(content) < program.num_binary / 8 + 4 * program.num_real + 30_000


def test_a_network_gives_its_output(program, tmp_path):
    images = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    content = save_lce(program, MANIFEST, tmp_path).read_bytes()
    with torch.no_grad():
        wanted = FrozenNetwork(program)(torch.from_numpy(images)).numpy()
    (found,) = run(content, images)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    used = operators(content)
    assert used.count("LceBconv2d") == len(program.binary_steps) == used.count("LceQuantize")
    # nothing takes the signs as real numbers, and zeros round a picture are the engine's where torch's are the same
    assert "LceDequantize" not in used
    strided = sum(step.settings["stride"] == [2, 2] for step in program.binary_steps)
    assert strided and used.count("PAD") == strided + 1  # and the stem


def test_half_precision_weights(program, tmp_path):
    whole, half = (save_lce(program, MANIFEST, tmp_path, dtype).read_bytes() for dtype in ("fp32", "fp16"))
    real = sum(s.tensors["weight"].size for s in program.steps if "weight" in s.tensors)
    # a conversion for each layer costs some bytes
    assert 1.5 * real < len(whole) - len(half) < 2 * real
    rounded = [
        Step(s.name, s.op, s.inputs, s.settings, {n: _half(t) if n == "weight" else t for n, t in s.tensors.items()})
        for s in program.steps
    ]
    images = np.random.default_rng(0).normal(size=(2, 3, 16, 16)).astype(np.float32)
    with torch.no_grad():
        wanted = FrozenNetwork(Program(program.input_shape, tuple(rounded)))(torch.from_numpy(images)).numpy()
    (found,) = run(half, images)
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()
    large = Step("fc", "linear", ("row",), {}, {"weight": np.full((2, 3), 1e5, np.float32)})
    with pytest.raises(ValueError, match="'fc': a weight of 100000 is beyond fp16"):
        save_lce(Program((3, 1, 1), (Step("row", "flatten", ("input",)), large)), MANIFEST, tmp_path / "no", "fp16")
    assert not (tmp_path / "no").exists()


def _half(array):
    return array.astype(np.float16).astype(np.float32)


def pool(name="pool"):
    settings = {"kernel": [2, 2], "stride": [1, 1], "padding": [0, 0], "dilation": [2, 2], "ceil_mode": False}
    return Step(name, "max_pool2d", ("input",), settings)


STACKED = (Step("maps", "stack", ("input", "input")), Step("relu", "relu", ("maps",)))


@pytest.mark.parametrize(
    ("steps", "parts"),
    [
        ((pool(),), ("pool (a max pool with dilation (2, 2): ", "pool without dilation")),
        (STACKED, ("relu (computes on stacked maps: ", "stack them last")),
        (
            (*(pool(f"pool{i}") for i in range(7)), *STACKED),
            ("pool0, pool1, pool2, pool3, pool4 and 2 more (a max pool", "; relu ("),
        ),
    ],
)
def test_what_the_engine_cannot_take(steps, parts, tmp_path, check_one_line):
    program = Program((16, 6, 6), tuple(steps))
    for attempt in (check_lce, lambda program: save_lce(program, MANIFEST, tmp_path / "m")):
        with pytest.raises(ValueError) as error:
            attempt(program)
        check_one_line(error, "Larq Compute Engine cannot take these layers: ", *parts)
    assert not (tmp_path / "m").exists()


class Gated(nn.Module):
    """Squeeze-and-excitation behind a depth-wise convolution, beside channels that are passed by and shuffled."""

    def __init__(self):
        super().__init__()
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.Hardswish())
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.SiLU(), nn.Conv2d(4, 8, 1), nn.Hardsigmoid()
        )

    def forward(self, x):
        one, other = x.chunk(2, 1)
        y = self.deep(other)
        n, c, h, w = x.shape
        return torch.cat((one, y * self.gate(y)), 1).view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def test_gates_parts_and_shuffles_give_their_output():
    torch.manual_seed(0)
    tail = nn.Sequential(nn.GELU(), nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), nn.Linear(144, 2))
    network = convert(nn.Sequential(nn.Conv2d(3, 16, 3, 2), Gated(), BinaryConv2d(16, 16, 3), tail))
    assert any(layer.groups == 8 for _, layer in named_binary_layers(network))
    with torch.no_grad():
        for _ in range(5):
            network.train()(torch.randn(8, 3, 20, 20))
        program = freeze(network.eval(), (3, 20, 20))
        images = torch.randn(3, 3, 20, 20)
        wanted = network(images).numpy()
    (found,) = run(to_lce(program, {}), images.numpy())
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_damage_is_seen(program, tmp_path, check_one_line):
    file = save_lce(program, MANIFEST, tmp_path)
    content = file.read_bytes()
    for place in (0, 5, len(content) // 3, len(content) - 9):
        damaged = bytearray(content)
        damaged[place] ^= 64
        for spoiled in (damaged, content[:-place] if place else b""):
            file.write_bytes(spoiled)
            with pytest.raises(ValueError) as error:
                read_lce(file)
            check_one_line(error, f"{file}: ")
    with pytest.raises(FileNotFoundError):
        read_lce(tmp_path / "none.tflite")


def test_it_does_not_run_here(program, tmp_path, check_one_line):
    file = save_lce(program, MANIFEST, tmp_path)
    for path in (tmp_path, file):
        with pytest.raises(ValueError) as error:
            Runtime(path)
        check_one_line(error, file, "runs in Larq Compute Engine alone", "--format openvino")


WITHOUT = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras", "larq", "larq_compute_engine"):
            raise AssertionError(name + " is imported")
sys.meta_path.insert(0, Refused())
from pathlib import Path
from bnnlight.deploy.formats.larq.operators import to_lce
from bnnlight.deploy.formats.lce import save_lce
from bnnlight.deploy.formats.packed import load_packed
program, manifest = load_packed(Path(sys.argv[1]) / "model.safetensors")
print(save_lce(program, manifest, Path(sys.argv[2])).stat().st_size)
print(*(name for name in sys.modules if "tensorflow" in name))
"""


def test_no_tensorflow_is_imported(tmp_path):
    from bnnlight.deploy.shipped import shipped_models

    command = [sys.executable, "-c", WITHOUT, shipped_models()["cifar10"], tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, loaded = done.stdout.split("\n")[:2]
    assert int(size) > 100_000 and loaded == ""
