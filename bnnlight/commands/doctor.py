"""`bnnlight doctor`: what is installed here and what of it works, for a bug report."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from bnnlight.console.large import large_imports
from bnnlight.console.parser import Parser
from bnnlight.console.shipped_configs import shipped_configs
from bnnlight.deploy.formats.workers import num_cores
from bnnlight.deploy.shipped import shipped_models
from bnnlight.experiment.machine import processor, processor_name

_INSTRUCTIONS = (
    *("avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_vpopcntdq"),
    *("amx_int8", "amx_bf16", "asimd", "asimddp", "bf16", "i8mm", "sve"),
)
"""Of a processor, those that make a difference here."""
_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "WANDB_MODE"),
    *("BNNLIGHT_COMMIT", "WORLD_SIZE", "SLURM_NTASKS", "PYTORCH_CUDA_ALLOC_CONF", "NCCL_DEBUG"),
)
"""Those whose values are told: they name no person, host or folder."""
_EXTRAS = ("", "train", "deploy", "hub")
_GIB = 2**30


def doctor(args: list[str]) -> None:
    """Print versions, GPU, threads, W&B's mode, what works and what is missing, to be pasted into a bug report.

    It contains no user or host names, no paths and no keys.
    """
    parser = Parser("bnnlight doctor", description=doctor.__doc__, epilog="example: bnnlight doctor > report.txt")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    options = parser.parse_args(args)
    found = findings()
    if options.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    width = max(map(len, found))
    for name, text in found.items():
        print(f"{name:<{width}}  {text}")


def findings() -> dict[str, str]:
    """What was looked at → what was found, in one line; where looking at it fails, the error."""
    looks: dict[str, Callable[[], str]] = {
        "bnnlight": _bnnlight,
        "Python": lambda: f"{platform.python_version()} {platform.python_implementation()}",
        "system": lambda: " ".join((platform.system(), platform.release(), platform.machine(), *platform.libc_ver())),
        "processor": _processor,
        "memory": _memory,
        "torch": _torch,
        "GPU": _gpu,
        "threads": _threads,
        "torch kernels": _torch_kernels,
        "OpenVINO": _openvino,
        "W&B": _wandb,
        "configs": lambda: f"{len(shipped_configs())} come with the package",
        "models": lambda: ", ".join(shipped_models()) or "none come with the package",
        "variables": _variables,
        "packages": lambda: ", ".join(f"{name} {number}" for name, number, _ in _packages() if number),
        "missing": _missing,
    }
    return {name: _looked(look) for name, look in looks.items()}


def _looked(look: Callable[[], str]) -> str:
    try:
        with large_imports():
            return look()
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except Exception as error:  # whatever is wrong here is what is looked for
        return without_paths(f"fails: {type(error).__name__}: {' '.join(str(error).split())}")


def without_paths(text: str) -> str:
    """A message in which of each path the last name is left, so that no home and no user stands there."""
    return re.sub(r"(?:[A-Za-z]:\\|~?/)(?:[^\s/\\:'\"]+[/\\])+", "…/", text)


def _bnnlight() -> str:
    try:
        from bnnlight.experiment.save_config import provenance
    except ImportError:  # the packages that train are not there
        return version("bnnlight")
    commit = provenance()["commit"]
    return version("bnnlight") + (f", commit {commit}" if commit else "")


def _processor() -> str:
    told = processor()
    flags = {*told.get("flags", "").split(), *told.get("Features", "").split()}
    known = " ".join(flag for flag in _INSTRUCTIONS if flag in flags)
    return f"{processor_name()}, {num_cores()} of {os.cpu_count()} cores" + (f", {known}" if known else "")


def _memory() -> str:
    parts = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / _GIB:.1f} GiB")
    if Path("/dev/shm").is_dir():
        parts.append(f"shared {shutil.disk_usage('/dev/shm').total / _GIB:.1f} GiB")
    try:
        import resource

        parts.append(f"{resource.getrlimit(resource.RLIMIT_NOFILE)[0]} open files")
    except ImportError:  # on Windows
        pass
    return ", ".join(parts) or "not known"


def _torch() -> str:
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs alone"
    return f"{torch.__version__}, built for {built}; instructions: {torch.backends.cpu.get_cpu_capability()}"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "torch finds none" if torch.version.cuda else "none: this torch is built for CPUs only"
    gpus = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return ", ".join(f"{gpu.name} ({gpu.total_memory / _GIB:.0f} GiB, {gpu.major}.{gpu.minor})" for gpu in gpus)


def _threads() -> str:
    import torch

    return f"torch {torch.get_num_threads()}, cores {num_cores()}"


def _torch_kernels() -> str:
    import torch

    from bnnlight.nn.compute import kernels

    tried = {
        "int_mm": kernels.int_mm.works(torch.device("cpu"), torch.int8),
        "mm_by_onednn": kernels.mm_by_onednn.works(torch.device("cpu"), torch.float32),
        "conv_backward": kernels.conv_backward.works(torch.device("cpu"), torch.float32),
    }
    return ", ".join(f"{name} {'in use' if works else 'replaced by a public way'}" for name, works in tried.items())


def _openvino() -> str:
    """On what kernels the binary layers of a shipped model run."""
    from bnnlight.deploy.formats.openvino import NAME, ON_BITS, OpenVINOEngine, save_openvino
    from bnnlight.deploy.formats.packed import load_packed

    model = next(iter(shipped_models().values()), None)
    if model is None:
        return version("openvino")
    program, manifest = load_packed(model / "model.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        save_openvino(program, manifest, Path(folder), "fp32")
        executed = OpenVINOEngine(Path(folder) / NAME).executed()
    kinds = sorted({kind for kind in executed.values() if kind.startswith(ON_BITS)})
    on_bits = sum(kind.startswith(ON_BITS) for kind in executed.values())
    return f"{version('openvino')}, {on_bits} of {len(executed)} binary layers on bits ({', '.join(kinds) or 'none'})"


def _wandb() -> str:
    from bnnlight.tracking.wandb_mode import logged_in

    login = "logged in" if logged_in() else "not logged in"
    mode = os.environ.get("WANDB_MODE") or ("online" if logged_in() else "offline")
    server = ", a server of its own" if os.environ.get("WANDB_BASE_URL") else ""
    return f"{version('wandb')}, {mode}, {login}{server}"


def _variables() -> str:
    return ", ".join(f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ) or "none that matter"


def _packages() -> list[tuple[str, str | None, str]]:
    """Packages that bnnlight asks for: name, version that is installed or None, and the extra that brings it or ""."""
    found = []
    for text in requires("bnnlight") or ():
        name = re.match(r"[\w.-]+", text)[0]
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", text)
        if (extra[1] if extra else "") in _EXTRAS:
            try:
                number = version(name)
            except PackageNotFoundError:
                number = None
            found.append((name, number, extra[1] if extra else ""))
    return found


def _missing() -> str:
    lines = []
    for extra in _EXTRAS:
        names = [name for name, number, of in _packages() if number is None and of == extra]
        if names:
            lines.append(f"{', '.join(names)} (pip install 'bnnlight{f'[{extra}]' if extra else ''}')")
    return "; ".join(lines) or "nothing"
