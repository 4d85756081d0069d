"""What completes command lines in bash, zsh and fish: put in place, and asked at each press of the tab key."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import argcomplete

from bnnlight.console.parser import parser_of

SHELLS = ("bash", "zsh", "fish")

Verb = Callable[[list[str]], None]


def install(shell: str | None, home: Path) -> str:
    """Writes the script that a shell reads when it starts, and has it read.

    Args:
        shell: one of :data:`SHELLS`; None: the one that ``$SHELL`` names.
        home: of the user.

    Returns:
        What was done, in one line.

    Raises:
        ValueError: it is no such shell.
        OSError: a file cannot be written.
    """
    named = shell or Path(os.environ.get("SHELL", "")).name
    if named not in SHELLS:
        asked = f"{named!r} is not a known shell" if named else "the shell is unknown, as $SHELL is not set"
        raise ValueError(f"{asked}: write bnnlight --install-completion {', '.join(SHELLS[:-1])} or {SHELLS[-1]}")
    code = argcomplete.shellcode(["bnnlight"], shell=named)
    if named == "fish":  # reads all files of this folder by itself
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        script = folder / "fish" / "completions" / "bnnlight.fish"
    else:
        folder = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
        script = folder / "bnnlight" / f"completion.{named}"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(code, encoding="utf-8")
    done = f"written: {script}"
    if named != "fish":
        settings = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc" if named == "zsh" else home / ".bashrc"
        if _read_by(settings, named, script):
            done += f", and a line in {settings} that reads it"
    return f"{done}; tab completes bnnlight in every new {named}"


def _read_by(settings: Path, shell: str, script: Path) -> bool:
    """Adds what reads the script to a shell's settings; False where it stands there."""
    begin = "autoload -Uz compinit is-at-least && compinit && " if shell == "zsh" else ""
    line = f"[ -r {shlex.quote(str(script))} ] && {begin}source {shlex.quote(str(script))}"
    text = settings.read_text(encoding="utf-8") if settings.exists() else ""
    if line in text.splitlines():
        return False
    gap = "" if not text or text.endswith("\n") else "\n"
    with settings.open("a", encoding="utf-8") as file:
        file.write(f"{gap}# completes bnnlight\n{line}\n")
    return True


def complete(
    verbs: Mapping[str, str],
    load: Callable[[str], Verb],
    with_config: Callable[[str, Sequence[str]], argparse.ArgumentParser | None],
) -> None:
    """Tells the shell what may follow, and ends the process. Only the verb that stands on the line is looked at.

    Args:
        verbs: name → what it does.
        load: the function of a verb.
        with_config: parser of a verb that takes a config, from the words behind it; None for other verbs.
    """
    before = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0"))]
    try:
        words = shlex.split(before)
    except ValueError:  # within quotes
        words = before.split()
    # the last word is being written
    done = words[1:] if before[-1:].isspace() else words[1:-1]
    verb = next((word for word in done if not word.startswith("-")), None)
    parser = argparse.ArgumentParser("bnnlight", allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="the version")
    parser.add_argument("--debug", action="store_true", help="on an error, show where in the code it arose")
    parser.add_argument("--install-completion", choices=SHELLS, help="complete command lines by tab")
    parts = parser.add_subparsers()
    for name, text in verbs.items():
        if name != verb:
            parts.add_parser(name, help=text)
            continue
        own = with_config(name, done[done.index(name) + 1 :]) or parser_of(load(name))
        parts.add_parser(name, help=text, parents=[own], add_help=False, allow_abbrev=False)
    argcomplete.autocomplete(parser, always_complete_options="long")
