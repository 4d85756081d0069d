"""The picture of a run's curves."""

import pytest
from matplotlib.figure import Figure

from bnnlight.experiment import report


@pytest.mark.parametrize(("length", "marker"), [(1, "."), (40, "None")])
def test_every_curve_of_a_single_point_is_seen(tmp_path, monkeypatch, length, marker):
    drawn = []

    class Kept(Figure):
        def savefig(self, *args, **options):
            drawn.append(self)

    monkeypatch.setattr(report, "Figure", Kept)
    keys = ("train/loss", "val/loss", "val/acc1", "bnn/flip_rate_mean", "bnn/flip_rate/backbone.conv")
    report.draw_curves({key: (list(range(length)), [0.5] * length) for key in keys}, tmp_path / "c.png", "title")
    lines = [line for axes in drawn[0].axes for line in axes.lines]
    assert len(lines) == len(keys) and {line.get_marker() for line in lines} == {marker}
