"""Pictures of what a classification network says."""

import lightning
import numpy as np
import pytest
import torch
from torch import nn

from bnnlight.data.classes.data_module import ClassificationDataModule
from bnnlight.data.loading.transforms import ImageFormat
from bnnlight.imaging.class_pictures import LINE_PX, RIGHT, WRONG, caption
from bnnlight.tasks import ClassificationTask

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


def colours(picture):
    return {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}


@pytest.mark.parametrize(("truth", "present", "absent"), [("cat", RIGHT, WRONG), ("dog", WRONG, RIGHT)])
def test_the_picture_is_enlarged_and_the_caption_says_whether_it_is_right(truth, present, absent):
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, :4] = (10, 20, 30)
    found = caption(image, "cat", 0.75, truth, width_px=64)
    assert found.shape == (32 + 2 * LINE_PX + 4, 64, 3)
    assert (found[:32, :32] == (10, 20, 30)).all() and (found[:32, 32:] == 0).all()
    below = colours(found[32:])
    assert present in below and absent not in below


def test_a_long_name_stays_inside_the_picture():
    found = caption(np.zeros((8, 8, 3), np.uint8), "w" * 200, 1.0, "w" * 200)
    assert (found[160:, -2:] == 255).all() and (found[160:, :40] < 255).any()


@pytest.mark.parametrize("num_channels", [1, 3])
def test_pixels_are_those_of_the_picture(num_channels):
    mean, std = (0.1, 0.2, 0.3)[:num_channels], (0.4, 0.5, 0.6)[:num_channels]
    data = ClassificationDataModule(ImageFormat(num_channels, 8, mean, std, 8), [], 4, 0)
    picture = torch.randint(0, 256, (num_channels, 8, 8), dtype=torch.uint8)
    (found,) = data.to_pixels(data.eval_transform(picture).unsqueeze(0))
    assert found.dtype == np.uint8
    assert (found == picture.expand(3, 8, 8).permute(1, 2, 0).numpy()).all()


class FirstPixel(nn.Module):
    """Says with certainty the class that the first pixel's value is, 255 being the first."""

    def forward(self, x):
        return 100.0 * torch.stack([x[:, 0, 0, 0] > 0, x[:, 0, 0, 0] <= 0], 1).float()


class TwoClasses(ClassificationDataModule):
    classes = ("white", "black")

    def __init__(self):
        super().__init__(ImageFormat(1, 8, (0.5,), (0.5,), 8), [], 3, 0)

    def setup(self, stage):
        white, black = torch.full((1, 8, 8), 255, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8)
        # the third is called black and is white
        self.test_set = self.plain([(white, 0), (black, 1), (white, 1), (black, 1)])


def test_what_is_drawn_is_what_was_measured(monkeypatch):
    drawn = []
    monkeypatch.setattr("bnnlight.tasks.classification.caption", lambda *args: drawn.append(args) or args[0])

    class Look(lightning.Callback):
        def on_test_batch_end(self, trainer, task, outputs, batch, *args):
            assert len(task.draw(batch, outputs, 2)) == min(2, len(batch[1]))

    task = ClassificationTask(FirstPixel())
    trainer = lightning.Trainer(accelerator="cpu", logger=False, callbacks=[Look()], enable_progress_bar=False)
    trainer.test(task, TwoClasses(), verbose=False)
    said = [(int(image[0, 0, 0]), found, sure, true) for image, found, sure, true in drawn]
    assert said == [(255, "white", 1.0, "white"), (0, "black", 1.0, "black"), (0, "black", 1.0, "black")]


def test_data_that_cannot_give_pictures_back_leave_none():
    class Plain(lightning.LightningDataModule):
        pass

    task = ClassificationTask(FirstPixel())
    trainer = lightning.Trainer(accelerator="cpu", logger=False)
    trainer.datamodule, task.trainer = Plain(), trainer
    assert task.draw((torch.zeros(1, 1, 8, 8), torch.zeros(1)), {"logits": torch.zeros(1, 2)}, 1) == []
