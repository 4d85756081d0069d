"""`benchmarks/shipping/pareto.py`: which networks none beats, and what the page says of them."""

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks/shipping"


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("pareto_page", FOLDER / "pareto_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def a_row(kind, accuracy, ms, num_bytes, binary, real):
    macs = {"binary": binary, "int8": 0, "float32": real}
    times = {"median_ms": ms, "tenth_ms": ms, "ninetieth_ms": ms}
    return {"network": kind, "kind": kind, "accuracy": accuracy, "num_bytes": num_bytes, "macs": macs, **times}


ROWS = {
    "slow and good": a_row("real", [90.0, 92.0], 9.0, 40_000_000, 0, 1_800_000_000),
    "quick": a_row("real", [80.0], 2.0, 6_000_000, 0, 60_000_000),
    "small": a_row("binary", [85.0], 3.0, 4_000_000, 1_700_000_000, 150_000_000),
    "beaten": a_row("real", [84.0], 3.5, 9_000_000, 0, 300_000_000),
    "as good, dearer": a_row("real", [85.0], 3.0, 5_000_000, 0, 160_000_000),
}


@pytest.mark.parametrize(
    ("cost", "names"),
    [
        ("median_ms", ["quick", "small", "slow and good"]),
        ("num_bytes", ["small", "slow and good"]),
        ("real_macs", ["quick", "small", "slow and good"]),
    ],
)
def test_front_holds_those_that_none_beats(page, cost, names):
    assert page.front(ROWS, cost) == names


def test_page_has_each_network_with_its_costs_and_bold_where_none_beats_it(page):
    task = {"title": "Digits", "metric_name": "test accuracy", "size": 224, "rows": ROWS}
    record = {
        "command": "pareto.py --runs A",
        "commit": "abc",
        "machine": "two cores",
        "versions": {"torch": "2", "openvino": "3"},
        "int8": "NNCF",
        "num_runs": 40,
        "tasks": [task],
    }
    text = page.report(json.loads(json.dumps(record)), "pareto")
    assert "| slow and good | 91.00 ± 1.41 | **9.00** | 9.00 to 9.00 | **40.00** |  |  | 1,800 M |" in text
    assert "| small | 85.00 | **3.00** | 3.00 to 3.00 | **4.00** | 1,700 M |  | 150 M |" in text
    assert "| beaten | 84.00 | 3.50 | 3.50 to 3.50 | 9.00 |  |  | 300 M |" in text
    assert "Unbeaten by MB, from the cheapest on: small (85.0 %, 4 MB), slow and good (91.0 %, 40 MB)." in text
    assert page.draw(record).startswith(b"\x89PNG")


def test_a_binary_network_stands_beside_its_twin_and_what_is_as_quick(page):
    rows = {
        "binary net, int8": a_row("binary, int8", [80.0, 82.0], 3.0, 2_000_000, 1, 1),
        "net, int8": a_row("real, int8", [84.0], 6.0, 8_000_000, 0, 1) | {"network": "net"},
        "other": a_row("real", [70.0], 2.0, 1_000_000, 0, 1),
        "worse": a_row("real", [60.0], 1.0, 1_000_000, 0, 1),
    }
    task = {"title": "Digits", "rows": rows}
    (text,) = page.verdict(task)
    assert text == (
        "Digits: binary net, int8 has 0.50 of the time and 0.25 of the bytes of net, int8, and 3.0 points less "
        "accuracy; the best real network that is as quick, other, has 70.0 % for 81.0 %."
    )
    del rows["other"], rows["worse"]
    assert page.verdict(task)[0].endswith("; no real network here is as quick.")
