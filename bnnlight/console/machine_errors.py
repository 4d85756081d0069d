"""Explains errors of the machine in one line: memory, disk, limits, loader workers that are gone, compilers."""

from __future__ import annotations

import errno
import os
import re

_GO_ON = "free some and start it again (a run: with --resume); nothing that was saved is lost"
_MORE_FILES = "raise the limit (ulimit -n 65536; docker run --ulimit nofile=65536), or lower data.num_workers"
_LESS_MEMORY = "lower data.batch_size or data.num_workers, or give the job more memory"
_OUT_OF_REACH = (errno.EIO, errno.ESTALE, errno.ENOTCONN)


def explain_machine(error: BaseException, message: str) -> str | None:
    """What ran out, where, and what to do.

    Libraries pass on what the system says in words of their own, and a loader worker's error arrives as text; so the
    words are what tells. Only torch is known to say nothing of a full disk: there it says what it noticed.

    Args:
        error: as it reached the command line.
        message: its words, without the traceback of a worker.

    Returns:
        One line, or None if it is an error of another kind.
    """
    if message.startswith("cannot read image"):
        return None
    chain = _chain(error, message)
    for explain in (_files, _shared_memory, _gpu_memory, _workers, _memory, _disk, _system, _compiler):
        line = explain(error, chain)
        if line:
            return line
    return None


def _chain(error: BaseException, message: str) -> str:
    """The message with those of the errors that led to it: torch tells there which signal ended a worker."""
    parts, cause = [message], error.__cause__ or error.__context__
    while cause is not None and len(parts) < 4:
        parts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    return "\n".join(parts) if "exited unexpectedly" in message else message


def _files(error: BaseException, text: str) -> str | None:
    return f"too many open files{_where(error, text)}: {_MORE_FILES}" if "too many open files" in text.lower() else None


def _shared_memory(error: BaseException, text: str) -> str | None:
    if not re.search(r"</?torch_\w+>|bus error|shared memory", text, re.I):
        return None
    return (
        "shared memory ran out (loader workers pass batches through it): give the container more "
        "(docker run --shm-size 8g), or lower data.num_workers; 0 needs none"
    )


def _gpu_memory(error: BaseException, text: str) -> str | None:
    if not re.search(r"(CUDA|HIP) (error: )?out of memory|CUBLAS_STATUS_ALLOC_FAILED", text):
        return None
    tried = re.search(r"Tried to allocate ([\d.]+ \w+)", text)
    total = re.search(r"total capacity of ([\d.]+ \w+)", text)
    sizes = ", ".join(
        f"{what} {match[1]}" for what, match in (("wanted another", tried), ("the GPU has", total)) if match
    )
    return (
        f"GPU memory ran out{f' ({sizes})' if sizes else ''}: lower data.batch_size, and raise "
        "trainer.accumulate_grad_batches as much for steps of the same size; or set trainer.precision to bf16-mixed"
    )


def _workers(error: BaseException, text: str) -> str | None:
    if not re.search(r"DataLoader worker \(pid.*(is killed by signal|exited unexpectedly)", text):
        return None
    signal = re.search(r"killed by signal: (.+?)\.", text)
    if signal and signal[1] not in ("Killed", "Terminated"):
        return f"a loader worker crashed ({signal[1]}): pass --data.num_workers 0 --debug to see where"
    if code := re.search(r"with exit code (\d+)", text):
        return f"a loader worker ended with exit code {code[1]}: pass --data.num_workers 0 --debug to see where"
    return f"a loader worker was killed, most likely because memory ran out: {_LESS_MEMORY}"


def _memory(error: BaseException, text: str) -> str | None:
    words = r"DefaultCPUAllocator|MemoryError|Insufficient memory|bad_alloc|Unable to allocate|\[Errno 12\]"
    if not isinstance(error, MemoryError) and not re.search(words, text):
        return None
    in_bytes = re.search(r"allocate (\d+) bytes", text)
    in_words = re.search(r"Unable to allocate ([\d.]+ \w+)", text)
    size = f"{int(in_bytes[1]) / 2**30:.3g} GiB" if in_bytes else in_words[1] if in_words else ""
    return f"memory ran out{f' (wanted another {size})' if size else ''}: {_LESS_MEMORY}"


def _disk(error: BaseException, text: str) -> str | None:
    if "No space left on device" in text:
        return f"no space left on the disk{_where(error, text)}: {_GO_ON}"
    if f"[Errno {errno.EDQUOT}]" in text:
        return f"the disk quota is used up{_where(error, text)}: {_GO_ON}"
    # of torch, writing a file itself: a large one, any, a small one
    if re.search(r"unexpected pos \d+ vs \d+|PytorchStreamWriter failed|basic_ios::clear: iostream error", text):
        return f"a file could not be written completely, most likely because no space is left on the disk: {_GO_ON}"
    return None


def _system(error: BaseException, text: str) -> str | None:
    """What else the system refuses, by its number."""
    match = re.search(r"\[Errno (\d+)\] ([^:\n]+)", text)
    number, where = int(match[1]) if match else None, _where(error, text)
    if number == errno.EROFS:
        return f"the file system is read-only{where}: mount it writable, or choose another place (fit: --run_dir)"
    if number in (errno.EACCES, errno.EPERM):
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "this user"
        return f"no permission{where}: let {user} read and write there, or choose another place (fit: --run_dir)"
    if number in _OUT_OF_REACH:
        return f"{match[2].lower()}{where}: the disk or the connection to it fails; go on with --resume once it is back"
    if number == errno.EAGAIN or "can't start new thread" in text:
        advice = "raise the limit (ulimit -u, docker run --pids-limit), or lower data.num_workers"
        return f"no more processes or threads can be started: {advice}"
    return None


def _compiler(error: BaseException, text: str) -> str | None:
    """What ``torch.compile`` failed at. It wraps what a compiler says; advice for torch's authors stands behind it."""
    if not re.match(r"torch\._(dynamo|inductor)\.", type(error).__module__):  # by name: no verb waits for these
        return None
    if "No working C++ compiler" in text:
        return "torch.compile found no C++ compiler: install one (Debian: apt install g++), or leave --compile out"
    if re.search("triton", text, re.I) and re.search("cannot find|not installed|missing", text, re.I):
        return "torch.compile found no working Triton: install the one of your torch, or leave --compile out"
    said = re.split(r"\s*Set TORCHDYNAMO_VERBOSE|\s*For even more developer context", text)[0].rstrip(" .")
    return f"torch.compile failed: {said}: leave --compile out, or try another --compile.backend"


def _where(error: BaseException, text: str) -> str:
    named = re.search(r"\[Errno \d+\] [^:\n]+: '([^'\n]+)'", text)
    path = getattr(error, "filename", None) or (named[1] if named else None)
    return f" at {os.fsdecode(path)}" if isinstance(path, str | bytes | os.PathLike) else ""
