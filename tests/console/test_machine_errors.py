"""What is said when memory, disk or other limits of the machine are met: errors that really arose, where they can."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from bnnlight.console.errors import explain

RESUME = "free some and start it again (a run: with --resume); nothing that was saved is lost"


class Does(Dataset):
    """Four items, for each of which something is done."""

    def __init__(self, act):
        self.act = act

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.act()
        return index


def provoked(act):
    with pytest.raises(Exception) as caught:
        act()
    code, line = explain(caught.value)
    # the loader hangs on the error; its workers would be waited for
    caught.value.__traceback__ = None
    assert code == 1
    assert "\n" not in line
    return line


def in_worker(act):
    return lambda: list(DataLoader(Does(act), num_workers=1))


def unbuffered():
    with open("/dev/full", "wb", buffering=0) as file:
        torch.save(torch.zeros(10**5), file)


@pytest.mark.parametrize(
    "write",
    [
        lambda: Path("/dev/full").write_text("x"),
        lambda: torch.save(torch.zeros(3), "/dev/full"),
        lambda: torch.save(torch.zeros(10**5), "/dev/full"),
        unbuffered,
    ],
    ids=["text", "small tensor", "large tensor", "Lightning's way"],
)
def test_a_full_disk(write):
    line = provoked(write)
    assert "no space" in line and line.endswith(RESUME)


def test_a_full_disk_under_a_run(bnnlight_error, configs, quick, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml.part").symlink_to("/dev/full")
    code, line = bnnlight_error(
        *("fit", "--config", configs / "quickstart.yaml", "--run_dir=run", "--resume", *quick),
        *("--trainer.logger=bnnlight.tracking.MetricsFile", "--model.backbone.width=0.0625", "--trainer.max_epochs=1"),
    )
    assert code == 1
    assert line == f"bnnlight fit: error: no space left on the disk: {RESUME}"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left on the disk at /there: free some"),
        (errno.EDQUOT, "the disk quota is used up at /there: free some"),
        (errno.EROFS, "the file system is read-only at /there: mount it writable"),
        (errno.EACCES, f"no permission at /there: let user {os.getuid()} read and write there"),
        (errno.EIO, "input/output error at /there: the disk or the connection to it fails"),
        (errno.ESTALE, "stale file handle at /there: the disk or the connection to it fails"),
        (errno.EAGAIN, "no more processes or threads can be started: raise the limit (ulimit -u"),
    ],
)
def test_what_the_system_refuses(number, words):
    # the system's own words, as Python puts them together
    error = OSError(number, os.strerror(number), "/there")
    assert explain(error)[0] == 1
    assert explain(error)[1].startswith(words)

    def act():
        raise error

    # a worker passes on the words alone
    assert provoked(in_worker(act)).startswith(words)


def test_a_folder_that_refuses_files(tmp_path):
    """As root every folder can be written to, but not the kernel's own."""
    if os.getuid():
        tmp_path.chmod(0o500)
        assert f"no permission at {tmp_path}/x" in provoked((tmp_path / "x").touch)
    else:
        assert "no permission at /proc/sys/kernel/ostype" in provoked(
            lambda: Path("/proc/sys/kernel/ostype").write_text("x")
        )


def test_memory_that_is_not_there():
    assert provoked(lambda: torch.zeros(2**44)).startswith("memory ran out (wanted another 6.55e+04 GiB): lower data.b")
    assert provoked(lambda: np.zeros(2**44)).startswith("memory ran out (wanted another 128. TiB): lower data.batch_s")
    for act in (lambda: torch.zeros(2**44), lambda: np.zeros(2**44), lambda: bytearray(2**60)):
        assert provoked(in_worker(act)).startswith("memory ran out")


_LIMITED = """
import resource, sys
import numpy, torch
from bnnlight.console.errors import explain
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**28,) * 2)
kept = []
try:
    while True:
        kept.append({grow})
except Exception as error:
    kept = type(error).__name__
    print(kept, *explain(error))
"""


@pytest.mark.parametrize(
    ("grow", "kind"),
    [("bytearray(2**25)", "MemoryError"), ("torch.empty(2**23)", "RuntimeError")],
    ids=["own", "torch"],
)
def test_memory_that_runs_out(grow, kind):
    code = _LIMITED.format(grow=grow)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{kind} 1 memory ran out")
    assert "lower data.batch_size or data.num_workers, or give the job more memory" in done.stdout


