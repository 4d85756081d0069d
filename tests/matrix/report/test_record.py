"""Numbers, page and picture of a report, from runs that are written down here."""

import io
import json
import math
import shutil

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from bnnlight.matrix.plan.plan import read_plan
from bnnlight.matrix.report import figure
from bnnlight.matrix.report.curve import draw_curve
from bnnlight.matrix.report.figure import draw
from bnnlight.matrix.report.page import as_json, as_markdown
from bnnlight.matrix.report.record import as_record, write_report
from bnnlight.matrix.runs.evidence import evidence, mean_evidence
from bnnlight.matrix.runs.ledger import Ledger
from bnnlight.matrix.runs.run import final_runs, search_runs
from bnnlight.matrix.runs.standing import look

TEST = {
    "dense": {0: 0.50, 1: 0.52, 2: 0.57},
    "Tucker, rank ½": {0: 0.61, 1: 0.62, 2: 0.69},
    "low": {0: 0.49, 1: 0.54},
}
MACHINE = {"cpu_cores": 2, "cpu": "x86_64", "gpu": None, "threads": 1, "jobs": 2}
LOGGED = [
    {"step": 0, "bnn/rank_effective/a/mode0": 9.0, "bnn/rank_effective/b/mode0": 9.0},
    *({"step": 100 * i, "bnn/flip_rate_mean": rate} for i, rate in enumerate([0.3, 0.1, 0.06, 0.02, 0.01, 0.02], 1)),
    *({"step": 50 * i, "time/step": 0.3, "time/data": data} for i, data in enumerate([0.1, 0.15, 0.29], 1)),
    {"step": 600, "bnn/rank_effective/a/mode0": 7.0, "bnn/rank_effective/b/mode0": 4.0},
    {"step": 600, "bnn/rank_effective/a/mode1": 1.0, "bnn/cut/a": 0.2, "bnn/cut/b": 0.3},
]


SEED, MEAN, BASELINE = (
    tuple(int(text[i : i + 2], 16) for i in (1, 3, 5)) for text in (figure.SEED, figure.MEAN, figure.BASELINE)
)


def count(colour, part):
    """Pixels of a colour."""
    return int((np.abs(part - np.array(colour)).sum(-1) < 12).sum())


def write_run(run, **results):
    run.folder.mkdir(parents=True)
    run.keep({"asked": run.asked(), "seconds": 90.0, "machine": MACHINE, "trained": 12345})
    record = {"version": "1.2.3", "commit": f"{'0123456789' + 'f' * 30}+", "torch": "2.9.0", "results": results}
    (run.folder / "results.json").write_text(json.dumps(record))
    (run.folder / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in LOGGED) + '\n{"step": 9, "bn')


@pytest.fixture
def make_report(content, write, tmp_path):
    """The report of three methods, of which one has two of three seeds; 0.01 and 0.03 tie for dense."""
    return lambda tested: _report(tested, content, write, tmp_path)


@pytest.fixture
def report(make_report):
    return make_report(TEST)


def _report(tested, content, write, tmp_path):
    content["seeds"], content["baseline"] = [0, 1, 2], "dense"
    content["methods"]["low"] = {"rate_of": "dense", "options": {"model.backbone.latent.rank": 0.25}}
    content["methods"]["new"] = {}
    content["curve"] = {"name": "rank", "values": {"dense": 1, "low": 0.25, "new": 0.5}}
    content["note"] = "First paragraph.\n\nSecond one."
    plan = read_plan(write(content))
    for name, method in plan.methods.items():
        for run in search_runs(plan, method, tmp_path / "runs", {}):
            if name != "new":
                write_run(run, **{"best val/acc1": 0.4 if name == "dense" else 10 * run.value})
        value = {"dense": 0.01, "low": 0.01}.get(name, 0.03)
        for run in final_runs(plan, method, value, tmp_path / "runs", {}):
            if run.seed in tested.get(name, {}):
                write_run(run, **{"test/acc1": tested[name][run.seed]})
    standings = look(plan, tmp_path / "runs", {}, Ledger(tmp_path / "out.runs.jsonl"))
    return as_record(plan, standings, ["bnnlight", "matrix", "my plan.yaml"])


