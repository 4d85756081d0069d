"""The packed format: what is written is what is read, and what is read computes what was trained."""

import errno
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

from bnnlight.backbones import ResNet, ResNet18, StackedHourglass
from bnnlight.deploy import container
from bnnlight.deploy.bits import unpack_signs
from bnnlight.deploy.freeze import freeze
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.packed import PackedEngine, load_packed, packed_signs, save_packed
from bnnlight.deploy.plain import FrozenNetwork
from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.seal import EMPTY, PREFIX, sealed
from bnnlight.imaging.skeletons import MPII
from bnnlight.nn import Tucker
from bnnlight.nn.inspect import named_binary_layers


def trained(network):
    """The network with numbers as after some training: no batch norm is an identity, no slope the usual one."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -1, 1),
                (module.running_var, 0.2, 3),
                (module.weight.data, -0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                tensor.uniform_(low, high, generator=generator)
        elif isinstance(module, nn.PReLU):
            module.weight.data.uniform_(-0.2, 0.6, generator=generator)
    return network.eval()


def classifier():
    torch.manual_seed(0)
    network = trained(ResNet((1, 1), num_classes=5, width=0.125, stem="small", latent=Tucker))
    return network, Manifest("classification", "ResNet", PictureInput(3, 16, (0.5,) * 3, (0.2,) * 3), tuple("abcde"))


def hourglass():
    torch.manual_seed(0)
    network = trained(StackedHourglass(features=16, stacks=2, depth=1, padding_value=-1))
    return network, Manifest("pose", "StackedHourglass", PictureInput(3, 16, (0.5,) * 3, (0.2,) * 3), (), MPII)


@pytest.fixture(params=[classifier, hourglass], ids=["classifier", "hourglass"], scope="module")
def made(request):
    """A torch network, its program and its manifest."""
    network, manifest = request.param()
    return network, freeze(network, (3, 16, 16)), manifest


@pytest.fixture
def packed(tmp_path):
    """A file of a few kB and its program."""
    network, manifest = classifier()
    program = freeze(network, (3, 16, 16))
    return save_packed(program, manifest, tmp_path), program


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).normal(size=(3, 3, 16, 16)).astype(np.float32)


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


# ---- round trip


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


# ---- size


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


# ---- reading


def test_reading_takes_neither_torch_nor_lightning(packed):
    file, program = packed
    code = (
        "import sys\n"
        "for name in ('torch', 'lightning', 'wandb', 'tensorly'): sys.modules[name] = None\n"
        "from bnnlight.deploy.packed import load_packed\n"
        f"print(len(load_packed({str(file)!r})[0].steps))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.stderr == "" and done.stdout == f"{len(program.steps)}\n"


def test_a_file_that_is_not_there(tmp_path, check_one_line):
    for read in (load_packed, PackedEngine, packed_signs):
        with pytest.raises(FileNotFoundError) as error:
            read(tmp_path / "none.safetensors")
        check_one_line(error, tmp_path / "none.safetensors")


def foreign(file):
    safetensors.numpy.save_file({"weight": np.zeros(3, np.float32)}, file)


def other_types(file):
    safetensors.numpy.save_file({"weight": np.zeros(3)}, file, {"bnnlight": "{}", "program": "{}"})


def is_folder(file):
    file.mkdir()


def is_pipe(file):
    os.mkfifo(file)


def sparse(file):
    """A header that speaks of 8 TiB, and a file of that length, which takes no room on a disk."""
    numbers = 2**41
    write_header(file, {"x": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}, 4 * numbers)


def short(file):
    write_header(file, {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}, 100)


def huge_header(file):
    file.write_bytes((2**62).to_bytes(8, "little") + b"{" * 1000)


def long_header(file):
    with file.open("wb") as stream:
        stream.write((2**33).to_bytes(8, "little"))
        stream.truncate(2**34)


def deep(file):
    text = b'{"a":' * 800_000
    file.write_bytes(len(text).to_bytes(8, "little") + text)


def many_objects(file):
    """What takes most memory for its bytes: small dicts, in a text that takes four bytes a character."""
    text = ("[" + '{"":0},' * 300_000 + '"\U0001f600"]').encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text)


def write_header(file, record, num_bytes):
    text = json.dumps(record).encode()
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + num_bytes)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (foreign, "no packed model of bnnlight"),
        (other_types, "is of type 'F64'"),
        (is_folder, "no regular file"),
        (is_pipe, "no regular file"),
        (sparse, "at most 1073741824 are read"),
        (short, "its header speaks of"),
        (huge_header, "cut off"),
        (long_header, "cut off"),
        (deep, "nested too deeply"),
        (many_objects, "no object"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_of_another_kind_is_refused_within_bounded_memory(tmp_path, check_one_line, make, part):
    file = tmp_path / "model.safetensors"
    make(file)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError) as error:
            load_packed(file)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    check_one_line(error, part, "; export the checkpoint again")
    assert str(error.value).startswith(f"{file}: ")
    # 40 times the header, as the docstring says; of what comes behind it nothing is read
    num_bytes = min(file.stat().st_size, 5_000_000) if file.is_file() else 0
    assert peak < 40 * num_bytes + 1_000_000


def test_reading_takes_no_more_memory_than_it_says(tmp_path):
    manifest = Manifest("classification", "x", PictureInput(1, 1, (0.5,), (0.2,)))
    steps = (
        Step("row", "flatten", ("input",)),
        Step("fc", "linear", ("row",), {}, {"weight": np.ones((2_000_000, 1), np.float32)}),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bnnlight.deploy.shapes.MAX_SIZE", 2**21)
        patch.setattr("bnnlight.deploy.shapes.positive.__defaults__", (1, 2**21))
        file = save_packed(Program((1, 1, 1), steps), manifest, tmp_path, "fp16")
        size = file.stat().st_size
        assert size > 4_000_000
        tracemalloc.start()
        load_packed(file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # its bytes twice, the weight in float32, and what looks for NaN in it
    assert peak < 2 * size + 2 * size + size + 1_000_000


def texts_of(file):
    content = file.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header["__metadata__"], container.to_tensors(content)


def reseal(file, manifest=None, program=None):
    """Writes the file anew with a right seal, and with other texts."""
    texts, tensors = texts_of(file)
    record = {**json.loads(texts["bnnlight"]), "seal": PREFIX + EMPTY, **(manifest or {})}
    texts = {"bnnlight": json.dumps(record), "program": program or texts["program"]}
    file.write_bytes(sealed(container.to_bytes(tensors, texts)))


@pytest.mark.parametrize(
    ("manifest", "program", "part"),
    [
        ({"format": 2}, None, "its format is 2, this version of bnnlight reads 1"),
        ({"classes": ["a", "b"]}, None, "2 classes"),
        ({"input": None}, None, "input is of the wrong kind"),
        (None, "[]", "its program is not made of input_shape, steps"),
        (None, '{"input_shape": [3, 16, 16], "steps": []}', "belongs to no step"),
        (None, '{"input_shape": 3, "steps": []}', "input_shape of the wrong kind"),
        (None, '{"input_shape": [3, 16, 16], "steps": [[]]}', "its step 0 is not made of"),
        (None, "[" * 100_000, "its program is nested too deeply"),
    ],
)
def test_a_sealed_file_with_wrong_texts_is_refused(packed, check_one_line, manifest, program, part):
    file, _ = packed
    reseal(file)
    load_packed(file)
    reseal(file, manifest, program)
    with pytest.raises(ValueError) as error:
        load_packed(file)
    check_one_line(error, part, "; export the checkpoint again")
    assert str(error.value).startswith(f"{file}: ")


def test_a_tensor_is_not_read_twice(packed, check_one_line):
    file, _ = packed
    record = json.loads(texts_of(file)[0]["program"])
    step = next(step for step in record["steps"] if step["tensors"])
    step["tensors"].append(step["tensors"][0])
    reseal(file, program=json.dumps(record))
    with pytest.raises(ValueError) as error:
        load_packed(file)
    check_one_line(error, "names a tensor", "that is not there")


def test_a_damaged_file_says_that_it_is_damaged(packed, check_one_line):
    file, _ = packed
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError) as error:
        PackedEngine(file)
    check_one_line(error, "its checksum is wrong", "copy it again")
    assert str(error.value).startswith(f"{file}: ")


# ---- running


def test_an_engine_takes_batches_of_any_size(packed, images):
    file, _ = packed
    engine = PackedEngine(file)
    assert engine.input_shape == (3, 16, 16)
    assert engine.manifest.classes == tuple("abcde")
    whole = engine(images)
    assert whole.shape == (3, 5)
    single = np.concatenate([engine(images[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(single, whole, atol=1e-5)
    assert engine(images[:0]).shape == (0, 5)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda x: x.astype(np.float64), ("float64", "float32")),
        (lambda x: (255 * x).astype(np.uint8), ("uint8", "float32")),
        (lambda x: x.astype(">f4"), (">f4", "float32")),
        (lambda x: x[0], ("(3, 16, 16)", "(N, 3, 16, 16)")),
        (lambda x: x[:, :1], ("(3, 1, 16, 16)", "(N, 3, 16, 16)")),
        (lambda x: x[..., :8], ("(3, 3, 16, 8)", "(N, 3, 16, 16)")),
        (lambda x: x[None], ("(1, 3, 3, 16, 16)", "(N, 3, 16, 16)")),
        (lambda x: x.tolist(), ("list", "float32")),
    ],
)
def test_wrong_images_are_refused(packed, images, check_one_line, change, parts):
    for run in (PackedEngine(packed[0]), packed_signs(packed[0])):
        with pytest.raises(ValueError) as error:
            run(change(images))
        check_one_line(error, *parts)


def test_images_are_left_as_they_are_and_may_be_read_only(packed, images):
    engine = PackedEngine(packed[0])
    view = images[::-1, :, ::-1].copy()[::-1, :, ::-1]
    view.flags.writeable = False
    np.testing.assert_array_equal(engine(view), engine(images))
    assert view.tobytes() == images.tobytes()


def test_the_number_of_threads_holds_while_the_engine_computes(packed, images, monkeypatch):
    engine = PackedEngine(packed[0], num_threads=3)
    before, seen = torch.get_num_threads(), []
    engine(images)
    network = engine._network
    monkeypatch.setattr(engine, "_network", lambda x, look: seen.append(torch.get_num_threads()) or network(x, look))
    engine(images)
    assert seen == [3] and before != 3
    assert torch.get_num_threads() == before

    def fail(x, look):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine, "_network", fail)
    with pytest.raises(RuntimeError):
        engine(images)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [0, -1])
def test_a_number_of_threads_below_one_is_refused(packed, count, check_one_line):
    with pytest.raises(ValueError) as error:
        PackedEngine(packed[0], num_threads=count)
    check_one_line(error, f"num_threads is {count}")


# ---- writing


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("failure", [full_disk, interrupted])
@pytest.mark.parametrize("place", ["os.replace", "os.fsync"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(packed, tmp_path, monkeypatch, place, failure):
    file, program = packed
    old = file.read_bytes()
    manifest = Manifest("classification", "Other", PictureInput(3, 16, (0.5,) * 3, (0.2,) * 3))
    with monkeypatch.context() as patch, pytest.raises((OSError, KeyboardInterrupt)):
        patch.setattr(place, failure)
        save_packed(program, manifest, tmp_path)
    assert file.read_bytes() == old
    assert list(tmp_path.iterdir()) == [file]
    save_packed(program, manifest, tmp_path)
    assert load_packed(file)[1] == manifest
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_stops_half_way_leaves_nothing(packed, tmp_path):
    folder = tmp_path / "new"
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from bnnlight.deploy.packed import load_packed, save_packed\n"
        "program, manifest = load_packed(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try: save_packed(program, manifest, Path(sys.argv[2]))\n"
        "except OSError as error: print(error.errno)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-B", "-c", code, str(packed[0]), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.stdout == f"{errno.EFBIG}\n", done.stderr
    assert list(folder.iterdir()) == []


def test_a_file_has_the_usual_permissions(packed, tmp_path):
    (tmp_path / "other").write_text("")
    assert packed[0].stat().st_mode == (tmp_path / "other").stat().st_mode


WRONG = Manifest("classification", "x", PictureInput(3, 32, (0.5,) * 3, (0.2,) * 3))
NO_NUMBER = Manifest("classification", "x", PictureInput(3, 16, (0.5,) * 3, (0.2,) * 3), metrics={"acc": float("nan")})
TWO_SEALS = Manifest("classification", "x", NO_NUMBER.input, origin={"checkpoint_sha256": PREFIX + EMPTY})


@pytest.mark.parametrize(
    ("manifest", "part"),
    [(WRONG, "pictures of shape (3, 32, 32)"), (NO_NUMBER, "not valid JSON"), (TWO_SEALS, "2 places for a checksum")],
)
def test_what_could_not_be_read_is_not_written(packed, tmp_path, check_one_line, manifest, part):
    with pytest.raises(ValueError) as error:
        save_packed(packed[1], manifest, tmp_path / "new")
    check_one_line(error, part)
    assert not (tmp_path / "new").exists()


def test_a_weight_too_large_for_float16_is_named(tmp_path, check_one_line):
    steps = (
        Step("row", "flatten", ("input",)),
        Step("fc", "linear", ("row",), {}, {"weight": np.float32([[1e5]])}),
    )
    program = Program((1, 1, 1), steps)
    manifest = Manifest("classification", "x", PictureInput(1, 1, (0.5,), (0.2,)))
    with pytest.raises(ValueError) as error:
        save_packed(program, manifest, tmp_path, "fp16")
    check_one_line(error, "'fc'", "1e+05", "choose fp32")
    assert list(tmp_path.iterdir()) == []
    assert load_packed(save_packed(program, manifest, tmp_path))[0].steps[1].tensors["weight"] == np.float32(1e5)


def test_an_unknown_type_of_numbers_is_refused(packed, tmp_path, check_one_line):
    with pytest.raises(ValueError) as error:
        save_packed(packed[1], load_packed(packed[0])[1], tmp_path, "bf16")
    check_one_line(error, "'bf16'", "fp32 or fp16")