def test_a_killed_worker():
    line = provoked(in_worker(lambda: os.kill(os.getpid(), signal.SIGKILL)))
    assert line.startswith("a loader worker was killed, most likely because memory ran out: lower data.batch_size")
    line = provoked(in_worker(lambda: os.kill(os.getpid(), signal.SIGABRT)))
    assert line.startswith("a loader worker crashed (Aborted")
    assert provoked(in_worker(lambda: os._exit(3))).startswith("a loader worker ended with exit code 3")


_AFTER_A_FIT = """
import os, signal
import lightning, torch
from torch.utils.data import DataLoader
from bnnlight.console.errors import explain
from bnnlight.data import DigitsDataModule

class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
    def training_step(self, batch, _):
        return self.weight.sum()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

class Dies(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGBUS)

quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
lightning.Trainer(max_steps=1, accelerator="cpu", **quiet).fit(Module(), DigitsDataModule(num_workers=1))
try:
    list(DataLoader(Dies(), num_workers=1))
except RuntimeError as error:
    print(*explain(error))
"""


def test_a_worker_lost_after_a_fit_is_told_of_with_its_reason():
    done = subprocess.run([sys.executable, "-c", _AFTER_A_FIT], capture_output=True, text=True, check=True)
    # a line that torch's crash report leaves open may stand before it
    assert "1 shared memory ran out (loader" in done.stdout


def test_a_worker_without_shared_memory():
    # what a page of shared memory that cannot be had does to a worker
    line = provoked(in_worker(lambda: os.kill(os.getpid(), signal.SIGBUS)))
    assert line.startswith("shared memory ran out")
    assert "docker run --shm-size 8g" in line and "data.num_workers" in line
    # of torch 2.15 with 300 kB in /dev/shm
    text = "unable to allocate shared memory(shm) for file </torch_22986_2142956029_0>: No space left on device (28)"
    assert explain(RuntimeError(text))[1] == line


@pytest.fixture
def few_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_open_files(few_files, tmp_path):
    (tmp_path / "a").touch()
    kept = []

    def open_many():
        for _ in range(100):
            kept.append((tmp_path / "a").open())

    line = provoked(open_many)
    kept.clear()
    assert line.startswith(f"too many open files at {tmp_path / 'a'}: raise the limit (ulimit -n 65536")
    assert provoked(in_worker(open_many)) == line
    # tensors of batches that are kept hold a file each
    many = DataLoader([torch.zeros(3)] * 200, num_workers=1)
    assert provoked(lambda: kept.extend(many)).startswith("too many open files: raise the limit")


def test_gpu_memory():
    text = (
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 13.41 GiB "
        "is free. Process 1 has 65.70 GiB memory in use. Of the allocated memory 65.00 GiB is allocated by PyTorch and "
        "20.00 MiB is reserved by PyTorch but unallocated."
    )
    code, line = explain(torch.cuda.OutOfMemoryError(text))
    assert code == 1
    assert line.startswith(
        "GPU memory ran out (wanted another 20.00 GiB, the GPU has 79.11 GiB): lower data.batch_size"
    )
    for way_out in ("trainer.accumulate_grad_batches", "trainer.precision to bf16-mixed"):
        assert way_out in line
    assert explain(RuntimeError("CUDA error: out of memory\nand\nmuch\nmore"))[1].startswith(
        "GPU memory ran out: lower"
    )


def test_other_errors_are_left_alone():
    assert explain(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))[1].startswith("RuntimeError: mat1")
    # our own words about a picture say more
    own = "cannot read image a.jpg: Too many open files; lower data.num_workers, or raise the limit"
    assert explain(OSError(own)) == (1, own)
    assert explain(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a.yaml"))[0] == 2


def test_a_compiler_that_is_not_there(monkeypatch, tmp_path):
    inductor = pytest.importorskip("torch._inductor.config", reason="this torch has no inductor")
    monkeypatch.setattr(inductor.cpp, "cxx", (None, str(tmp_path / "nothing")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.compiler.reset()
    try:
        line = provoked(lambda: torch.compile(lambda x: (x + 1).sin())(torch.zeros(3)))
    finally:
        torch.compiler.reset()
    assert line == "torch.compile found no C++ compiler: install one (Debian: apt install g++), or leave --compile out"


def test_a_backend_that_fails():
    def fails(graph, inputs):
        raise RuntimeError("this backend knows no sine")

    torch.compiler.reset()
    try:
        line = provoked(lambda: torch.compile(lambda x: (x + 1).sin(), backend=fails)(torch.zeros(3)))
    finally:
        torch.compiler.reset()
    assert line.startswith("torch.compile failed: ")
    assert "this backend knows no sine" in line
    assert line.endswith("leave --compile out, or try another --compile.backend")
    assert "TORCHDYNAMO" not in line
