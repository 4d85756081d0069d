"""Packed files that are of another kind, wrong or damaged: refused in one line, within bounded memory."""

import json
import os
import tracemalloc

import numpy as np
import pytest
import safetensors.numpy

from bnnlight.deploy.formats import container
from bnnlight.deploy.formats.packed import PackedEngine, load_packed, packed_signs
from bnnlight.deploy.seal import EMPTY, PREFIX, sealed


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
        (foreign, "not a packed model of bnnlight"),
        (other_types, "is of type 'F64'"),
        (is_folder, "not a regular file"),
        (is_pipe, "not a regular file"),
        (sparse, "at most 1073741824 are read"),
        (short, "its header says"),
        (huge_header, "cut off"),
        (long_header, "cut off"),
        (deep, "nested too deeply"),
        (many_objects, "not an object"),
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
        ({"format": 2}, None, "its format is 2, but this version of bnnlight reads 1"),
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
