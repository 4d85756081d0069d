"""`fit --compile`, as a whole run."""

import json

import pytest
import yaml


@pytest.mark.slow
def test_a_compiled_run_ends_as_one_that_is_not(bnnlight, configs, quick, tmp_path):
    """Behind ``--compile`` may stand nothing, and options of it beside; the options are in the run's config."""
    short = ("--trainer.max_epochs=1", "--model.backbone.width=0.125", "--trainer.precision=64-true")
    results = {}
    for name, compile in {"plain": (), "compiled": ("--compile", "--compile.backend=aot_eager")}.items():
        options = (*quick, *short, *compile, f"--run_dir={tmp_path / name}")
        bnnlight("fit", "--config", str(configs / "quickstart.yaml"), *options)
        results[name] = json.loads((tmp_path / name / "results.json").read_text())["results"]
    assert results["compiled"] == pytest.approx(results["plain"], rel=1e-6)
    config = yaml.safe_load((tmp_path / "compiled" / "config.yaml").read_text())
    assert config["compile"]["backend"] == "aot_eager"
    assert config["compile"]["network"] is True