def test_numbers_are_scipys(report):
    rows = {row["method"]: row for row in report["methods"]}
    dense, tucker = (100 * np.array(list(TEST[name].values())) for name in ("dense", "Tucker, rank ½"))
    low, high = scipy.stats.ttest_1samp(tucker, 0).confidence_interval()
    expected = {"mean": (low + high) / 2, "half_interval": (high - low) / 2}
    assert rows["Tucker, rank ½"]["test"] == pytest.approx(expected)
    test = scipy.stats.ttest_rel(tucker, dense)
    found = rows["Tucker, rank ½"]["difference"]
    low, high = test.confidence_interval()
    assert (found["mean"], found["half_interval"]) == pytest.approx(((low + high) / 2, (high - low) / 2))
    assert found["excludes_zero"] is True and found["p"] == pytest.approx(test.pvalue)
    # of the two seeds that both have
    few = rows["low"]["difference"]
    assert few["by_seed"] == pytest.approx({0: -1, 1: 2}) and few["excludes_zero"] is False
    assert few["p"] == pytest.approx(scipy.stats.ttest_rel([49, 54], [50, 52]).pvalue)
    # Holm: two tests, the smaller p twice, the larger one once
    assert report["family"] == 2 and found["p_holm"] == pytest.approx(2 * found["p"])
    assert few["p_holm"] == pytest.approx(few["p"]) and few["p"] > found["p_holm"]
    assert rows["new"]["test"] is None and rows["new"]["difference"] is None


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_figure_that_is_not_finite_marks_its_row_and_the_rest_stands(report, make_report, tmp_path, wrong):
    shutil.rmtree(tmp_path / "runs")
    found = make_report(TEST | {"low": {0: wrong, 1: 0.54}})
    before, rows = ({row["method"]: row for row in each["methods"]} for each in (report, found))
    assert rows["dense"] == before["dense"] and found["family"] == 1
    same = before["Tucker, rank ½"]["difference"]
    assert rows["Tucker, rank ½"]["difference"] == same | {"p_holm": same["p"]}
    write_report(found, tmp_path / "report")
    page = (tmp_path / "report.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("| low"))
    assert "| not finite (2 of 3 seeds) | 0: not finite, 1: 54.00 | not finite |  |  |" in line
    assert "Not finite: low, seed 0: " in page and "nan" not in page
    kept = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)["methods"][2]
    assert kept["by_seed"] == {"0": None, "1": 54.0} and kept["test"]["mean"] is None


def test_a_baseline_that_is_not_finite_leaves_the_pairs_of_the_others(make_report, tmp_path):
    found = make_report(TEST | {"dense": {0: math.nan, 1: 0.52, 2: 0.57}})
    rows = {row["method"]: row for row in found["methods"]}
    assert rows["Tucker, rank ½"]["difference"]["by_seed"] == pytest.approx({1: 10, 2: 12})
    assert rows["Tucker, rank ½"]["test"]["mean"] == pytest.approx(64)
    write_report(found, tmp_path / "report")
    assert "Not finite: dense, seed 0: " in (tmp_path / "report.md").read_text()


