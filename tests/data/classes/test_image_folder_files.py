"""Which files in class folders are read, and how, and how those that cannot be are named."""

import traceback

import numpy as np
import pytest
from PIL import Image

from bnnlight.data import ImageFolderDataModule


def ready(root, **options):
    data = ImageFolderDataModule(str(root), **{"image_size": 8, "num_workers": 0, **options})
    data.setup()
    return data


def test_pictures_of_all_sizes_make_a_batch_without_augmentation(draw_folder):
    root = draw_folder("train", ["ant"], num_images=20, size=(12, 30))
    draw_folder("train", ["bee"], num_images=20, size=(50, 9))
    images, _ = next(iter(ready(root, train_transforms=[], batch_size=30).train_dataloader()))
    assert images.shape == (30, 3, 8, 8)


def test_files_of_every_usual_kind_are_read_as_rgb(draw_folder):
    root = draw_folder("train", ["ant", "bee"], num_images=2)
    colour = Image.new("RGB", (8, 8), (255, 0, 0))
    for name, mode in (
        ("a.png", "L"),
        ("b.png", "P"),
        ("c.png", "RGBA"),
        ("d.jpg", "CMYK"),
        ("e.bmp", "RGB"),
        ("f.gif", "P"),
    ):
        colour.convert(mode).save(root / "train" / "ant" / name)
    Image.new("RGBA", (8, 8)).save(root / "train" / "ant" / "g.png")
    items = ready(root, val_size=2).train_set.items
    read = {path[-5:]: items[index][0] for index, (path, _) in enumerate(items.samples)}
    assert {image.mode for image in read.values()} == {"RGB"}
    assert read["a.png"].getpixel((0, 0)) == (76, 76, 76)
    # what is transparent is put on white
    assert read["g.png"].getpixel((0, 0)) == (255, 255, 255)
    for name in ("b.png", "c.png", "d.jpg", "e.bmp", "f.gif"):
        np.testing.assert_allclose(read[name].getpixel((0, 0)), (255, 0, 0), atol=6)


def test_hidden_and_stray_files_are_ignored(draw_folder):
    root = draw_folder("train", num_images=20)
    for hidden in (".git", ".ipynb_checkpoints"):
        (root / "train" / hidden).mkdir()
        Image.new("RGB", (8, 8)).save(root / "train" / hidden / "x.png")
    (root / "train" / "labels.csv").write_text("a,b")
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    (root / "train" / "ant" / "._000.png").write_bytes(b"left behind by macOS")
    data = ready(root)
    assert data.classes == ["ant", "bee", "cat"]
    assert len(data.train_set) + len(data.val_set) == 60


def test_pictures_in_other_formats_are_told(draw_folder):
    root = draw_folder("train", num_images=20)
    for name in ("a.heic", "b.HEIC", "c.svg", "notes.txt"):
        (root / "train" / "ant" / name).touch()
    with pytest.warns(UserWarning, match=r"left out of .*train, as pictures in other formats: 2 \.heic, 1 \.svg;"):
        ready(root)


def damage(file, how):
    if how == "truncated":
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "text":
        file.write_text("not an image\n")
    else:
        Image.fromarray(np.zeros((8, 8), dtype=np.int32)).save(file)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("x.jpg", "truncated"),
        ("x.png", "truncated"),
        ("x.jpg", "empty"),
        ("x.webp", "text"),
        ("x.tif", "32 bit"),
    ],
)
def test_unreadable_image_is_named(draw_folder, check_one_line, name, how):
    draw_folder("train", ["ant"])
    root = draw_folder("val", ["ant"])
    file = root / "val" / "ant" / name
    damage(file, how)
    with pytest.raises(OSError) as error:
        list(ready(root).val_dataloader())
    check_one_line(error, f"cannot read image {file}: ", "replace or remove the file")


def test_truncated_image_in_a_loader_process_is_named(draw_folder):
    draw_folder("train", ["ant"])
    root = draw_folder("val", ["ant"])
    file = root / "val" / "ant" / "x.jpg"
    damage(file, "truncated")
    with pytest.raises(OSError) as error:
        list(ready(root, num_workers=2, batch_size=2).val_dataloader())
    # Torch wraps the message in a traceback of the process; the last line is ours.
    last = str(error.value).strip().splitlines()[-1]
    assert last.startswith(f"OSError: cannot read image {file}: ")
    assert last.endswith("replace or remove the file")
    # As long as the traceback holds the loader, torch waits 5 s for each of its processes.
    traceback.clear_frames(error.tb)
