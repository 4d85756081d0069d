"""What TensorBoard gets, read back with its own reader."""

import io

import numpy as np
import pytest
import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from bnnlight.tracking.runs import read_runs
from bnnlight.tracking.trackers import finish, hand_config, hand_figures, hand_picture, hand_table, places, to_go_on

pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install tensorboard")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

FIGURES = {10: {"bnn/flip_rate_mean": 0.5, "bnn/flip_rate/a.b": 0.25}, 20: {"bnn/flip_rate_mean": 0.125}}


@pytest.fixture
def filled(tmp_path, sheet):
    """A folder with all that there is, and the α of which a histogram was made."""
    logger = TensorBoardLogger(tmp_path / "run", "tensorboard", "")
    alpha = np.array([0.5, 0.5, 0.75, 1.0])
    hand_config([logger], {"model": {"rank": 2}, "list": [1, 2]}, {"version": "9"}, tmp_path / "config.yaml")
    for step, figures in FIGURES.items():
        hand_figures([logger], figures, {"bnn/alpha/a.b": alpha}, step)
    hand_picture([logger], "val/pictures", sheet[0], 20)
    hand_table([logger], "bnn/layers", ("layer", "ranks"), [["a.b", "2×2"]])
    logger.finalize("success")
    finish([logger])
    assert places([logger])["TensorBoard"] == str(tmp_path / "run/tensorboard") and to_go_on([logger]) == {}
    return tmp_path / "run/tensorboard", alpha


def test_all_of_it_arrives(filled, sheet):
    folder, alpha = filled
    events = EventAccumulator(str(folder), {"histograms": 0, "images": 0})
    events.Reload()
    for key in ("bnn/flip_rate_mean", "bnn/flip_rate/a.b"):
        wanted = [(step, figures[key]) for step, figures in FIGURES.items() if key in figures]
        assert [(event.step, event.value) for event in events.Scalars(key)] == wanted
    first, second = events.Histograms("bnn/alpha/a.b")
    assert (first.step, second.step) == (10, 20)
    values = second.histogram_value
    assert (values.min, values.max, values.num, values.sum) == (alpha.min(), alpha.max(), 4, alpha.sum())
    counts = dict(zip(values.bucket_limit, values.bucket, strict=True))
    assert sum(counts.values()) == 4 and sum(n for edge, n in counts.items() if edge < 0.7) == 2
    (picture,) = events.Images("val/pictures")
    found = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)))
    assert picture.step == 20 and np.array_equal(found, sheet[1])
    (text,) = events.Tensors("bnn/layers/text_summary")
    assert text.tensor_proto.string_val[0].decode() == "| layer | ranks |\n| --- | --- |\n| a.b | 2×2 |"
    config = yaml.safe_load((folder / "hparams.yaml").read_text())
    assert config == {"model": {"rank": 2}, "list": [1, 2], "bnnlight": {"version": "9"}}


def test_compare_reads_it(filled):
    folder, _ = filled
    for source in (folder, folder.parent, folder.parent.parent):
        (run,), problems = read_runs([str(source)])
        assert not problems and not run.problems
        assert run.name == f"{folder.parent.parent.name}-run" and run.source == str(folder)
        assert run.config == {"model.rank": 2, "list": [1, 2], "bnnlight.version": "9"}
        assert run.series == {"bnn/flip_rate_mean": {10: 0.5, 20: 0.125}, "bnn/flip_rate/a.b": {10: 0.25}}


def test_a_writer_that_fails_leaves_the_run_whole(tmp_path, sheet, capsys):
    from bnnlight.tracking.failing_loggers import leave_out_once_failed

    logger = TensorBoardLogger(tmp_path, "tensorboard", "")
    leave_out_once_failed(logger)
    # what its own methods do not fail in, since only the tracker's object is asked
    hand_picture([logger], "val/pictures", tmp_path / "absent.png", 1)
    assert capsys.readouterr().err.startswith(
        "logger TensorBoardLogger left out from now on, it fails in log_image (FileNotFoundError: "
    )
    hand_picture([logger], "val/pictures", sheet[0], 1)
    hand_figures([logger], {"a": 1.0}, {"b": np.zeros(3)}, 1)
    finish([logger])
    assert places([logger]) == {} and capsys.readouterr().err == ""
