"""The verb compare: its numbers, its page in a real browser, its errors."""

import json
import re
import shutil

import pytest
import yaml
from fixtures.processes import run_to_end

LAYERS = ("backbone.stages.0.conv", "backbone.stages.10.conv", "backbone.stages.2.conv")


def rows(scale):
    """Figures of every kind that the page draws, at steps 0, 10, 20."""
    for step in (0, 10, 20):
        row = {"step": step, "train/loss": 2.0 - scale * step / 20, "epoch": 0}
        for number, layer in enumerate(LAYERS):
            row |= {f"bnn/flip_rate/{layer}": 0.1 * scale / (1 + step), f"bnn/alpha_mean/{layer}": 0.1 + number}
            row |= {f"bnn/rank_effective/{layer}/mode0": 3.0, f"bnn/rank_nominal/{layer}/mode0": 4.0}
            row |= {f"bnn/dead/{layer}": 0.0, f"bnn/cut/{layer}": 0.25}
            row |= {f"bnn/update_rank/{layer}": 2.5, f"bnn/update_follows/{layer}": 0.75}
        yield row
    yield {"step": 20, "val/acc1": 0.5 * scale, "val/loss": 1 / scale, "time/processor": 90 * scale}
    yield {"step": 20, "test/acc1": 0.4 * scale}


@pytest.fixture
def three_runs(tmp_path):
    folders = []
    for number, (rank, scale) in enumerate([(0.25, 0.5), (1.0, 1.0), (0.5, 0.75)]):
        folder = tmp_path / "runs" / f"run{number}"
        folder.mkdir(parents=True)
        config = {"model": {"init_args": {"latent": {"init_args": {"rank": rank}}}}, "seed_everything": 0}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(scale)))
        folders.append(folder)
    return folders


def test_json_has_the_runs_own_figures(three_runs, bnnlight):
    code, out, err = bnnlight("compare", *three_runs, "--json")
    assert code == 0 and err == ""
    record = json.loads(out)
    (key,) = record["config_differences"]
    assert key == "model.init_args.latent.init_args.rank"
    for run, folder, rank, scale in zip(record["runs"], three_runs, (0.25, 1.0, 0.5), (0.5, 1.0, 0.75), strict=True):
        assert run["source"] == str(folder) and run["config"] == {key: rank} and run["starts"] == 1
        assert run["results"] == {
            "best val/acc1": 0.5 * scale,
            "best val/loss": 1 / scale,
            "test/acc1": 0.4 * scale,
            "last train/loss": 2 - scale,
            "last time/processor": 90 * scale,
        }
        for row in rows(scale):
            for name, value in row.items():
                if name not in ("step", "epoch"):
                    series = run["series"][name]
                    assert series["values"][series["steps"].index(row["step"])] == value


def test_figures_that_are_not_finite_are_null_as_json_has_no_others(three_runs, bnnlight):
    with (three_runs[0] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "train/loss": NaN}\n')
    code, out, _ = bnnlight("compare", *three_runs, "--json")
    record = json.loads(out, parse_constant=pytest.fail)
    assert code == 0 and record["runs"][0]["series"]["train/loss"]["values"][-1] is None


@pytest.fixture(scope="session")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if not found:
        pytest.skip("no Chromium or Chrome to open the page in")

    def open_page(path, *options):
        command = [found, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", *options]
        done = run_to_end([*command, path.as_uri()])
        assert done.returncode == 0, done.stderr
        return done.stdout

    return open_page


def test_the_page_draws_itself_in_a_browser_without_a_network(three_runs, bnnlight, browser, tmp_path):
    code, out, err = bnnlight("compare", *three_runs, "--output", tmp_path / "c.html")
    assert code == 0, err
    assert f"3 runs compared: {tmp_path / 'c.html'}" in out
    page = tmp_path / "c.html"
    # nothing is fetched from anywhere
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page.read_text())
    # sorts by the column "rank", then reports the order and what plotly has drawn
    asking = page.read_text().replace(
        "</body>",
        """<script>addEventListener("load", () => setTimeout(() => {
          [...document.querySelectorAll("th")].find(h => h.textContent === "rank").click();
          const names = [...document.querySelectorAll("tbody tr")].map(r => r.cells[0].dataset.sort);
          const titles = [...document.querySelectorAll("h2")].map(h => h.textContent);
          const [curves, maps] = [".scatterlayer .trace", ".heatmaplayer image"].map(
            name => document.querySelectorAll(name).length);
          document.title = JSON.stringify({names, titles, curves, maps});
        }, 2000))</script></body>""",
    )
    (tmp_path / "asking.html").write_text(asking)
    dom = browser(tmp_path / "asking.html", "--dump-dom")
    told = json.loads(re.search(r"<title>(\{.*?\})</title>", dom)[1])
    assert told["names"] == ["runs-run0", "runs-run2", "runs-run1"]
    of_layers = ["Ranks", "α", "Dead channels", "Cut gradients", "Rank of updates", "Updates and gradients"]
    assert told["titles"] == ["Learning curves", "Accuracy by processor time", "Flip rates", *of_layers]
    # of three runs three learning curves and one over time each, a map each, and two places in each figure of layers
    assert (told["curves"], told["maps"]) == (3 * 3 + 3 + len(of_layers) * 3 * 2, 3)
    assert "45 s" in dom and "90 s" in dom
    browser(page, f"--screenshot={tmp_path / 'c.png'}", "--window-size=1300,3600")
    assert (tmp_path / "c.png").stat().st_size > 50_000


def test_what_could_not_be_read_is_named_on_the_page_and_the_rest_is_shown(three_runs, bnnlight, tmp_path):
    code, _, err = bnnlight("compare", three_runs[0], tmp_path / "absent<b>", "--output", tmp_path / "c.html")
    assert code == 0
    assert err.count("\n") == 1 and "absent<b>: no such directory" in err
    text = (tmp_path / "c.html").read_text()
    assert "absent&lt;b&gt;: no such directory" in text and "absent<b>" not in text


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["absent"], "none of the runs could be read"),
        ([], "the following arguments are required: RUN"),
        (["RUN", "--output", "absent/c.html"], "is no file that can be written"),
        (["RUN", "--output", "."], "is no file that can be written"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(three_runs, bnnlight, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = bnnlight("compare", *(three_runs[0] if arg == "RUN" else arg for arg in args))
    assert code == 2 and message in err.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == before
