"""Chooses whether Weights & Biases runs online or offline."""

from __future__ import annotations

import netrc
import os
import shlex
from pathlib import Path
from urllib.parse import urlsplit

_PUBLIC_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")


def wandb_mode() -> str:
    """Settles on ``online`` or ``offline`` for this process and its children.

    ``WANDB_MODE`` decides where it is set. Else W&B is online where the user is logged in (``wandb login`` or
    ``WANDB_API_KEY``) and offline where not, so that no run ever stops to ask for a key.

    Returns:
        The mode, as ``WANDB_MODE`` now has it.
    """
    if not os.environ.get("WANDB_MODE"):
        os.environ["WANDB_MODE"] = "online" if logged_in() else "offline"
    if os.environ["WANDB_MODE"] == "offline":
        os.environ.setdefault("WANDB_SILENT", "true")
    return os.environ["WANDB_MODE"]


def logged_in() -> bool:
    """Whether there is a W&B key to work with, from ``wandb login`` or ``WANDB_API_KEY``. Nobody is asked for it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    # where `wandb login` writes the key; read with the standard library, as wandb's own reader is not public
    file = os.environ.get("NETRC") or next(
        (str(f) for f in (Path.home() / ".netrc", Path.home() / "_netrc") if f.exists()), None
    )
    # the public server has two names: wandb 0.31 writes keys under the second and reads them under both
    server = urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname
    hosts = _PUBLIC_HOSTS if server is None or server in _PUBLIC_HOSTS else (server,)
    try:
        return bool(file and any(netrc.netrc(file).authenticators(host) for host in hosts))
    except (OSError, netrc.NetrcParseError):  # asking must never stop a run: without an answer it goes offline
        return False


def sync_hint(run_dir: Path) -> tuple[Path, str] | None:
    """Where a run's offline W&B files lie and the command that uploads them; None where there are none.

    A run that was stopped and resumed has left one folder a start; the command sends them in their order, as one run.

    Args:
        run_dir: the run's directory.
    """
    folder = run_dir / "wandb"
    return (folder, f"wandb beta sync {shlex.quote(str(folder))}") if any(folder.glob("offline-run-*")) else None
