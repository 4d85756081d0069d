"""Errors that the command line's own tests cannot provoke cheaply."""

import pytest

from bnnlight.console.errors import explain


def test_error_from_a_loader_process_is_its_last_line():
    text = (
        "Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\n    g()\n'
        "OSError: cannot read image a.jpg: truncated; replace or remove the file\n"
    )
    assert explain(OSError(text)) == (1, "cannot read image a.jpg: truncated; replace or remove the file")


@pytest.mark.parametrize(
    "error, code",
    [(ValueError("rank 9 is out of range"), 2), (FileNotFoundError("no images in x"), 2), (OSError("disk full"), 1)],
)
def test_our_own_messages_are_printed_as_they_are(error, code):
    assert explain(error) == (code, str(error))


def test_unforeseen_errors_name_their_type_and_the_way_to_more():
    code, line = explain(RuntimeError("shape mismatch\nand\nmuch\nmore"))
    assert code == 1
    assert line.startswith("RuntimeError: shape mismatch")
    assert "--debug" in line
    assert "\n" not in line


def test_an_empty_message_still_names_the_type():
    assert explain(ValueError())[1].startswith("ValueError")
