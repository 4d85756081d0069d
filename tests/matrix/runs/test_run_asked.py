"""What makes another run of one, where options are younger than a ledger."""

import pytest
import yaml

from bnnlight.matrix.runs.run import Run

LATENT = "model.backbone.latent"


@pytest.fixture
def run(tmp_path):
    """A run whose latent has these options."""

    def make(**options):
        config = tmp_path / "config.yaml"
        latent = {"class_path": "bnnlight.nn.Tucker", "init_args": {"rank": 1.0, **options}}
        content = {"model": {"init_args": {"backbone": {"init_args": {"latent": latent}}}}}
        config.write_text(yaml.safe_dump(content))
        return Run("Tucker", None, 0, False, tmp_path / "run", (config,), {})

    return make


def test_a_run_that_was_made_before_an_option_had_its_default(run):
    old, new = run().asked(), run(products="float32")
    assert f"{LATENT}.products" not in old and new.asked()[f"{LATENT}.products"] == "float32"
    new.check(old, "the run", "remove it")
    run().check(new.asked(), "the run", "remove it")
    with pytest.raises(ValueError, match=r'products: "float32" -> "bfloat16"'):
        run(products="bfloat16").check(old, "the run", "remove it")