def test_what_the_callbacks_saw_that_is_not_finite_is_left_out(tmp_path):
    lines = [*LOGGED, {"step": 700, "bnn/rank_effective/a/mode0": math.nan, "bnn/flip_rate_mean": math.inf}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evidence(tmp_path)
    assert (found["rank"], found["flips_last"]) == pytest.approx((5.5, 0.015))
    assert mean_evidence([{"rank": math.nan}, found]) == pytest.approx(found)


def test_page_says_what_is_there_and_what_is_not(report):
    page = as_markdown(report, picture="report")
    table = page[: page.index("![")]
    lines = {line.split(" | ")[0].strip("|* "): line for line in table.splitlines() if line.startswith("| ")}
    assert "| 0.01 (edge, tie) | 53.00 ± " in lines["dense"] and "0: 50.00, 1: 52.00, 2: 57.00" in lines["dense"]
    assert "| 0.03 (edge) | 64.00 ± " in lines["Tucker, rank ½"] and "| +11.00 ± " in lines["Tucker, rank ½"]
    assert "| yes | " in lines["Tucker, rank ½"] and "| no | " in lines["low"]
    assert "0.01 (edge, tie, of dense)" in lines["low"] and "(2 of 3 seeds)" in lines["low"]
    assert "search: 0 of 2 runs | 0 of 3 seeds" in lines["new"]
    assert "First paragraph.\n\nSecond one." in page and "12,345" in page and "2 min" in page
    assert "The family has 2 comparisons with dense" in page and "Tucker, rank ½ differs at 5 %" in page
    assert "Edge: dense; Tucker, rank ½; low" in page and "Tie: dense: 0.01, 0.03" in page
    assert "`bnnlight matrix 'my plan.yaml'`" in page and "commit 0123456789+ (+: with changed files)" in page
    assert "bnnlight 1.2.3" in page and "torch 2.9.0" in page and "2 CPU cores (x86_64), 2 runs at a time" in page
    # one search and three final runs that are not known yet, of new, and low's third seed
    assert "6 more are missing" in page


def test_methods_of_a_group_stand_below_its_heading(report):
    groups = {"Tucker, rank ½": "ranks", "low": "ranks"}
    rows = [row | {"group": groups.get(row["method"], "")} for row in report["methods"]]
    page = as_markdown(report | {"methods": rows}, picture="report")
    names = [line.split(" | ")[0].strip("|* ") for line in page.splitlines() if line.startswith("| ")]
    assert names[2:7] == ["dense", "ranks", "Tucker, rank ½", "low", "new"]
    cells = {line.count(" | ") for line in page[: page.index("![")].splitlines() if line.startswith("| ")}
    assert len(cells) == 1


def test_what_the_callbacks_saw_stands_below_the_table(report):
    rows = {row["method"]: row["evidence"] for row in report["methods"]}
    # (0.3 + 0.1) / 2, (0.01 + 0.02) / 2, (7 + 4) / 2, (0.2 + 0.3) / 2, the middle one of 0.2, 0.15, 0.01
    expected = {"flips_first": 0.2, "flips_last": 0.015, "rank": 5.5, "cut": 0.25, "step_s": 0.15}
    assert rows["dense"] == pytest.approx(expected) and rows["new"] == {}
    page = as_markdown(report, picture="report")
    assert "| dense | 20.0 % | 1.5 % | 5.5 | 25 % | 150 ms |" in page
    assert "![rank](report_curve.png)" in page


def test_names_with_commas_in_them_are_told_apart(report):
    for row in report["methods"]:
        if row["difference"]:
            row["difference"]["p_holm"] = 0.01
    assert "corrected for all of them: Tucker, rank ½; low differ at 5 %." in as_markdown(report, picture="report")


def test_curve_has_seeds_means_and_two_costs(report):
    picture = np.asarray(Image.open(io.BytesIO(draw_curve(report))).convert("RGB")).astype(int)
    middle = picture.shape[1] // 2

    assert count(SEED, picture[:, :middle]) > 50 and count(SEED, picture[:, middle:]) == 0
    assert all(count(colour, part) > 50 for colour in (MEAN, BASELINE) for part in np.split(picture, [middle], axis=1))
    # nothing is done yet
    none = [row | {"test": None, "evidence": {}, "trained_parameters": None} for row in report["methods"]]
    assert Image.open(io.BytesIO(draw_curve(report | {"methods": none}))).size == picture.shape[1::-1]


def test_json_has_all_of_it(report):
    assert json.loads(as_json(report)) == json.loads(json.dumps(report))


def test_picture_has_dots_means_and_differences_in_two_panels(report):
    picture = np.asarray(Image.open(io.BytesIO(draw(report))).convert("RGB")).astype(int)
    middle = picture.shape[1] // 2

    for part in (picture[:, :middle], picture[:, middle:]):
        for colour in (SEED, MEAN, BASELINE):
            assert count(colour, part) > 50
    # a method less, a row less
    high = [row for row in report["methods"] if row["method"] != "low"]
    assert Image.open(io.BytesIO(draw(report | {"methods": high}))).height < picture.shape[0]
    # a heading takes a place of its own
    grouped = report | {"methods": [row | {"group": "ranks"} for row in report["methods"]]}
    assert Image.open(io.BytesIO(draw(grouped))).height > picture.shape[0]
    fewer = report | {"methods": [row | {"test": None, "difference": None} for row in report["methods"]]}
    bare = np.asarray(Image.open(io.BytesIO(draw(fewer))).convert("RGB")).astype(int)
    assert count(MEAN, bare) < count(MEAN, picture) / 2


def test_files_have_the_whole_name(report, tmp_path):
    write_report(report, tmp_path / "v1.2")
    assert {path.name for path in tmp_path.glob("v1.2*")} == {"v1.2.json", "v1.2.md", "v1.2.png", "v1.2_curve.png"}
    write_report(report | {"curve": None}, tmp_path / "plain")
    assert {path.name for path in tmp_path.glob("plain*")} == {"plain.json", "plain.md", "plain.png"}
