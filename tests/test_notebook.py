"""The notebook of examples/: as it is stored, and run from top to bottom."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "digits_by_hand.ipynb"


def printed(cells):
    """What its cells print, in one text."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def check(cells):
    """Its results, whoever ran it."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    assert sum("image/png" in output.get("data", ()) for output in outputs) == 4
    text = printed(cells)
    assert float(re.search(r"test accuracy: ([\d.]+) %", text)[1]) > 95
    assert "36,864 weights of one bit" in text
    same, total = map(int, re.search(r"(\d+) of (\d+) test pictures get the same answer", text).groups())
    assert same >= total - 1 and total == 360


def test_it_is_stored_as_it_ran():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    check(cells)
    assert NOTEBOOK.stat().st_size < 200_000


def test_its_links_lead_somewhere():
    text = "".join(line for cell in json.loads(NOTEBOOK.read_text())["cells"] for line in cell["source"])
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) >= 3
    assert [link for link in links if not (NOTEBOOK.parent / link).exists()] == []


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed: pip install -e '.[dev]' brings it")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install -e '.[dev]' brings it")
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    client = nbclient.NotebookClient(notebook, kernel_name="python3")
    client.resources = {"metadata": {"path": str(tmp_path)}}
    client.execute()
    check(notebook.cells)
