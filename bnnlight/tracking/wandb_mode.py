"""Whether Weights & Biases runs online or offline."""

from __future__ import annotations

import netrc
import os
import shlex
from pathlib import Path
from urllib.parse import urlsplit


def wandb_mode() -> str:
    """Settles on ``online`` or ``offline`` for this process and its children.

    ``WANDB_MODE`` decides where it is set. Else W&B is online where the user is logged in (``wandb login`` or
    ``WANDB_API_KEY``) and offline where not, so that no run ever stops to ask for a key.

    Returns:
        The mode, as ``WANDB_MODE`` now has it.
    """
    if not os.environ.get("WANDB_MODE"):
        os.environ["WANDB_MODE"] = "online" if _logged_in() else "offline"
    if os.environ["WANDB_MODE"] == "offline":
        os.environ.setdefault("WANDB_SILENT", "true")
    return os.environ["WANDB_MODE"]


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    # where `wandb login` writes the key; read with the standard library, as wandb's own reader is not public
    file = os.environ.get("NETRC") or next(
        (str(f) for f in (Path.home() / ".netrc", Path.home() / "_netrc") if f.exists()), None
    )
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        return bool(file and host and netrc.netrc(file).authenticators(host))
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
