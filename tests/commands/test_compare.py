"""The verb compare: its numbers, its page in a real browser, its errors."""

import json
import re
import shutil

import pytest
import yaml
from fixtures.processes import run_to_end

from bnnlight.tracking.page import as_page
from bnnlight.tracking.runs import Run

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


# sorts by the column "rank", takes the first run away, unfolds the columns, and says what is there at each moment
ASKING = """<script>addEventListener("load", () => setTimeout(async () => {
  const all = (what, of = document) => [...of.querySelectorAll(what)];
  const seen = what => all(what).filter(element => element.getClientRects().length);
  const names = () => seen("tbody .run").map(name => name.textContent);
  const columns = () => seen("thead th").map(head => head.textContent);
  const curves = () => [".scatterlayer .trace", ".heatmaplayer image"].map(what => seen(what).length);
  const told = {titles: all("h2").map(h => h.textContent), columns: columns(), curves: curves(), inner: innerWidth,
    width: document.documentElement.clientWidth, whole: document.documentElement.scrollWidth,
    narrow: seen(".run").map(run => run.getBoundingClientRect()).filter(box => box.height > 3 * box.width).length,
    outside: seen(".plot, button, .legend").filter(
      element => element.getBoundingClientRect().right > document.documentElement.clientWidth).length};
  all("thead th").find(head => head.textContent === "rank").click();
  told.names = names();
  const box = all("tbody input").find(input => input.dataset.run === "0");
  box.click();
  await new Promise(done => setTimeout(done, 500));
  told.left = curves();
  document.getElementById("more")?.click();
  told.unfolded = columns();
  const text = JSON.stringify(told);
  document.title = text;
  parent.postMessage(text, "*");
}, 2000))</script></body>"""


def ask(browser, page, width):
    """What is on a page whose window is so wide: Chromium has none below 500 px, so that the page is in a frame."""
    asking = page.with_name("asking.html")
    asking.write_text(page.read_text().replace("</body>", ASKING))
    frame = page.with_name("frame.html")
    frame.write_text(
        f"""<script>addEventListener("message", event => document.title = event.data)</script>
        <iframe src="asking.html" style="width: {width}px; height: 3000px; border: 0"></iframe>"""
    )
    dom = browser(frame, "--dump-dom", "--window-size=1600,3100")
    return json.loads(re.search(r"<title>(\{.*?\})</title>", dom)[1])


@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_draws_itself_in_a_browser_without_a_network(three_runs, bnnlight, browser, tmp_path, width):
    code, out, err = bnnlight("compare", *three_runs, "--output", tmp_path / "c.html")
    assert code == 0, err
    assert f"3 runs compared: {tmp_path / 'c.html'}" in out
    page = tmp_path / "c.html"
    # nothing is fetched from anywhere
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page.read_text())
    told = ask(browser, page, width)
    assert told["inner"] == width
    # what is too wide scrolls by itself, not the page; names stand in lines
    assert (told["whole"], told["outside"], told["narrow"]) == (told["width"], 0, 0)
    results = ["test/acc1", "best val/acc1", "processor time", "best val/loss", "last train/loss"]
    assert told["columns"] == ["run", *results, "rank"]
    assert told["names"] == ["runs-run0", "runs-run2", "runs-run1"]
    of_layers = ["Ranks", "α", "Dead channels", "Cut gradients", "Rank of updates", "Updates and gradients"]
    assert told["titles"] == ["Learning curves", "Accuracy by processor time", "Flip rates", *of_layers]
    # of each run three learning curves and one over time, a map, and two places in each figure of layers
    each = 3 + 1 + len(of_layers) * 2
    assert told["curves"] == [3 * each, 3] and told["left"] == [2 * each, 2]
    text = page.read_text()
    assert ">45 s<" in text and ">90 s<" in text


