"""The scripts in `benchmarks`: each says what it does, and is where the documents say."""

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "benchmarks").rglob("*.py"))
SCRIPTS = [path for path in FILES if "ArgumentParser" in path.read_text() and not path.stem.startswith("shared_")]
ELSEWHERE = {"larq_latency", "train_step_peer"}
"""What runs in an environment of its own, with packages that do not go with this project's."""


def imported(path):
    """Names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("script", [path for path in SCRIPTS if path.stem not in ELSEWHERE], ids=lambda path: path.stem)
def test_answers_help(script, monkeypatch, capsys):
    # in this process: a new one would take seconds to import torch
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(script), run_name="__main__")
    assert left.value.code in (0, None)
    summary = ast.get_docstring(ast.parse(script.read_text())).splitlines()[0]
    # argparse breaks lines where it likes
    assert " ".join(summary.split()) in " ".join(capsys.readouterr().out.split())


# the peer is started by train_step.py
@pytest.mark.parametrize("script", [p for p in SCRIPTS if p.stem != "train_step_peer"], ids=lambda path: path.stem)
def test_its_command_is_where_it_lies(script):
    assert f"python {script.relative_to(ROOT)}" in ast.get_docstring(ast.parse(script.read_text()))


def test_each_file_is_a_script_a_part_of_one_or_shared():
    stems = {path.stem for path in SCRIPTS}
    for path in FILES:
        others = [other for other in path.parent.glob("*.py") if other != path]
        # a part that runs in a peer's environment is named, not imported
        users = [other for other in others if path.stem in imported(other) or path.name in other.read_text()]
        if path.stem.startswith("shared_"):
            assert len(users) > 1, path
        elif path not in SCRIPTS:
            assert users and any(path.stem.startswith(f"{script}_") for script in stems), path


def test_paths_of_benchmarks_in_documents_are_right():
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "results").glob("*.md"), *FILES]
    named = {name for path in documents for name in re.findall(r"benchmarks/[\w/]+\.py", path.read_text())}
    gone = {"benchmarks/comparison.py"}  # the changelog says what replaced it
    assert {name for name in named if not (ROOT / name).is_file()} == gone
    assert len(named) > 10
