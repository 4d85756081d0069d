"""The help that is kept in a file, beside what jsonargparse prints."""

import json
import subprocess
import sys

import pytest

from bnnlight.experiment.config.early import help_page
from bnnlight.experiment.config.early.help_page import FILE, VERBS, Page, kept_page, pack, unpack

RECORD = json.loads(FILE.read_text())

TEXT = """usage: bnnlight fit [-h] [-c CONFIG] [--json]

What it does. Example: bnnlight fit --config quickstart

options:
  -h, --help            Show this.
  -c CONFIG, --config CONFIG
                        Path to a file that is in a folder whose name is long. (type: str, default: null)
  --json                Print JSON. (type: bool, default: False)
"""


@pytest.mark.skipif(kept_page("fit") is None, reason=f"the help is that of {RECORD['made_with']}, others are installed")
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="argparse lays options out as in Python 3.11, see the file")
def test_it_is_what_jsonargparse_prints():
    # in a process of its own: other tests' classes are subclasses too, which it lists
    code = """
import contextlib, os, sys
from bnnlight.cli import main
for verb, width in {asked}:
    os.environ["COLUMNS"] = str(width)
    with contextlib.suppress(SystemExit):
        main([verb, "--no_resume", "--help"])
    print("\\0", end="")
"""
    asked = [*((verb, 80) for verb in VERBS), ("fit", 137)]
    command = [sys.executable, "-c", code.format(asked=asked)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    for (verb, width), text in zip(asked, printed, strict=False):
        assert kept_page(verb).wrapped(width) == text, f"{verb}: run python docs/write_help.py"


def test_it_is_printed_as_wide_as_the_terminal(bnnlight, monkeypatch):
    monkeypatch.setattr("bnnlight.experiment.config.early.answer.kept_page", lambda verb: Page.read("fit", TEXT))
    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = bnnlight("fit", "--help")
    assert code == 0 and max(map(len, out.splitlines())) <= 60
    assert " ".join(out.split()) == " ".join(TEXT.split())


def test_types_and_flags():
    page = Page.read("fit", TEXT)
    assert page.types() == {"h": "", "help": "", "c": "str", "config": "str", "json": "bool"}
    assert page.flags() == {"h", "help", "json"}


def test_pages_that_are_alike_are_kept_once():
    other = TEXT.replace("fit", "check").replace("[--json]", "[--all] [--json]")
    other = other.replace("  --json", "  --all                 List all.\n  --json")
    pages = [Page.read("fit", TEXT), Page.read("check", other)]
    record = json.loads(json.dumps(pack(pages)))
    assert [unpack(record, page.verb) for page in pages] == pages
    assert str(record).count("Path to a file") == 1


@pytest.mark.parametrize("name", help_page.MAKERS)
def test_with_other_versions_it_is_not_printed(name, monkeypatch, tmp_path):
    file = tmp_path / "help.json"
    file.write_text(json.dumps(RECORD | {"made_with": RECORD["made_with"] | {name: "0.1"}}))
    monkeypatch.setattr(help_page, "FILE", file)
    kept_page.cache_clear()
    assert kept_page("fit") is None
    kept_page.cache_clear()
