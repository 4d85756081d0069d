"""The packed format: what is written is what is read, and what is read computes what was trained."""

import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from fixtures.trained_networks import classifier, hourglass

from bnnlight.backbones import ResNet18, StackedHourglass
from bnnlight.deploy.formats.packed import PackedEngine, load_packed, packed_signs, save_packed
from bnnlight.deploy.formats.plain import FrozenNetwork
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.program.bits import unpack_signs
from bnnlight.imaging.skeletons import MPII
from bnnlight.nn.inspect import named_binary_layers


@pytest.fixture(params=[classifier, hourglass], ids=["classifier", "hourglass"], scope="module")
def made(request):
    """A torch network, its program and its manifest."""
    network, manifest = request.param()
    return network, freeze(network, (3, 16, 16)), manifest


def assert_same(one, two):
    """Two programs of the same steps, settings and bits; a tensor named weight may be given another expectation."""
    assert two.input_shape == one.input_shape
    assert len(two.steps) == len(one.steps)
    for a, b in zip(one.steps, two.steps, strict=True):
        assert (b.name, b.op, b.inputs, b.settings) == (a.name, a.op, a.inputs, a.settings)
        assert list(b.tensors) == list(a.tensors)
        for name, tensor in a.tensors.items():
            assert b.tensors[name].dtype == tensor.dtype
            assert b.tensors[name].tobytes() == tensor.tobytes()


def test_the_same_program_is_read_back_bit_for_bit(made, tmp_path):
    _, program, manifest = made
    read, read_manifest = load_packed(save_packed(program, manifest, tmp_path))
    assert_same(program, read)
    assert read_manifest == manifest


def test_only_real_weights_are_rounded_to_float16(made, tmp_path):
    _, program, manifest = made
    half = Program(
        program.input_shape,
        tuple(
            Step(
                *(s.name, s.op, s.inputs, s.settings),
                {n: t.astype(np.float16).astype(np.float32) if n == "weight" else t for n, t in s.tensors.items()},
            )
            for s in program.steps
        ),
    )
    read, _ = load_packed(save_packed(program, manifest, tmp_path, "fp16"))
    assert_same(half, read)
    changed = [s for s, h in zip(program.steps, half.steps, strict=True) if not np.array_equal(*map(weight, (s, h)))]
    assert {s.op for s in changed} <= {"conv2d", "linear"} and changed


def weight(step):
    return step.tensors.get("weight", np.zeros(0))


def test_weights_are_the_signs_of_the_latent_weights(made, tmp_path):
    network, program, manifest = made
    read, _ = load_packed(save_packed(program, manifest, tmp_path))
    steps = {step.name: step for step in read.steps}
    layers = dict(named_binary_layers(network))
    assert len(layers) == len(read.binary_steps) > 3
    for path, layer in layers.items():
        step = steps[f"{path}.sum"]
        latent = layer.latent().detach().numpy()
        expected = np.where(latent >= 0, 1, -1)
        np.testing.assert_array_equal(unpack_signs(step.tensors["bits"], tuple(step.settings["shape"])), expected)


def test_the_program_read_back_computes_what_the_torch_network_computes(made, tmp_path, images):
    network, program, manifest = made
    file = save_packed(program, manifest, tmp_path)
    expected = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, x, path=path: expected.update({f"{path}.sign": x[0].numpy() >= 0}))
        for path, layer in named_binary_layers(network)
    ]
    with torch.no_grad():
        output = network(torch.from_numpy(images)).numpy()
    for hook in hooks:
        hook.remove()
    read, _ = load_packed(file)
    with torch.no_grad():
        np.testing.assert_allclose(FrozenNetwork(read)(torch.from_numpy(images)).numpy(), output, atol=1e-5, rtol=1e-5)
    engine_output = PackedEngine(file, num_threads=1)(images)
    assert engine_output.dtype == np.float32
    np.testing.assert_allclose(engine_output, output, atol=1e-5, rtol=1e-5)
    signs = packed_signs(file)(images)
    assert set(signs) == set(expected)
    for name, sign in signs.items():
        assert sign.dtype == bool
        np.testing.assert_array_equal(sign, expected[name], err_msg=name)


def test_the_same_network_gives_the_same_bytes(packed, tmp_path):
    file, program = packed
    _, manifest = load_packed(file)
    # the library's own order of texts changes from call to call
    for number in range(8):
        again = save_packed(program, manifest, tmp_path / str(number))
        assert again.read_bytes() == file.read_bytes()


def test_arrays_in_any_memory_layout_are_written_rightly(packed, tmp_path):
    file, program = packed
    turned = Program(
        program.input_shape,
        tuple(Step(s.name, s.op, s.inputs, s.settings, {n: reversed_layout(t) for n, t in s.tensors.items()})
              for s in program.steps),
    )  # fmt: skip
    assert not all(t.flags.c_contiguous for s in turned.steps for t in s.tensors.values())
    save_packed(turned, load_packed(file)[1], tmp_path / "turned")
    assert_same(program, load_packed(tmp_path / "turned" / "model.safetensors")[0])


def reversed_layout(array):
    return np.asfortranarray(array) if array.ndim > 1 else np.repeat(array, 2)[::2]


def test_a_resnet18_takes_at_most_3_mb(tmp_path):
    names = tuple(f"grey whale, gray whale {number:04}" for number in range(1000))
    manifest = Manifest("classification", "R", PictureInput(3, 224, (0.5,) * 3, (0.2,) * 3, 256), names)
    program = freeze(ResNet18(), (3, 224, 224))
    assert program.num_binary == 10_985_472  # Σ O·I·9 over the 16 convolutions: 1.37 MB
    file = save_packed(program, manifest, tmp_path, "fp16")
    assert file.stat().st_size <= 3_000_000


def test_the_papers_hourglass_takes_at_most_1_3_mb(tmp_path):
    manifest = Manifest("pose", "H", PictureInput(3, 256, (0.5,) * 3, (0.2,) * 3), (), MPII)
    # the network of configs/hg_mpii.yaml; a latent weight leaves nothing in a program
    program = freeze(StackedHourglass(num_joints=16, features=256, stacks=1, depth=4), (3, 256, 256))
    assert program.num_binary == 6_100_992
    assert save_packed(program, manifest, tmp_path, "fp16").stat().st_size <= 1_300_000


def test_reading_takes_neither_torch_nor_lightning(packed):
    file, program = packed
    code = (
        "import sys\n"
        "for name in ('torch', 'lightning', 'wandb', 'tensorly'): sys.modules[name] = None\n"
        "from bnnlight.deploy.formats.packed import load_packed\n"
        f"print(len(load_packed({str(file)!r})[0].steps))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.stderr == "" and done.stdout == f"{len(program.steps)}\n"


def test_reading_takes_no_more_memory_than_it_says(tmp_path):
    manifest = Manifest("classification", "x", PictureInput(1, 1, (0.5,), (0.2,)))
    steps = (
        Step("row", "flatten", ("input",)),
        Step("fc", "linear", ("row",), {}, {"weight": np.ones((2_000_000, 1), np.float32)}),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bnnlight.deploy.program.shapes.MAX_SIZE", 2**21)
        patch.setattr("bnnlight.deploy.program.shapes.positive.__defaults__", (1, 2**21))
        file = save_packed(Program((1, 1, 1), steps), manifest, tmp_path, "fp16")
        size = file.stat().st_size
        assert size > 4_000_000
        tracemalloc.start()
        load_packed(file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # its bytes twice, the weight in float32, and what looks for NaN in it
    assert peak < 2 * size + 2 * size + size + 1_000_000
