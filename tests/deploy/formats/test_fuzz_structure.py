"""Packed files whose structure somebody changed, and sealed anew: refused in one line, or a sound network.

The random files are the same on every run: each comes from its own seed, which the test's message has.
"""

import copy
import random

import numpy as np
import pytest
from fixtures.sealed_files import parts, refused, runs_as_checked, write

from bnnlight.deploy.program.operations import OPERATIONS

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


CHANGES = {
    "program": lambda rng, program, manifest, tensors: change_json(rng, program),
    "settings": lambda rng, program, manifest, tensors: change_settings(rng, program),
    "wiring": lambda rng, program, manifest, tensors: change_wiring(rng, program),
    "manifest": lambda rng, program, manifest, tensors: change_json(rng, manifest),
    "tensors": lambda rng, program, manifest, tensors: change_tensors(rng, tensors),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_file_sealed_anew_is_refused_or_runs_as_checked(sealed_file, bounded, kind):
    original = parts(sealed_file)
    write(sealed_file, *original)
    runs_as_checked(sealed_file)
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
            write(sealed_file, *changed)
        except ValueError:
            continue  # two places for a checksum, or none: nobody could seal it
        outcomes.append(refused(sealed_file))
        if not outcomes[-1]:
            try:
                runs_as_checked(sealed_file)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {error}") from error
    assert len(outcomes) >= 350
    # neither half of the test is empty
    assert any(outcomes) and not all(outcomes)
