"""Saves a view in a project on W&B's server, and explains the server's errors."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request

import wandb
from wandb_workspaces.workspaces import Workspace

from bnnlight.tracking import logged_in

TIMEOUT_S = 15
"""How long the server may take to answer."""


def find_project(project: str, entity: str | None) -> str:
    """The entity that owns a project, having seen that the project is there.

    Args:
        project: its name.
        entity: user or team; the user's default one, or that of ``WANDB_ENTITY``, if None.

    Raises:
        PermissionError: nobody is logged in, or the server does not take the key.
        ConnectionError: the server is out of reach.
        OSError: it answers with an error.
        ValueError: there is no entity, or no such project in it.
    """
    if not logged_in():
        raise PermissionError("not logged in to W&B: run `wandb login`, or set WANDB_API_KEY; --dry-run needs neither")
    server = os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url
    # wandb itself would try again and again, and call what it gives up on a failed login
    if reason := _out_of_reach(server):
        raise ConnectionError(
            f"the W&B server {server} is out of reach ({reason}): check the network and WANDB_BASE_URL; --dry-run "
            "needs no server"
        )
    # wandb tells the address of a view too, in among its own messages
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        api = wandb.Api(timeout=TIMEOUT_S)
        entity = entity or api.settings["entity"] or api.default_entity
    except Exception as error:
        raise _explain(error) from error
    if not entity:
        raise ValueError("your W&B account has no default entity: pass --entity USER_OR_TEAM")
    try:
        # reading the id is what asks the server
        if api.project(project, entity).id:
            return entity
    except ValueError:  # this is how wandb tells that there is none, or none for this user
        pass
    except Exception as error:
        raise _explain(error) from error
    raise ValueError(
        f"no project {entity}/{project} that you may see on {api.settings['base_url']}: check --project and --entity "
        "(a project begins with its first run)"
    )


def save(view: Workspace) -> str:
    """Saves a view as a new one.

    Args:
        view: of :func:`bnnlight.tracking.dashboard.workspace`, with an entity.

    Returns:
        Its address.

    Raises:
        OSError: the server does not take it; PermissionError where the user may not save there.
    """
    try:
        return view.save().url
    except Exception as error:
        raise _explain(error, f"{view.entity}/{view.project}") from error


def _explain(error: Exception, path: str = "") -> OSError:
    """What an error of wandb means. Its type says little: wandb takes any failure of the server for a wrong key."""
    text = " ".join(str(error).split()) or type(error).__name__
    # found where the error began; a key that is none fails before the server is asked
    status = getattr(getattr(error.__cause__ or error, "response", None), "http_status", 0)
    if path and (status == 403 or "permission" in text):
        return PermissionError(f"you may not save views in the W&B project {path}: ask its owner ({text})")
    if isinstance(error, wandb.errors.Error) and (error.__cause__ is None or status in (401, 403)):
        return PermissionError(f"W&B does not accept your key: run `wandb login --relogin` ({text})")
    return OSError(f"the W&B server gave an unexpected answer: {text}")


def _out_of_reach(server: str) -> str:
    """Why a server cannot be reached, or nothing where it can."""
    try:
        urllib.request.urlopen(server, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError:  # whatever it says, it is there
        return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        # wandb has certificates of its own
        return "" if isinstance(reason, ssl.SSLError) else str(getattr(reason, "strerror", None) or reason)
    return ""
