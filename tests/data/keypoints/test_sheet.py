"""The sheet of annotated crops; what its pictures show is tested with `bnnlight check`."""

import numpy as np
import pytest
from fixtures.coco_files import coco_content, ready, write_coco
from PIL import ImageDraw

from bnnlight.data.keypoints.sheet import annotated_crops


@pytest.mark.parametrize(
    ("num_shown", "crop", "named"),
    [
        (130, range(0, 130, 3), range(0, 130, 3)),
        # of those few that are seen each has room
        (20, range(20), range(0, 130, 3)),
    ],
)
def test_very_many_joints_are_numbered_so_that_they_can_be_read(tmp_path, monkeypatch, num_shown, crop, named):
    content = coco_content(1, joints=[f"k{index}" for index in range(130)], num_pictures=1)
    flags = np.array(content["annotations"][0]["keypoints"]).reshape(-1, 3)
    flags[num_shown:, 2] = 0
    content["annotations"][0]["keypoints"] = flags.ravel().tolist()
    data = ready(write_coco(tmp_path, content), flip_pairs=[])
    texts = []
    write = ImageDraw.ImageDraw.text

    def text(self, place, line, *more, **options):
        texts.append(line)
        return write(self, place, line, *more, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    tiles = annotated_crops(data, data.train_set, 3)
    assert len(tiles) == 2 and tiles[0].shape == tiles[1].shape
    # as it is, and its mirror image
    assert [line for line in texts if line.isdecimal()] == 2 * [str(index) for index in crop]
    assert [line for line in texts if " k" in line] == [f"{index} k{index}" for index in named]
    assert any("every 3rd is named" in line for line in texts)
