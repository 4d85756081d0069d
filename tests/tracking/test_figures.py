"""What the figures hold, by hand."""

import math

import pytest

from bnnlight.tracking import figures, layer_figures, panels
from bnnlight.tracking.runs import Run

LAYERS = ("backbone.b.10.conv", "backbone.b.2.conv", "backbone.a.conv")
IN_ORDER = ["a.conv", "b.2.conv", "b.10.conv"]


def runs(**series):
    return [Run(f"run{n}", "", series={key: values[n] for key, values in series.items()}) for n in range(2)]


def test_flip_rates_are_layers_by_steps_in_powers_of_ten():
    series = {f"bnn/flip_rate/{layer}": ({10: 0.1, 20: 0.0}, {10: 0.01}) for layer in LAYERS}
    of_first, of_second = figures.heat_maps(runs(**series), ["x", "y"], "bnn/flip_rate/")
    assert (of_first.title, of_first.run, of_second.title, of_second.run) == ("x", 0, "y", 1)
    (first,), (second,) = of_first.figure.data, of_second.figure.data
    assert list(first.y) == list(second.y) == IN_ORDER
    assert (list(first.x), list(second.x)) == ([10, 20], [10])
    # none at all has the colour of the smallest, and its true value beside the mouse
    assert first.z[0] == pytest.approx((-1, math.log10(layer_figures._SMALLEST_RATE)))
    assert list(first.text[0]) == ["0.1", "0"]
    assert second.z[2] == pytest.approx((-2,))


def test_ranks_are_shares_of_the_nominal_ones_by_mode():
    series = {}
    for number, layer in enumerate(LAYERS, 1):
        for mode in ("mode0", "mode1", "factor0"):
            series[f"bnn/rank_nominal/{layer}/{mode}"] = ({0: 8.0, 10: 8.0}, {0: 8.0})
            size = number * (1.0 if mode == "mode0" else 2.0)
            series[f"bnn/rank_effective/{layer}/{mode}"] = ({0: 8.0, 10: size}, {0: size})
    drawn = figures.over_time_and_layers(runs(**series), ["x", "y"], "bnn/rank_effective/", "bnn/rank_nominal/")
    curves = {(trace.name, trace.mode): trace for panel in drawn for trace in panel.figure.data}
    assert {name for name, _ in curves} == {"x, mode0", "x, mode1", "y, mode0", "y, mode1"}
    over_time = curves["x, mode0", "lines+markers"]
    assert (list(over_time.x), list(over_time.y)) == ([0, 10], [1.0, pytest.approx((1 + 2 + 3) / 3 / 8)])
    by_layer = curves["y, mode1", "markers"]
    assert (list(by_layer.x), list(by_layer.y)) == (IN_ORDER, [6 / 8, 4 / 8, 2 / 8])


def test_learning_curves_have_accuracies_in_percent():
    series = {"val/acc1": ({5: 0.5}, {5: 0.25}), "train/loss": ({1: 2.0, 2: 1.0}, {1: 3.0})}
    drawn = figures.learning_curves(runs(**series), ["x", "y"])
    traces = [trace for panel in drawn for trace in panel.figure.data]
    assert [(t.name, list(t.x), list(t.y)) for t in traces] == [
        *[("x", [1, 2], [2.0, 1.0]), ("y", [1], [3.0])],
        *[("x", [5], [50.0]), ("y", [5], [25.0])],
    ]
    assert traces[0].line.color == traces[2].line.color != traces[1].line.color


def test_accuracies_stand_at_the_processor_seconds_of_their_validations():
    series = {
        "val/acc1": ({5: 0.5, 10: 0.75}, {5: 0.25, 10: 0.5}), "val/loss": ({5: 2.0}, {5: 3.0}),
        "time/processor": ({5: 60.0, 10: 130.0, 12: 150.0}, {10: 40.0}), "train/acc": ({5: 1.0}, {5: 1.0}),
    }  # fmt: skip
    (panel,) = figures.time_curves(runs(**series), ["x", "y"])
    first, second = panel.figure.data
    assert (first.name, list(first.x), list(first.y)) == ("x", [60, 130], [50, 75])
    assert (second.name, list(second.x), list(second.y)) == ("y", [40], [50])


def test_what_steps_did_and_how_long_it_took_is_shown_where_runs_have_it():
    series = {f"bnn/update_{kind}/{layer}": ({7: 0.5}, {}) for kind in ("rank", "follows") for layer in LAYERS}
    series |= {"val/acc1": ({7: 0.5}, {7: 0.5}), "time/processor": ({7: 9.0}, {})}
    found = {section.title: section.panels for section in figures.all_sections(runs(**series), ["x", "y"])}
    assert list(found) == ["Learning curves", "Accuracy by processor time", "Rank of updates", "Updates and gradients"]
    by_layer = found["Updates and gradients"][1].figure.data[0]
    assert (by_layer.name, list(by_layer.x), list(by_layer.y)) == ("x", IN_ORDER, [0.5] * 3)


def test_runs_without_figures_have_no_figures():
    assert list(figures.all_sections([Run("x", "")], ["x"])) == []


def test_losses_of_different_tasks_and_layers_of_different_networks_have_pictures_of_their_own():
    series = {"val/loss": ({5: 2.0}, {5: 0.01}), "val/acc1": ({5: 0.5}, {})}
    both = runs(**series)
    for run, task, layer in zip(both, ("Classes", "Pose"), ("a.conv", "b.conv"), strict=True):
        run.config = {"model.class_path": f"x.{task}"}
        run.series[f"bnn/dead/{layer}"] = {5: 0.25}
    drawn = [(panel.title, [t.name for t in panel.figure.data]) for panel in figures.learning_curves(both, ["x", "y"])]
    assert drawn[:2] == [("loss, validation: Classes", ["x"]), ("loss, validation: Pose", ["y"])]
    over_time, first, second = figures.over_time_and_layers(both, ["x", "y"], "bnn/dead/")
    assert len(over_time.figure.data) == 2
    assert [list(panel.figure.data[0].x) for panel in (first, second)] == [["a.conv"], ["b.conv"]]


def test_of_a_long_curve_means_are_drawn():
    assert panels.thinned([(1, 2.0), (2, 4.0), (3, None), (4, 8.0), (5, 1.0)], 3) == ([2, 4, 5], [3.0, 8.0, 1.0])
    assert panels.thinned([(1, 2.0), (2, 4.0)], 2) == ([1, 2], [2.0, 4.0])
    assert [panels.rounded(x) for x in (1.234567, float("nan"), None)] == [1.2346, None, None]


def test_a_single_point_has_a_mark():
    for length, mode in ((1, "lines+markers"), (400, "lines")):
        (panel,) = figures.learning_curves(
            [Run("x", "", series={"val/acc1": dict.fromkeys(range(length), 0.5)})], ["x"]
        )
        assert panel.figure.data[0].mode == mode
