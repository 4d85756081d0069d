"""The files of examples/, run as they stand there: data, network, latent and logger of one's own."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bnnlight.nn import named_binary_layers
from bnnlight.tracking.trackers import finish, hand_config, hand_figures, hand_picture

FOLDER = Path(__file__).parents[1] / "examples"
MODULES = ("own_backbone", "own_data", "own_latent", "trackio_run")


@pytest.fixture
def forgotten():
    """Modules of the examples are imported anew by the next test."""
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def examples(monkeypatch, forgotten):
    """Has Python look for modules there."""
    monkeypatch.syspath_prepend(FOLDER)


def test_own_classes_are_trained_shipped_and_predicted_with(bnnlight, quick, forgotten, tmp_path):
    # they are found beside the config
    assert not any(Path(place).resolve() == FOLDER for place in sys.path)
    code, _, err = bnnlight("fit", "--config", FOLDER / "own.yaml", *quick, f"--run_dir={tmp_path / 'run'}")
    assert code == 0, err
    results = json.loads((tmp_path / "run/results.json").read_text())["results"]
    assert results["test/acc1"] > 0.9  # of two classes
    checkpoint = tmp_path / "run/checkpoints/best.ckpt"
    code, out, err = bnnlight(
        *("export", "--ckpt_path", checkpoint, "--format", "packed", "--output", tmp_path / "m", "--json")
    )
    assert code == 0, err
    agreement = json.loads(out)["check"]["agreement"]
    assert agreement["num_same"] == agreement["num_images"] == 200
    from own_data import Shapes

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        Shapes(4, seed=9)[number][0].save(pictures / f"{number}.png")
    code, _, err = bnnlight("predict", "--model", tmp_path / "m", pictures, "--output", tmp_path / "answers")
    assert code == 0, err
    images = json.loads((tmp_path / "answers/predictions.json").read_text())["images"]
    assert [image["classes"][0]["class"] for image in images] == ["disc", "square"] * 2


def test_the_backbone_has_two_binary_layers_a_block(examples):
    from own_backbone import TwoPaths

    network = TwoPaths(7, in_channels=3, channels=8, num_blocks=3)
    assert [layer.weight_shape[-1] for _, layer in named_binary_layers(network)] == [3, 3, 3, 5, 5, 5]
    assert network(torch.zeros(2, 3, 24, 24)).shape == (2, 7)


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (4, 12, 3, 3), (5, 7)])
def test_the_latent_loses_nothing_at_full_rank_and_is_numpys_best_below(examples, shape):
    from own_latent import FilterSVD

    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    filters = weight.reshape(shape[0], shape[1], -1)
    most = min(filters.shape[1:])
    torch.testing.assert_close(FilterSVD(weight, most)(), weight, rtol=1e-5, atol=1e-5)
    for found, own in zip(FilterSVD(weight, 1)().detach(), filters.double().numpy(), strict=True):
        u, s, v = np.linalg.svd(own)
        np.testing.assert_allclose(found.reshape(own.shape), s[0] * np.outer(u[:, 0], v[0]), atol=1e-5)
    with pytest.raises(ValueError, match=f"num_kernels is {most + 1}: this layer takes 1 to {most}"):
        FilterSVD(weight, most + 1)


def test_shapes_are_the_same_whenever_they_are_asked_for(examples):
    from own_data import Shapes

    first, again = Shapes(6, seed=0), Shapes(6, seed=0)
    one = [np.asarray(first[i][0]) for i in range(6)]
    other = [np.asarray(again[i][0]) for i in reversed(range(6))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], np.asarray(Shapes(6, seed=1)[0][0]))


class Told:
    """Stands in for trackio and its run: keeps what it is told."""

    def __init__(self):
        self.calls, self.config = [], {}

    def init(self, **options):
        self.calls.append(("init", options))
        return self

    def log(self, figures, step):
        self.calls.append((step, figures))

    def finish(self):
        self.calls.append("finish")

    Image = str


def test_the_logger_hands_figures_config_and_pictures_to_trackio(examples, monkeypatch, tmp_path):
    told = Told()
    monkeypatch.setitem(sys.modules, "trackio", told)
    from trackio_run import TrackioRun

    logger = TrackioRun(run="one")
    hand_config([logger], {"a": 1}, {"version": "9"}, tmp_path / "config.yaml")
    hand_figures([logger], {"val/acc1": 0.5}, {"bnn/alpha/a": np.zeros(2)}, 4)
    hand_picture([logger], "val/pictures", tmp_path / "p.png", 4)
    finish([logger])
    begin = ("init", {"project": "bnnlight", "name": "one", "resume": "allow"})
    shown = (4, {"val/pictures": str(tmp_path / "p.png")})
    assert told.calls == [begin, (4, {"val/acc1": 0.5}), shown, "finish"]
    assert told.config == {"a": 1, "bnnlight": {"version": "9"}}
