"""Writing packed files: whole or not at all, and nothing that could not be read."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from bnnlight.deploy.formats.packed import load_packed, save_packed
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.deploy.program import Program, Step
from bnnlight.deploy.seal import EMPTY, PREFIX


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
        "from bnnlight.deploy.formats.packed import load_packed, save_packed\n"
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
