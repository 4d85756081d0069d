"""Writes the help of verbs with a config into the package, where ``--help`` finds it without waiting for Lightning.

    python docs/write_help.py

Run it after a change of options, of their texts or defaults, or with another version of Lightning or jsonargparse.
`tests/experiment/config/test_early_help.py` says when that is so.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys

from bnnlight.cli import main
from bnnlight.experiment.config.early import help_page


def printed(verb: str) -> str:
    """What jsonargparse prints, on a terminal wider than any line. With an option before it, nothing is kept ready."""
    os.environ["COLUMNS"] = "100000"
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        main([verb, "--no_resume", "--help"])
    return text.getvalue()


def write() -> None:
    """Writes the file."""
    pages = [help_page.Page.read(verb, printed(verb)) for verb in help_page.VERBS]
    text = json.dumps(help_page.pack(pages), indent=1, ensure_ascii=False)
    help_page.FILE.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(write())
