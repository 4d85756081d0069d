"""Two hosts on one machine: Linux network namespaces with addresses of their own, joined by a switch."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

_PREFIX = "10.77.0"


class Network:
    """``host-a`` and ``host-b``, which have names, addresses and processes of their own, and share the disk.

    A context manager: on leaving, all their processes are killed and the namespaces removed.
    """

    hosts = ("host-a", "host-b")

    @staticmethod
    def problem() -> str | None:
        """Why there can be no such network here, or None."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return "needs Linux and root, to make network namespaces"
        missing = [name for name in ("ip", "unshare") if shutil.which(name) is None]
        if missing:
            return f"needs the program {missing[0]!r}: install iproute2 and util-linux"
        name = f"bnnlight-probe-{os.getpid()}"
        done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
        if done.returncode:
            return f"may not make network namespaces here: {done.stderr.strip()}"
        _ip("netns", "del", name)
        return None

    def __enter__(self) -> Network:
        self._names = {name: f"bnnlight-{name}-{os.getpid()}" for name in ("switch", *self.hosts)}
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _build(self) -> None:
        switch = self._names["switch"]
        for name in self._names.values():
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        lines = ["127.0.0.1 localhost", *(f"{_PREFIX}.{i} {host}" for i, host in enumerate(self.hosts, 1))]
        for i, host in enumerate(self.hosts, 1):
            name = self._names[host]
            _ip("-n", switch, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", switch, "link", "set", host, "master", "bridge", "up")
            _ip("-n", name, "addr", "add", f"{_PREFIX}.{i}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            own = Path("/etc/netns") / name  # `ip netns exec` shows it as /etc/hosts
            own.mkdir(parents=True)
            (own / "hosts").write_text("\n".join(lines) + "\n")

    def start(self, host: str, command: list[str], log: Path, **options) -> subprocess.Popen:
        """Starts a command on a host; its output goes into a file."""
        named = ["unshare", "--uts", "sh", "-c", f'hostname {host}; exec "$@"', "sh"]
        with log.open("w") as file:
            command = ["ip", "netns", "exec", self._names[host], *named, *command]
            return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **options)

    def pids(self, host: str) -> list[int]:
        """All processes of a host."""
        done = subprocess.run(["ip", "netns", "pids", self._names[host]], capture_output=True, text=True)
        return [int(pid) for pid in done.stdout.split()]

    def kill(self, host: str, only: str = "") -> None:
        """Kills all processes of a host at once, or those started as `python -m ONLY`."""
        for pid in self.pids(host):
            with contextlib.suppress(OSError):
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
                if not only or arguments[1:4] == ["-u", "-m", only]:
                    os.kill(pid, signal.SIGKILL)

    def cut(self, host: str) -> None:
        """Takes the host's cable off the switch: from now on nothing comes through, no end of a connection either."""
        _ip("-n", self._names["switch"], "link", "set", host, "down")

    def mend(self, host: str) -> None:
        """Puts the cable back."""
        _ip("-n", self._names["switch"], "link", "set", host, "up")

    def __exit__(self, *args: object) -> None:
        for name, full in self._names.items():
            if name in self.hosts:
                while pids := self.pids(name):
                    for pid in pids:
                        with contextlib.suppress(OSError):
                            os.kill(pid, signal.SIGKILL)
                    _reap()
            subprocess.run(["ip", "netns", "del", full], capture_output=True)
            shutil.rmtree(Path("/etc/netns") / full, ignore_errors=True)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def _ip(*args: str) -> None:
    done = subprocess.run(["ip", *args], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(args)}: {done.stderr.strip()}")
