"""No test depends on how quick the machine is: they wait for what happens, with the means of tests/fixtures."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
WAIT = ("fixtures/processes.py", "fixtures/stopping.py")
"""Where is waited, for an event."""


def looks_at_the_time(source):
    """Lines that sleep, look at a clock for a deadline, or give something a number of seconds to happen in."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("sleep", "monotonic", "perf_counter", "settimeout"):
            found.append(node.lineno)
        if isinstance(node, ast.keyword) and node.arg == "timeout" and isinstance(node.value, ast.Constant):
            found.append(node.value.lineno)
    return sorted(found)


def test_no_test_sleeps_nor_has_a_deadline():
    files = {str(path.relative_to(TESTS)): looks_at_the_time(path.read_text()) for path in TESTS.rglob("*.py")}
    found = {name: lines for name, lines in sorted(files.items()) if lines and name not in WAIT}
    assert found == {}, f"wait for an event, see tests/fixtures/processes.py: {found}"


def test_what_looks_at_the_time_is_found():
    source = "time.sleep(1)\nrun([], timeout=5)\nend = time.monotonic()\nrun([], timeout=LIMIT_S)\nclock.time()\n"
    assert looks_at_the_time(source) == [1, 2, 3]
