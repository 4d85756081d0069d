"""Files that somebody damaged, or made to do harm: every one is refused in one line, or is a sound network.

The random files are the same on every run: each comes from its own seed, which the test's message has.
"""

import copy
import json
import os
import pickle
import random
import resource
import signal
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bnnlight.deploy import operations
from bnnlight.deploy.bits import pack_signs
from bnnlight.deploy.container import to_bytes, to_tensors
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.operations import OPERATIONS, check
from bnnlight.deploy.packed import load_packed, save_packed
from bnnlight.deploy.plain import FrozenNetwork
from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.seal import EMPTY, PREFIX, sealed
from bnnlight.tasks.checkpoints import read_checkpoint

CLASSES = ("ant", "bee", "cat", "dog", "eel")


def every_operation():
    """A program of a few kB in which each operation stands at least once."""
    rng = np.random.default_rng(0)

    def real(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def signs(*shape):
        return {"bits": pack_signs(rng.choice([-1, 1], shape))}

    sliding = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    steps = (
        Step("stem", "conv2d", ("input",), sliding, {"weight": real(4, 3, 3, 3), "bias": real(4)}),
        Step("norm", "affine", ("stem",), {}, {"scale": real(4, 8, 8), "shift": real(4)}),
        Step(
            *("conv.sign", "binarize", ("norm",), {}),
            {"threshold": np.float32([0.1, -np.inf, 0, 0.2]), "direction": np.float32([1, 1, -1, 1])},
        ),
        Step(
            *("conv.sum", "binary_conv2d", ("conv.sign",)),
            {"shape": [8, 2, 3, 3], **sliding, "groups": 2, "padding_value": -1},
            signs(8, 2, 3, 3),
        ),
        Step("conv", "affine", ("conv.sum",), {}, {"scale": real(8)}),
        Step("act", "prelu", ("conv",), {}, {"slope": real(8)}),
        Step(
            *("max", "max_pool2d", ("act",)),
            {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "dilation": [1, 1], "ceil_mode": False},
        ),
        Step(
            *("mean", "avg_pool2d", ("max",)),
            {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "ceil_mode": True, "count_include_pad": False},
        ),
        Step("up", "upsample_nearest", ("mean",), {"factor": [2, 2]}),
        Step("sum", "add", ("up", "act")),
        Step("relu", "relu", ("sum",)),
        Step("clamp", "clamp", ("relu",), {"min": -1, "max": 1.5}),
        Step("both", "concat", ("clamp", "up")),
        Step("pool", "mean2d", ("both",)),
        Step("sigmoid", "sigmoid", ("pool",)),
        Step("tanh", "tanh", ("pool",)),
        Step("stack", "stack", ("sigmoid", "tanh")),
        Step("row", "flatten", ("stack",)),
        Step("fc.sign", "binarize", ("row",), {}, {"threshold": real(32)}),
        Step("fc", "binary_linear", ("fc.sign",), {"shape": [16, 32]}, signs(16, 32)),
        Step("classifier", "linear", ("fc",), {}, {"weight": real(5, 16), "bias": real(5)}),
    )
    assert {step.op for step in steps} == set(OPERATIONS)
    return Program((3, 8, 8), steps)


MANIFEST = Manifest(
    *("classification", "networks.Small", PictureInput(3, 8, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 10), CLASSES),
    metrics={"test/acc1": 0.75},
    origin={"commit": "0123abcd", "command": "bnnlight export\n  --format packed"},
)


@pytest.fixture
def file(tmp_path):
    return save_packed(every_operation(), MANIFEST, tmp_path)


@pytest.fixture
def bounded(monkeypatch):
    """Lets a test have 256 MiB of memory more than now and 20 s for each round, and programs some 1 M numbers.

    With the bounds of programs lowered, memory that a hole in them lets a file take runs into the process's own bound,
    and torch or Python raises an error that no test expects.
    """
    for name, bound in (("MAX_VALUES", 2**20), ("MAX_UNFOLDED", 2**22), ("MAX_WORK", 2**27)):
        monkeypatch.setattr(operations, name, bound)
    # what is loaded late and once is loaded before the bound stands
    FrozenNetwork(every_operation())(torch.zeros(1, 3, 8, 8))

    def too_long(*_):
        raise TimeoutError("this file took 20 s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + 2**28, hard))
    old = signal.signal(signal.SIGALRM, too_long)
    yield lambda: signal.alarm(20)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refused(file):
    """Whether the file is refused, in one line that begins with its path and says what to do."""
    try:
        load_packed(file)
    except ValueError as error:
        message = str(error)
        assert type(error) is ValueError
        assert message.startswith(f"{file}: ") and len(message.splitlines()) == 1 and len(message) < 900, message
        assert "; export" in message, message
        return True
    return False


# ---- (a) bytes


def bit_flip(rng, content):
    place = rng.randrange(8 * len(content))
    content[place // 8] ^= 1 << place % 8


def header_flip(rng, content):
    # the header's length and its first bytes, where a change goes furthest
    content[rng.randrange(40)] ^= 1 << rng.randrange(8)


def byte_changes(rng, content):
    for _ in range(rng.randint(1, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)


def truncation(rng, content):
    del content[rng.randrange(len(content)) :]


def insertion(rng, content):
    place = rng.randrange(len(content) + 1)
    content[place:place] = rng.randbytes(rng.randint(1, 50))


def deletion(rng, content):
    place = rng.randrange(len(content))
    del content[place : place + rng.randint(1, 50)]


def swapped_blocks(rng, content):
    size = rng.randint(1, 200)
    one, two = (rng.randrange(len(content) - size) for _ in range(2))
    content[one : one + size], content[two : two + size] = content[two : two + size], content[one : one + size]


def zeroed(rng, content):
    place, size = rng.randrange(len(content)), rng.randint(1, 500)
    content[place : place + size] = bytes(len(content[place : place + size]))


def doubled(rng, content):
    content += content[: rng.choice([len(content), rng.randrange(1, len(content))])]


def digit(rng, content):
    # numbers in the header: shapes, offsets, settings
    places = [i for i, byte in enumerate(content[:3000]) if 48 <= byte < 58]
    content[rng.choice(places)] = rng.choice(b"0123456789")


def noise(rng, content):
    start = content[: rng.choice([0, 8, 9, 60, 500])]
    content[:] = start + rng.randbytes(rng.randrange(3000))


def json_noise(rng, content):
    text = "".join(rng.choice('{}[]",:0123456789aetrue null\\u') for _ in range(rng.randrange(300))).encode()
    content[:] = struct.pack("<Q", len(text)) + b"{" + text[1:] + rng.randbytes(rng.randrange(50))


BYTES = (bit_flip, header_flip, byte_changes, truncation, insertion, deletion, swapped_blocks, zeroed, doubled, digit)
BYTES += (noise, json_noise)


@pytest.mark.parametrize("change", BYTES, ids=lambda change: change.__name__)
def test_a_file_whose_bytes_changed_is_refused(file, bounded, change):
    original = file.read_bytes()
    assert not refused(file)
    changed = 0
    for seed in range(300):
        bounded()
        content = bytearray(original)
        change(random.Random(seed), content)
        if content != original:
            changed += 1
            file.write_bytes(content)
            assert refused(file), f"seed {seed}"
    assert changed >= 250


# ---- (b) structure, sealed anew

NASTY = (
    *(0, -1, 1, 2, 3, 4, 7, 8, 16, 63, 64, 255, 1000, 2**15, 2**20, 2**20 + 1, 2**31, 2**63, 2**64, 10**19),
    *(True, False, None, 1.0, 0.5, -0.0, 1e38, 1e39, 1e308, float("nan"), float("inf"), 10**400),
    *("", "input", "1", "conv", "affine", "\n", "\x1b[2J", "\ud800", "weight", "x" * 5000, "__class__"),
    *([], [1], [1, 1], [0, 0], [-1, -1], [1, 1, 1], [2**20, 2**20], [1000, 1000], [3, 8, 8], [True, True], [1.0, 1.0]),
    *([[1], [1]], [None, None], {}, {"a": 1}, {"1": [1]}, ["input"], ["input", "input"], [["input"]]),
)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inside:
        yield from places(child, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def change_json(rng, record):
    """One random change of a JSON object, in place."""
    path = rng.choice([path for path in places(record) if path])
    parent, key = at(record, path[:-1]), path[-1]
    kind = rng.choice(("replace", "replace", "replace", "number", "number", "delete", "copy", "add", "swap", "rename"))
    if kind == "number" and type(parent[key]) in (int, float):
        old = parent[key]
        parent[key] = rng.choice([old + 1, old - 1, 2 * old, -old, old * 2**10, float(old), bool(old), str(old)])
    elif kind == "delete":
        del parent[key]
    elif kind == "copy" and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(parent[key]))
    elif kind == "add" and isinstance(parent, dict):
        parent[rng.choice(("dilation", "bits", "extra", "", "shape", "\n"))] = rng.choice(NASTY)
    elif kind == "swap":
        other = rng.choice([p for p in places(record) if p and not set(p[: len(path)]) >= set(path)] or [path])
        if path != other[: len(path)] and other != path[: len(other)]:
            owner = at(record, other[:-1])
            parent[key], owner[other[-1]] = owner[other[-1]], parent[key]
    elif kind == "rename" and isinstance(parent, dict):
        parent[rng.choice(("name", "weight", "stride", "x"))] = parent.pop(key)
    else:
        parent[key] = rng.choice(NASTY)


def change_settings(rng, record):
    """A nasty value in place of one setting, or a few at once: most of what a program may do wrong."""
    with_settings = [step for step in record["steps"] if step["settings"]]
    for _ in range(rng.randint(1, 3)):
        settings = rng.choice(with_settings)["settings"]
        name = rng.choice(list(settings))
        large = [[n, n] for n in (0, 1, 2, 3, 7, 31, 100, 2**10, 2**15, 2**20)]
        settings[name] = rng.choice((*NASTY, *large, *large, 1, 2, 3, 7, 32))


def change_wiring(rng, record):
    """Other inputs, operations, orders: steps that do not fit each other."""
    step, other = rng.choice(record["steps"]), rng.choice(record["steps"])
    kind = rng.randrange(6)
    if kind == 0:
        step["inputs"] = rng.choices([s["name"] for s in record["steps"]] + ["input", "nobody"], k=rng.randrange(4))
    elif kind == 1:
        step["op"] = rng.choice(list(OPERATIONS))
    elif kind == 2:
        step["op"], other["op"] = other["op"], step["op"]
    elif kind == 3:
        step["name"] = rng.choice(["input", other["name"], "", 3, None])
    elif kind == 4:
        step["inputs"] = step["inputs"] * rng.choice([2, 3, 1000])
    else:
        # the picture's size goes through the convolutions as long as the manifest agrees
        record["input_shape"] = rng.choice([[3, n, n] for n in (1, 2, 4, 16, 64, 1000, 2**14, 2**20)])


def change_tensors(rng, tensors):
    """One random change of the tensors, in place."""
    name = rng.choice(list(tensors))
    array = tensors[name]
    kind = rng.randrange(8)
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        tensors[rng.choice(("99.weight", "0.extra", "x", "", "0.bits", "00.weight"))] = array
    elif kind == 2:
        with np.errstate(invalid="ignore"):
            types = (np.float16, np.float64, np.int8, np.uint8, np.int64, np.bool_, np.float32, np.uint16)
            tensors[name] = array.astype(rng.choice(types))
    elif kind == 3:
        tensors[name] = array.reshape(rng.choice([(-1,), (1, -1), (-1, 1), array.shape[::-1], (1,) * 5 + array.shape]))
    elif kind == 4:
        tensors[name] = rng.choice([array[:0], array[:-1], array[..., :-1], np.concatenate([array, array])])
    elif kind == 5:
        values = np.frombuffer(rng.randbytes(array.nbytes), array.dtype)
        tensors[name] = values.reshape(array.shape)
    elif kind == 6 and array.dtype == np.float32:
        tensors[name] = array.copy()
        tensors[name].flat[rng.randrange(array.size)] = rng.choice([np.nan, np.inf, -np.inf, 3e38, 1e-45, -0.0])
    else:
        other = rng.choice(list(tensors))
        tensors[name], tensors[other] = tensors[other], array


def write(file, program, manifest, tensors):
    """A file with a right seal, whatever it holds."""
    record = {"seal": PREFIX + EMPTY, **manifest}
    file.write_bytes(sealed(to_bytes(tensors, {"program": json.dumps(program), "bnnlight": json.dumps(record)})))


def parts(file):
    content = file.read_bytes()
    texts = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    manifest = json.loads(texts["bnnlight"])
    manifest["seal"] = PREFIX + EMPTY
    return json.loads(texts["program"]), manifest, to_tensors(content)


def runs_as_checked(file):
    """The program in a file is run on two pictures; every value has the shape that check() says."""
    program, manifest = load_packed(file)
    assert Manifest.from_json(manifest.to_json())[0] == manifest
    shapes, seen = check(program), []

    def look(name, value):
        assert value.dtype == torch.float32
        assert value.shape == (2, *shapes[name]), name
        seen.append(name)

    with torch.inference_mode():
        output = FrozenNetwork(program)(torch.rand(2, *program.input_shape), look)
    assert output.shape == (2, *shapes[program.output])
    assert seen == [step.name for step in program.steps]


CHANGES = {
    "program": lambda rng, program, manifest, tensors: change_json(rng, program),
    "settings": lambda rng, program, manifest, tensors: change_settings(rng, program),
    "wiring": lambda rng, program, manifest, tensors: change_wiring(rng, program),
    "manifest": lambda rng, program, manifest, tensors: change_json(rng, manifest),
    "tensors": lambda rng, program, manifest, tensors: change_tensors(rng, tensors),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_file_sealed_anew_is_refused_or_runs_as_checked(file, bounded, kind):
    original = parts(file)
    write(file, *original)
    runs_as_checked(file)
    outcomes = []
    for seed in range(400):
        bounded()
        changed = copy.deepcopy(original)
        rng = random.Random(seed)
        CHANGES[kind](rng, *changed)
        # a picture of another size is a matter of the program alone
        if isinstance(size := changed[0].get("input_shape"), list) and kind == "wiring":
            changed[1]["input"]["size_px"] = size[-1]
        try:
            write(file, *changed)
        except ValueError:
            continue  # two places for a checksum, or none: nobody could seal it
        outcomes.append(refused(file))
        if not outcomes[-1]:
            try:
                runs_as_checked(file)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error}") from error
    assert len(outcomes) >= 350
    # neither half of the test is empty
    assert any(outcomes) and not all(outcomes)


# ---- sizes: random windows one behind the other, most of which fit


def random_pair(rng, *usual):
    rare = (0, 1, 2, 3, 5, 8, 31, 100, 1000, 2**15, 2**20)
    return [rng.choice(usual if rng.random() < 0.97 else rare) for _ in range(2)]


def random_window(rng, name, source, channels):
    """A step with a window, its settings drawn at random, and the number of its channels."""
    op = rng.choice(("conv2d", "binary_conv2d", "max_pool2d", "avg_pool2d", "upsample_nearest"))
    if op == "upsample_nearest":
        return Step(name, op, (source,), {"factor": random_pair(rng, 1, 1, 2, 3)}), channels
    size = random_pair(rng, 1, 2, 3, 3, 5, 7)
    settings = {"stride": random_pair(rng, 1, 1, 2, 3), "padding": random_pair(rng, 0, 1, 1, 2, 3)}
    if op.endswith("pool2d"):
        settings |= {"kernel": size, "ceil_mode": rng.random() < 0.5}
        extra = {"dilation": random_pair(rng, 1, 1, 2)} if op == "max_pool2d" else {"count_include_pad": True}
        return Step(name, op, (source,), settings | extra), channels
    groups, outputs = rng.choice([(1, rng.choice([1, 2, 4])), (channels, 2 * channels)])
    shape = [outputs, channels // groups, *(max(1, n % 100) for n in size)]
    settings |= {"dilation": random_pair(rng, 1, 1, 2, 3), "groups": groups}
    if op == "conv2d":
        return Step(name, op, (source,), settings, {"weight": np.ones(shape, np.float32)}), outputs
    settings |= {"shape": shape, "padding_value": rng.choice((-1, 0, 1))}
    return Step(name, op, (source,), settings, {"bits": pack_signs(np.ones(shape))}), outputs


def test_random_windows_are_refused_or_run_as_checked(tmp_path, bounded):
    outcomes = []
    manifest = json.loads(Manifest("classification", "x", PictureInput(1, 9, (0.5,), (0.2,))).to_json())
    for seed in range(600):
        bounded()
        rng = random.Random(seed)
        steps, channels, source = [], 1, "input"
        for number in range(rng.randint(1, 4)):
            step, channels = random_window(rng, f"s{number}", source, channels)
            steps.append(step)
            source = step.name
        steps += [Step("mean", "mean2d", (source,)), Step("row", "flatten", ("mean",))]
        side = rng.choice((1, 2, 5, 9, 20))
        manifest["input"]["size_px"] = side
        program = {
            "input_shape": [1, side, side],
            "steps": [
                {**{k: getattr(s, k) for k in ("name", "op", "inputs", "settings")}, "tensors": list(s.tensors)}
                for s in steps
            ],
        }
        tensors = {f"{i}.{name}": array for i, s in enumerate(steps) for name, array in s.tensors.items()}
        write(tmp_path / "x", program, manifest, tensors)
        outcomes.append(refused(tmp_path / "x"))
        if not outcomes[-1]:
            try:
                runs_as_checked(tmp_path / "x")
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error}") from error
    assert 100 <= sum(outcomes) <= 500


# ---- (c) code


class Bomb:
    """What its pickle does when it is read: it creates a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def raw_pickle(bomb, file):
    file.write_bytes(pickle.dumps({"state_dict": bomb}, protocol=2))


def torch_zip(bomb, file):
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "hyper_parameters": bomb}, file)


def torch_legacy(bomb, file):
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "x": bomb}, file, _use_new_zipfile_serialization=False)


def bare_zip(bomb, file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": bomb}, protocol=2))
        archive.writestr("archive/version", "3")


def safetensors_with_pickle(bomb, file):
    # right up to the last entry of the header, whose text is a pickle
    program, manifest, tensors = parts(save_packed(every_operation(), MANIFEST, file.parent))
    program["steps"][0]["op"] = pickle.dumps(bomb, protocol=0).decode()
    write(file, program, manifest, tensors)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
@pytest.mark.parametrize("make", [raw_pickle, torch_zip, torch_legacy, bare_zip, safetensors_with_pickle])
def test_code_in_a_file_is_not_run(tmp_path, check_one_line, make, suffix):
    marker, file = tmp_path / "marker", tmp_path / f"bomb.{suffix}"
    make(Bomb(marker), file)
    with pytest.raises(ValueError) as error:
        load_packed(file)
    check_one_line(error, file)
    with pytest.raises(ValueError) as error:
        read_checkpoint(file)
    check_one_line(error, file)
    assert not marker.exists()


@pytest.mark.parametrize("make", [raw_pickle, torch_zip, torch_legacy])
def test_the_code_would_have_run(tmp_path, make):
    # else the test above would hold for any reader
    marker, file = tmp_path / "marker", tmp_path / "bomb"
    make(Bomb(marker), file)
    content = torch.load(file, weights_only=False) if make is not raw_pickle else pickle.loads(file.read_bytes())
    assert content and marker.exists()
