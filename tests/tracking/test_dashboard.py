"""The view against what a real run logs."""

import json
import re

import yaml

from bnnlight.tracking.dashboard import as_record, sections, workspace
from bnnlight.tracking.fragments import STEP_KEY


def panels():
    """Every panel as plain data, with the name of its section."""
    return [(part.name, as_record(panel)) for part in sections() for panel in part.panels]


def keys():
    return {key for _, p in panels() for key in p.get("y", []) + p.get("metrics", [])}


def patterns(section):
    return [re.compile(p["metric_regex"]) for name, p in panels() if name == section and "metric_regex" in p]


def test_what_a_run_logs_is_shown(digits_run):
    run_dir, _ = digits_run
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    logged = {key for line in lines for key in json.loads(line)} - {"epoch", "step"}
    shown = [re.compile(p["metric_regex"]) for _, p in panels() if "metric_regex" in p]
    missing = {key for key in logged if key not in keys() and not any(p.match(key) for p in shown)}
    # tested once, at the end: columns and bars of the accuracy are enough
    assert missing <= {"test/loss", "test/acc5"}
    assert {"train/loss", "val/acc1", "test/acc1", "bnn/flip_rate_mean"} <= logged & keys()


def test_the_config_that_is_compared_is_in_a_run(digits_run):
    run_dir, _ = digits_run
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    columns = workspace("bnn").runset_settings.pinned_columns
    axes = [c["metric"] for _, p in panels() if p["type"] == "ParallelCoordinatesPlot" for c in p["columns"]]
    paths = [column.removeprefix("config:").replace(".value", "", 1) for column in columns if column[0] == "c"]
    paths += [axis["name"] for axis in axes if axis["type"] == "Config"]
    found = {}
    for path in paths:
        found[path] = config
        for part in path.split("."):
            found[path] = found[path][part]
    assert len(found) == 4
    assert {type(value) for value in found.values()} == {int, str, float}


def test_each_pattern_takes_its_own_layers_alone():
    layer = "backbone.stages.0.0.unit1.conv"
    for section, names in {
        "Flip rates": [f"flip_rate/{layer}"],
        "Ranks": [
            *(f"rank_effective/{layer}/{mode}" for mode in ("mode0", "mode1", "mode3", "factor_layers")),
            *(f"rank_{kind}/{layer}/{m}" for kind in ("stable", "energy", "nominal") for m in ("mode1", "factor0")),
        ],
        "α": [f"alpha_{kind}/{layer}" for kind in ("mean", "std", "min", "max", "negative")],
        "Activations": [f"{kind}/{layer}" for kind in ("positive", "dead", "cut")],
        "Updates": [f"update_{kind}/{layer}" for kind in ("rank", "follows")],
    }.items():
        # every key by one panel, and every panel for one key
        hits = [[n for n, p in enumerate(patterns(section)) if p.match(f"bnn/{name}")] for name in names]
        assert sorted(hits) == [[n] for n in range(len(names))], section
        assert len(patterns(section)) == len(names)
    everything = [p for part in sections() for p in patterns(part.name)]
    assert not any(
        p.match(key) for p in everything for key in ("bnn/flip_rate_mean", f"bnn/alpha/{layer}", "train/loss")
    )


def test_lines_are_drawn_over_optimizer_steps():
    lines = [panel for _, panel in panels() if panel["type"] == "LinePlot"]
    assert len(lines) > 20
    assert {panel["x"] for panel in lines} == {STEP_KEY}
    assert all(panel["log_y"] for section, panel in panels() if section == "Flip rates")


def test_speed_pictures_and_comparison():
    assert {"time/step", "time/data", "time/processor", "mem/peak"} <= keys()
    assert {"bnn/update_rank_mean", "bnn/update_follows_mean"} <= keys()
    # those of earlier versions too
    assert {"bnn/update_rank", "bnn/update_follows", "bnn/flip_rate", "stage"} <= keys()
    kinds, factors = patterns("Speed")
    for key in ("lr-AdamW", "lr-Bop/latent", "lr-AdamW/weight-added1", "lr-AdamW/weight/added1"):
        assert kinds.match(key) and not factors.match(key)
    for key in (
        "lr-AdamW/factors/backbone.stages.0.0.unit1.conv/core",
        "lr-AdamW/factors/backbone.conv/factors.0-added1",
        "lr-AdamW/latent/backbone.stages.0.0.unit1.conv/core",
        "lr-AdamW/latent/backbone.conv/factors.0/added1",
    ):
        assert factors.match(key) and not kinds.match(key)
    by_type = {}
    for _, panel in panels():
        by_type.setdefault(panel["type"], []).append(panel)
    assert ["val/pictures"] in [panel["media_keys"] for panel in by_type["MediaBrowser"]]
    assert [p["with_respect_to"] for p in by_type["ParameterImportancePlot"]] == ["val/acc1", "val/pckh"]
    assert len(by_type["RunComparer"]) == 1


def test_record_is_the_same_every_time_and_fits_json():
    first, again = (json.dumps(as_record(workspace("bnn", "ann", "nightly"))) for _ in range(2))
    assert first == again
    record = json.loads(first)
    assert (record["entity"], record["project"], record["name"]) == ("ann", "bnn", "nightly")
    assert [section["is_open"] for section in record["sections"]] == [True] * 3 + [False] * 7
