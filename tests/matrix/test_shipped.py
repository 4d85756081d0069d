"""Every matrix in configs/: read as a plan, its methods built by the real parser."""

from pathlib import Path

import pytest

from bnnlight.experiment import matrix_check
from bnnlight.matrix.plan.plan import read_plan
from bnnlight.matrix.runs.run import check_folders, final_runs

PLANS = sorted((Path(__file__).parents[2] / "configs/matrix").glob("*.yaml"))


def test_there_are_plans():
    assert "quickstart.yaml" in {path.name for path in PLANS}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_its_methods_can_be_built(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "")  # set, so that what building writes to it is taken back
    plan = read_plan(path)
    check_folders(plan)
    value, more = plan.search.values[0] if plan.search else None, {"trainer.accelerator": "cpu", "trainer.devices": 1}
    for method in plan.methods.values():
        run = next(iter(final_runs(plan, method, value, tmp_path, more)))
        built = matrix_check._build(run, plan)
        assert built.config.seed_everything == method.seeds[0]
    assert f"bnnlight matrix configs/matrix/{path.name}" in path.read_text()
    assert list(tmp_path.iterdir()) == []
