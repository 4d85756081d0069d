from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from bnnlight.tracking.trackers import hand_figures, places


def test_the_file_that_is_named_has_the_figures(tmp_path):
    logger = CSVLogger(tmp_path)
    hand_figures([logger], {"bnn/flip_rate_mean": 0.5}, {}, 4)
    logger.save()
    (place,) = places([logger]).values()
    assert Path(place).read_text().splitlines() == ["bnn/flip_rate_mean,step", "0.5,4"]
