"""Sheets of predictions: where they are written, how often, and what is on them."""

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from torch.utils.data import DataLoader

from bnnlight.callbacks import Pictures
from bnnlight.callbacks.pictures import GAP_PX, contact_sheet

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


class Drawing(LightningModule):
    """Draws each item as a square of 10 px whose grey level is the item's number plus the epoch's."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch.float().unsqueeze(1)).sum()

    def validation_step(self, batch, batch_idx):
        return {"number": batch}

    test_step = validation_step

    def draw(self, batch, outputs, count):
        assert torch.equal(batch, outputs["number"])
        return [np.full((10, 10, 3), int(n) + self.current_epoch, np.uint8) for n in batch[:count]]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Silent(Drawing):
    draw = None

    def __getattribute__(self, name):
        if name == "draw":
            raise AttributeError(name)
        return super().__getattribute__(name)


def fit(tmp_path, model, callback, epochs=3, **options):
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=options.pop("logger", CSVLogger(tmp_path, "", "")),
        callbacks=[callback],
        max_epochs=epochs,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    loader = DataLoader(torch.arange(100, 107), batch_size=3)
    trainer.fit(model, loader, loader)
    return trainer, loader


def levels(path):
    """Grey levels of the squares on a sheet, row by row."""
    sheet = np.asarray(Image.open(path))
    step = 10 + GAP_PX
    corners = [(y, x) for y in range(0, sheet.shape[0], step) for x in range(0, sheet.shape[1], step)]
    squares = [sheet[y : y + 10, x : x + 10] for y, x in corners]
    assert all((square == square[0, 0, 0]).all() for square in squares)
    return [int(square[0, 0, 0]) for square in squares]


def test_one_sheet_a_validation_with_the_first_items_of_all_batches(tmp_path):
    fit(tmp_path, Drawing(), Pictures(count=4))
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    # three steps an epoch
    assert names == ["val-0000003.png", "val-0000006.png", "val-0000009.png"]
    for epoch, name in enumerate(names):
        found = levels(tmp_path / "pictures" / name)
        assert [n for n in found if n != 255] == [100 + epoch, 101 + epoch, 102 + epoch, 103 + epoch]


def test_interval_and_the_last_one(tmp_path):
    fit(tmp_path, Drawing(), Pictures(count=1, interval=3), epochs=6)
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["val-0000003.png", "val-0000012.png", "val-0000018.png"]


def test_test_sheet(tmp_path):
    trainer, loader = fit(tmp_path, Drawing(), Pictures(count=2), epochs=1)
    trainer.test(trainer.model, loader, verbose=False)
    assert levels(tmp_path / "pictures" / "test.png")[:1] == [100 + trainer.current_epoch]


@pytest.mark.parametrize(
    ("model", "count", "logger"), [(Silent(), 4, True), (Drawing(), 0, True), (Drawing(), 4, False)]
)
def test_nothing_is_written_without_draw_count_or_logger(tmp_path, model, count, logger):
    options = {} if logger else {"logger": False}
    fit(tmp_path, model, Pictures(count=count), epochs=1, **options)
    assert not (tmp_path / "pictures").exists()


def test_a_resumed_run_keeps_the_interval():
    first, second = Pictures(interval=3), Pictures(interval=3)
    first._num_validations = 2
    second.load_state_dict(first.state_dict())
    assert second._num_validations == 2


@pytest.mark.parametrize("count", [1, 2, 5, 16])
def test_sheet_has_room_for_all_and_keeps_their_order(count):
    pictures = [np.full((10, 20, 3), n, np.uint8) for n in range(count)]
    sheet = contact_sheet(pictures)
    step_y, step_x = 10 + GAP_PX, 20 + GAP_PX
    columns = (sheet.shape[1] + GAP_PX) // step_x
    for n in range(count):
        y, x = n // columns * step_y, n % columns * step_x
        assert (sheet[y : y + 10, x : x + 20] == n).all()
    rows = (sheet.shape[0] + GAP_PX) // step_y
    assert rows * columns - count < max(rows, columns)


@pytest.mark.parametrize(("count", "interval"), [(-1, 1), (1, 0)])
def test_wrong_numbers(count, interval):
    with pytest.raises(ValueError, match=f"count is {count}, interval is {interval}"):
        Pictures(count, interval)
