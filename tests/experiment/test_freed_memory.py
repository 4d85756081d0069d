"""Freed memory stays with a process that trains on a CPU: the system's own count of resident pages tells."""

import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from bnnlight.commands import fit as bnnlight_fit
from bnnlight.experiment import freed_memory
from bnnlight.experiment.freed_memory import keep_freed_memory

CHOSEN = [name for name in os.environ if name.startswith("MALLOC_") or name in ("LD_PRELOAD", "GLIBC_TUNABLES")]
RESIDENT = """
import os
import torch
from bnnlight.experiment.freed_memory import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

{call}
tensor = torch.ones(25_000_000)
held = resident()
del tensor
print(held - resident())
"""


def released(call):
    """Bytes that go back to the system when a tensor of 100 MB is freed."""
    code = RESIDENT.format(call=call)
    plain = {name: value for name, value in os.environ.items() if name not in CHOSEN}
    return int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=plain, check=True).stdout)


def test_a_freed_tensor_stays_resident_afterwards_alone():
    assert released("") > 90e6
    assert released("assert keep_freed_memory()") < 10e6


@pytest.fixture
def calls(monkeypatch):
    """The options that the C library is told; none are set."""

    class Library:
        def __init__(self):
            self.told = []

        def gnu_get_libc_version(self):
            raise AssertionError("only looked for")

        def mallopt(self, option, value):
            self.told.append((option, value))
            return 1

    library = Library()
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(freed_memory.sys, "platform", "linux")
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: library)
    return library.told


def test_glibc_is_told_never_to_map_nor_to_trim(calls):
    assert keep_freed_memory()
    assert calls == [(-4, 0), (-1, 2**31 - 1)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_ARENA_MAX", "2"),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2"),
        ("LD_PRELOAD", "/usr/lib/libtcmalloc.so.4"),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=7"),
    ],
)
def test_what_the_user_chose_stays(calls, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not keep_freed_memory()
    assert calls == []


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_are_left_alone(calls, monkeypatch, system):
    monkeypatch.setattr(freed_memory.sys, "platform", system)
    assert not keep_freed_memory()
    assert calls == []


def test_another_c_library_is_left_alone(calls, monkeypatch):
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()


@pytest.mark.parametrize(("device", "count"), [("cpu", 1), ("cuda", 0)])
@pytest.mark.parametrize("verb", ["fit", "validate", "test"])
def test_called_where_a_cpu_trains_or_measures_alone(bnnlight, configs, monkeypatch, verb, device, count):
    called = []
    monkeypatch.setattr(bnnlight_fit, "keep_freed_memory", lambda: called.append(1))
    monkeypatch.setattr(bnnlight_fit, "_check_inputs", lambda *_: None)
    monkeypatch.setattr(SingleDeviceStrategy, "root_device", torch.device(device))
    monkeypatch.setattr(L.Trainer, verb, lambda *_, **__: [])
    Path("none.ckpt").touch()
    options = ["--config", configs / "quickstart.yaml", "--ckpt_path", "none.ckpt", "--trainer.fast_dev_run", "true"]
    code, _, err = bnnlight(verb, *options, "--trainer.accelerator", "cpu")
    assert code == 0, err
    assert len(called) == count


@pytest.mark.parametrize(("given", "expected"), [({}, "1"), ({"THP_MEM_ALLOC_ENABLE": "0"}, "0")])
def test_large_tensors_are_asked_to_lie_on_huge_pages_unless_the_user_says_otherwise(given, expected):
    code = "import os, sys, bnnlight.cli\nassert 'torch' not in sys.modules\nbnnlight.cli._load('fit')\n"
    code += "print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    env = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"} | given
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env, check=True, text=True)
    assert done.stdout.strip() == expected
