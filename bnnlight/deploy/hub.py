"""Models on the Hugging Face Hub: `hf://OWNER/NAME` is downloaded, and `bnnlight export --hub OWNER/NAME` uploads.

``HF_ENDPOINT``, ``HF_TOKEN``, ``HF_HOME`` and ``HF_HUB_OFFLINE`` are huggingface_hub's own settings
(https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables). What is downloaded lies in its
cache; without a network a model that lies there is used.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

PREFIX = "hf://"
LIBRARY = "bnnlight"
"""Stands on a model's card as ``library_name``."""
_REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_ADDRESS = re.compile(rf"{PREFIX}(?P<repo>{_REPO})(?:@(?P<revision>[\w.-]+))?(?:/(?P<file>model\.\w+))?", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A model on the hub.

    Attributes:
        text: ``hf://OWNER/NAME``; a branch, tag or commit may follow as ``@REVISION``, and a file as ``/model.xml``.
        repo: ``OWNER/NAME``.
        revision: None for the newest.
        file: None where the model has one main file.
    """

    text: str
    repo: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Takes an address apart.

        Raises:
            ValueError: it is none.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text} names no model on the hub: write {PREFIX}OWNER/NAME, or {PREFIX}OWNER/NAME@REVISION"
            )
        return cls(text, **match.groupdict())


@contextlib.contextmanager
def downloaded(text: str, main_files: Collection[str]) -> Iterator[Path]:
    """A model of the hub, to be opened inside.

    Where that fails the files are taken out of the cache again, so that a damaged one is not found there next time.

    Args:
        text: ``hf://OWNER/NAME…``.
        main_files: names of which a model has one.

    Yields:
        The path of the main file.

    Raises:
        OSError: the hub cannot be reached and the model is not in the cache, or the download broke.
        ValueError: there is no such model, it is none of bnnlight, or it cannot be opened; huggingface_hub is not
            installed. One line that begins with the address.
    """
    address = Address.parse(text)
    with _explained(text):
        files = [Path(path) for path in _download(address, main_files)]
    try:
        yield files[0]
    except (ValueError, FileNotFoundError) as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise
        _forget(files)
        # without its advice, which is for whoever has the checkpoint
        reason = str(error).removeprefix(f"{files[0]}: ").partition(";")[0]
        raise ValueError(f"{text}: {reason}; it is not kept: try again, or tell its owner") from error


def check_upload(repo: str) -> None:
    """Makes sure, before the work, that a model can be uploaded.

    Args:
        repo: ``OWNER/NAME``; made by :func:`upload` where it is not there.

    Raises:
        OSError: the hub cannot be reached.
        ValueError: it is no such name, nobody is logged in, or another project's model lies there.
    """
    if not re.fullmatch(_REPO, repo, re.ASCII):
        raise ValueError(f"--hub {repo}: write OWNER/NAME, in letters, digits and . _ -")
    with _explained(f"--hub {repo}"):
        api, errors = _api(), _hub("errors")
        try:
            api.whoami()
        except errors.LocalTokenNotFoundError:
            raise ValueError(f"--hub {repo}: you are not logged in: run `hf auth login`, or set HF_TOKEN") from None
        try:
            info = api.model_info(repo)
        except errors.RepositoryNotFoundError:
            return
        others = {entry.rfilename for entry in info.siblings or ()} - {".gitattributes"}
        if others and not _is_ours(info):
            raise ValueError(f"--hub {repo}: there is another project's model already: choose another name")


def upload(folder: Path, files: Collection[str], repo: str, private: bool) -> str:
    """Uploads a model in one commit, in place of an earlier one.

    Args:
        folder: that holds the files.
        files: their names.
        repo: ``OWNER/NAME``.
        private: whether a new repository is private.

    Returns:
        The model's page.

    Raises:
        OSError: the hub cannot be reached.
        ValueError: it refuses.
    """
    with _explained(f"--hub {repo}"):
        api = _api()
        page = api.create_repo(repo, private=private, exist_ok=True)
        message = f"{LIBRARY} {version(LIBRARY)}: {', '.join(sorted(files))}"
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(files),
            delete_patterns=["model.*"],  # of an earlier export in another format
            commit_message=message,
        )
    return str(page)


def _download(address: Address, main_files: Collection[str]) -> list[str]:
    """Paths of a model's files in the cache, the main one first."""
    hub = _hub()
    names = _names(address, main_files)
    return [hub.hf_hub_download(address.repo, name, revision=address.revision, library_name=LIBRARY) for name in names]


def _names(address: Address, main_files: Collection[str]) -> list[str]:
    """Which files to download, the main one first."""
    try:
        info = _api().model_info(address.repo, revision=address.revision)
    except Exception as error:
        there = [name for name in main_files if _cached(address, name)]
        if not _is_unreachable(error) or not there:
            raise
    else:
        if not _is_ours(info):
            card = (
                f"its card says library_name {info.library_name}" if info.library_name else "its card does not say so"
            )
            raise ValueError(f"{address.text} is not a model of bnnlight: {card}")
        names = {entry.rfilename for entry in info.siblings or ()}
        there = [name for name in main_files if name in names]
    if address.file:
        if address.file not in there:
            raise ValueError(f"{address.text}: it has {', '.join(there) or 'no shipped model'}, and no {address.file}")
        there = [address.file]
    if not there:
        raise ValueError(f"{address.text}: no shipped model in it: looked for {', '.join(main_files)}")
    if len(there) > 1:
        raise ValueError(
            f"{address.text} holds several models, {', '.join(there)}: name one, {address.text}/{there[0]}"
        )
    return [*there, *(["model.bin"] if there[0].endswith(".xml") else [])]


def _cached(address: Address, name: str) -> bool:
    return isinstance(_hub().try_to_load_from_cache(address.repo, name, revision=address.revision), str)


def _forget(files: Collection[Path]) -> None:
    """Takes files out of the cache: the names in its folder of the revision, and what they are links to."""
    for file in files:
        content = file.resolve()
        file.unlink(missing_ok=True)
        content.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there are other files in it
        next(iter(files)).parent.rmdir()


def _is_ours(info: Any) -> bool:
    return info.library_name == LIBRARY or LIBRARY in (info.tags or ())


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Makes one line of what huggingface_hub raises, and of what it tells besides of each try."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise ValueError(f"{what}: huggingface_hub is not installed; run: pip install 'bnnlight[hub]'") from error
    except Exception as error:
        if type(error) is ValueError and str(error).startswith(what):
            raise
        errors, endpoint = _hub("errors"), _hub("constants").ENDPOINT
        log_in = "log in with `hf auth login`, or set HF_TOKEN"
        if isinstance(error, errors.GatedRepoError):
            raise ValueError(
                f"{what}: its owner grants access first: ask for it on {endpoint}, and {log_in}"
            ) from error
        if isinstance(error, errors.RepositoryNotFoundError):
            raise ValueError(f"{what}: no such model on {endpoint}, or a private one: {log_in}") from error
        if isinstance(error, errors.RevisionNotFoundError):
            raise ValueError(f"{what}: it has no such revision") from error
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise ValueError(
                f"{what}: {endpoint} refuses it ({status}): {log_in} as somebody who may do this"
            ) from error
        if status is not None and status < 500:
            raise ValueError(f"{what}: {endpoint} answers {status}: {reason}") from error
        raise OSError(f"{what}: {endpoint} cannot be reached ({reason}); check the network and HF_ENDPOINT") from error
    finally:
        logger.setLevel(level)


def _is_unreachable(error: Exception) -> bool:
    """Whether it is the network or the server that fails, and not the question."""
    status = getattr(getattr(error, "response", None), "status_code", 500)
    return status >= 500


def _api() -> Any:
    return _hub().HfApi(library_name=LIBRARY, library_version=version(LIBRARY))


def _hub(part: str = "") -> Any:
    # imported late: it is an extra, and few models come from there
    return import_module("huggingface_hub" + (f".{part}" if part else ""))