def unlike_runs(folder):
    """A run of another task with many options of its own, one without a logger and one that was stopped at once."""
    options = {f"option{number}": number for number in range(12)}
    parts = [{"class_path": "bnnlight.nn.Standardized", "init_args": {"deviation": 1.0}}]
    backbone = {"class_path": "bnnlight.backbones.StackedHourglass", "init_args": {"weight_parts": parts}}
    pose = {"class_path": "bnnlight.tasks.PoseTask", "init_args": {"backbone": backbone, **options}}
    runs = [folder / "pose" / name for name in ("trained", "silent", "stopped")]
    for run in runs:
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(yaml.safe_dump({"model": pose, "seed_everything": 1}))
    lines = [{"step": 5, "val/pckh": 0.25, "val/loss": 0.01, "val/nme": 0.5}, {"step": 5, "test/pckh": 0.125}]
    (runs[0] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (runs[1] / "results.json").write_text('{"results": {"test/pckh": 0.75, "test/loss": 0.5}}')
    return runs


def test_of_unlike_runs_results_come_first_and_much_that_differs_is_folded(three_runs, bnnlight, browser, tmp_path):
    trained, silent, stopped = unlike_runs(tmp_path)
    code, out, err = bnnlight("compare", three_runs[0], trained, silent, stopped, "--output", tmp_path / "c.html")
    assert code == 0 and "3 runs compared" in out
    # the terminal has the main results, those without figures are named and not counted
    assert [line.split()[1] for line in out.splitlines() if "%" in line] == ["runs-run0", "pose-trained", "pose-silent"]
    assert err.splitlines() == [
        f"bnnlight compare: {silent}: only results, no curves: it was trained without a logger",
        f"bnnlight compare: {stopped}: left out: it logged no figures, as happens if a run is stopped at once",
    ]
    told = ask(browser, tmp_path / "c.html", 420)
    assert told["whole"] == told["width"]
    assert told["columns"][:5] == ["run", "test/acc1", "test/pckh", "best val/acc1", "best val/pckh"]
    hidden = set(told["unfolded"]) - set(told["columns"])
    assert {"option11", "best val/loss", "last train/loss"} <= hidden
    # no column is called by a number
    assert {"weight_parts", "deviation", "model", "backbone"} <= set(told["unfolded"])
    assert not any(name.isdigit() for name in told["unfolded"])
    code, out, _ = bnnlight("compare", three_runs[0], stopped, "--json")
    record = json.loads(out)
    assert len(record["runs"]) == 1 and record["without_figures"] == [{"name": "pose-stopped", "source": str(stopped)}]


def test_thirty_long_runs_are_a_page_of_less_than_10_megabytes():
    steps = range(0, 20_000, 40)
    layers = [f"backbone.stages.{number}.conv" for number in range(20)]
    prefixes = ("bnn/flip_rate", "bnn/alpha_mean", "bnn/dead", "bnn/cut", "bnn/update_rank", "bnn/update_follows")
    curve = {step: 1 / (step + 3) for step in steps}
    series = {f"{prefix}/{layer}": curve for prefix in prefixes for layer in layers}
    series |= dict.fromkeys(("train/loss", "val/loss", "val/acc1", "train/acc", "time/processor"), curve)
    runs = [Run(f"run{number}", "", config={"rank": number}, series=series).finish() for number in range(30)]
    page = as_page(runs, [])
    assert 4e6 < len(page.encode()) < 10e6
    # so many maps of single runs are opened one by one
    assert page.count("<details") == 30 and "<details open" not in page and " open><summary>" not in page


def test_names_and_settings_cannot_break_the_page():
    wild = "</script><b>&'\""
    run = Run(wild, wild, config={"model": wild}, series={"val/acc1": {1: 0.5}}).finish()
    page = as_page([run, Run("y", "", series={"val/acc1": {1: float("nan")}}).finish()], [wild])
    plain = as_page([Run("x", "", config={"model": "x"}, series={"val/acc1": {1: 0.5}}).finish()], ["x"])
    assert "<b>" not in page and page.count("</script>") == plain.count("</script>")
    assert "NaN" not in page.split("Learning curves")[1].split("<script>")[0]


def test_what_could_not_be_read_is_named_on_the_page_and_the_rest_is_shown(three_runs, bnnlight, tmp_path):
    code, _, err = bnnlight("compare", three_runs[0], tmp_path / "absent<b>", "--output", tmp_path / "c.html")
    # a script hears that a run is missing
    told = err.splitlines()
    assert code == 1 and len(told) == 2
    assert "absent<b>: no such directory" in told[0] and "1 run could not be read" in told[1]
    text = (tmp_path / "c.html").read_text()
    assert "absent&lt;b&gt;: no such directory" in text and "absent<b>" not in text


def test_a_run_that_is_named_again_is_taken_once(three_runs, bnnlight, tmp_path):
    again = f"{three_runs[0]}/../{three_runs[0].name}/"
    code, out, err = bnnlight("compare", three_runs[0], again, "--output", tmp_path / "c.html")
    assert code == 0 and "1 run compared" in out and f"{again} is the same run as {three_runs[0]}" in err


def test_of_a_folder_all_runs_in_it_are_taken(three_runs, bnnlight, tmp_path):
    # one has another tracker's files besides, by which it alone was found
    (three_runs[0] / "tensorboard").mkdir()
    (three_runs[0] / "tensorboard" / "events.out.tfevents.1").touch()
    # one has no logger, and a config by itself is no run
    silent = unlike_runs(tmp_path / "runs" / "deep")[1]
    code, out, err = bnnlight("compare", tmp_path / "runs", three_runs[1], "--json")
    assert code == 0, err
    sources = [run["source"] for run in json.loads(out)["runs"]]
    assert sources == sorted(map(str, [*three_runs, silent, silent.with_name("trained")]))
    assert f"{three_runs[1]} is the same run as {three_runs[1]}" in err


def test_of_a_folder_the_run_with_broken_results_is_named_as_left_out(three_runs, bnnlight, tmp_path):
    silent = unlike_runs(tmp_path / "runs")[1]
    (silent / "results.json").write_text('{"results": ')
    code, out, err = bnnlight("compare", tmp_path / "runs", "--output", tmp_path / "c.html")
    line = f"{silent}: left out: its results.json is not the results of a run"
    assert code == 1 and "4 runs compared" in out
    assert err.splitlines()[0] == f"bnnlight compare: {line}" and "1 run could not be read" in err.splitlines()[-1]
    assert line in (tmp_path / "c.html").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["absent"], "none of the runs could be read"),
        (["EMPTY"], "none of the runs has figures"),
        ([], "the following arguments are required: RUN"),
        (["RUN", "--output", "absent/c.html"], "is not a file that can be written"),
        (["RUN", "--output", "."], "is not a file that can be written"),
        (["RUN", "--output", "c.png"], "--output c.png is not a page: give a name that ends in .html"),
        (["RUN", "--output", "c/"], "--output c/ is not a page: give a name that ends in .html"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(three_runs, bnnlight, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    empty = unlike_runs(tmp_path)[2]
    before = sorted(tmp_path.rglob("*"))
    code, _, err = bnnlight("compare", *({"RUN": three_runs[0], "EMPTY": empty}.get(arg, arg) for arg in args))
    assert code == 2 and message in err.splitlines()[-1]
    assert sorted(tmp_path.rglob("*")) == before
