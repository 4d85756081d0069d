"""Class folders: which of them train, validate and test, and what is wrong with them."""

import shutil

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning import LightningDataModule
from PIL import Image

from bnnlight.data import ImageFolderDataModule


def module(root, **options):
    return ImageFolderDataModule(str(root), **{"image_size": 8, "num_workers": 0, **options})


def ready(root, **options):
    data = module(root, **options)
    data.setup()
    return data


def paths(view):
    return {view.items.samples[index][0] for index in view.indices}


def test_attributes_are_there_before_any_data():
    data = ImageFolderDataModule("nowhere")
    assert (data.num_channels, data.image_size) == (3, 224)
    assert data.eval_transform(Image.new("L", (300, 500))).shape == (3, 224, 224)


def test_all_three_folders_are_used(draw_folder):
    draw_folder("train", num_images=5)
    draw_folder("val", num_images=3)
    data = ready(draw_folder("test", num_images=2))
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (15, 9, 6)
    assert data.classes == ["ant", "bee", "cat"]


def test_labels_fit_the_images(draw_folder):
    draw_folder("train")
    data = ready(draw_folder("val"))
    for view in (data.train_set, data.val_set):
        for image, label in view:
            red = round((image[0].mean().item() * 0.229 + 0.485) * 255)
            assert red == 10 * label


def test_evaluation_agrees_with_torchvisions_recipe_in_numpy(draw_folder):
    data = ready(draw_folder("train", size=(40, 20), num_images=20), image_size=14)
    # Images of one colour: resizing and cropping change nothing, normalization is left.
    image, label = data.val_set[0]
    number = int(data.val_set.items.samples[data.val_set.indices[0]][0][-7:-4])
    rgb = np.array([10 * label, number, 200]) / 255
    expected = (rgb - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(image.numpy(), np.ones((3, 14, 14)) * expected[:, None, None], atol=1e-5)


def test_evaluation_keeps_the_middle_seven_eighths():
    data = ImageFolderDataModule("nowhere", image_size=28)
    # Resized to 32, cut to 28: of a 64 px image, 4 px go on each edge.
    array = np.zeros((64, 64, 3), dtype=np.uint8)
    array[:3], array[-3:], array[:, :3], array[:, -3:] = 255, 255, 255, 255
    black = -0.485 / 0.229
    assert data.eval_transform(Image.fromarray(array))[0].max().item() == pytest.approx(black)
    array[:6] = 255
    assert data.eval_transform(Image.fromarray(array))[0].max().item() > black + 1


def test_validation_held_out_by_fraction_or_count(draw_folder):
    root = draw_folder("train", num_images=20)
    for val_size, num_val in ((0.1, 6), (0.5, 30), (12, 12)):
        data = ready(root, val_size=val_size)
        assert len(data.val_set) == num_val
        labels = [data.val_set.items.targets[index] for index in data.val_set.indices]
        assert np.bincount(labels).tolist() == [num_val // 3] * 3
        assert not paths(data.val_set) & paths(data.train_set)
        assert len(data.train_set) == 60 - num_val
    assert len(ready(root).val_set) == 6


def test_held_out_split_ignores_the_run_seed(draw_folder):
    root = draw_folder("train", num_images=20)
    held_out = []
    for run_seed in (1, 2):
        torch.manual_seed(run_seed)
        np.random.seed(run_seed)
        held_out.append(paths(ready(root).val_set))
    assert held_out[0] == held_out[1] != paths(ready(root, split_seed=1).val_set)


def test_held_out_images_are_not_augmented(draw_folder):
    root = draw_folder("train", num_images=20)
    rng = np.random.default_rng(0)
    for file in root.rglob("*.png"):
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(file)
    data = ready(root)
    assert any(not torch.equal(data.train_set[i][0], data.train_set[i][0]) for i in range(6))
    assert all(torch.equal(data.val_set[i][0], data.val_set[i][0]) for i in range(6))


@pytest.mark.parametrize("stage", ["test", None])
def test_test_images_fall_back_to_val(draw_folder, stage):
    draw_folder("train")
    root = draw_folder("val", num_images=2)
    data = module(root)
    data.setup(stage)
    assert paths(data.test_set) == {str(path) for path in (root / "val").rglob("*.png")}


def test_test_images_fall_back_to_the_held_out(draw_folder):
    data = ready(draw_folder("train", num_images=20))
    assert paths(data.test_set) == paths(data.val_set)


def test_test_folder_without_val(draw_folder):
    draw_folder("train", num_images=20)
    root = draw_folder("test", num_images=2)
    data = ready(root)
    assert paths(data.test_set) == {str(path) for path in (root / "test").rglob("*.png")}
    assert paths(data.val_set) < {str(path) for path in (root / "train").rglob("*.png")}


def test_val_may_be_kept_for_the_test(draw_folder):
    draw_folder("train", num_images=10)
    data = ready(draw_folder("val", num_images=3), val_folder=None, test_folder="val", val_size=6)
    held_out, trained = paths(data.val_set), paths(data.train_set)
    assert (len(held_out), len(trained), len(data.test_set)) == (6, 24, 9)
    assert not held_out & trained
    assert all("/train/" in path for path in held_out | trained)
    assert all("/val/" in path for path, _ in data.test_set.items.samples)


def test_a_test_folder_can_be_left_alone(draw_folder):
    draw_folder("train")
    draw_folder("val", num_images=3)
    data = ready(draw_folder("test", num_images=2), test_folder=None)
    assert data.test_set is data.val_set


@pytest.mark.parametrize("named", ["val_folder", "test_folder"])
def test_a_folder_that_was_named_has_to_be_there(draw_folder, check_one_line, named):
    root = draw_folder("train")
    with pytest.raises(FileNotFoundError) as error:
        ready(root, **{named: "holdout"})
    check_one_line(error, "no folder", root / "holdout")


def test_one_folder_is_not_both_val_and_test():
    with pytest.raises(ValueError, match="both 'val'"):
        module("nowhere", test_folder="val")


def test_data_may_lie_below_a_hidden_folder(draw_folder, tmp_path):
    data = ready(draw_folder("train", num_images=20, root=tmp_path / ".cache" / "set"))
    assert len(data.train_set) == 54


def test_home_is_expanded(draw_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    draw_folder("train", num_images=20, root=tmp_path / "set")
    assert len(ready("~/set").train_set) == 54


def test_missing_or_empty_folders(tmp_path, check_one_line):
    for stage in ("fit", "test"):
        with pytest.raises(FileNotFoundError) as error:
            module(tmp_path / "gone").setup(stage)
        check_one_line(error, tmp_path / "gone" / "train", "--data.root")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "image.jpg").touch()
    with pytest.raises(FileNotFoundError) as error:
        module(tmp_path).setup("fit")
    check_one_line(error, "no class folders", tmp_path / "train")


def test_classes_that_lie_in_the_root_itself(draw_folder, tmp_path, check_one_line):
    root = draw_folder("photos", ["dog", "cat"]) / "photos"
    (root / "notes").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        ImageFolderDataModule(str(root)).setup()
    check_one_line(error, f"{root} has such folders itself (cat, dog)", f"into {root}/train, as {root}/train/cat")
    # in a folder that is called train they are right
    (tmp_path / "photos").rename(tmp_path / "train")
    with pytest.raises(FileNotFoundError) as error:
        ImageFolderDataModule(str(tmp_path / "train")).setup()
    check_one_line(error, "pass --data.root with the folder above it")


def test_class_folder_without_images(draw_folder, check_one_line):
    root = draw_folder("train")
    (root / "train" / "dog").mkdir()
    (root / "train" / "dog" / "readme.txt").touch()
    with pytest.raises(FileNotFoundError) as error:
        module(root).setup("fit")
    check_one_line(error, root / "train" / "dog", "add images")


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_class_that_is_not_trained_on(draw_folder, check_one_line, split, stage):
    draw_folder("train", ["ant", "bee", "cat"])
    root = draw_folder(split, ["ant", "bat", "bee", "cat"])
    with pytest.raises(ValueError) as error:
        module(root).setup(stage)
    check_one_line(error, root / split / "bat", root / "train", "add images of it to train on")


@pytest.mark.parametrize("empty", ["no folder", "no image in it"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_without_images_to_measure_on(draw_folder, split, empty):
    draw_folder("train", ["ant", "bee", "cat"], num_images=20)
    root = draw_folder(split, ["ant", "bee", "cat"], num_images=2)
    shutil.rmtree(root / split / "bee")
    if empty == "no image in it":
        (root / split / "bee").mkdir()
        (root / split / "bee" / ".gitkeep").touch()
    with pytest.warns(UserWarning, match=r"has no images of 1 of the 3 classes \(bee\)"):
        data = ready(root)
    assert data.classes == ["ant", "bee", "cat"]
    view = {"val": data.val_set, "test": data.test_set}[split]
    # labels are the training's, also behind the one that is missing
    assert [label for _, label in view] == [0, 0, 2, 2]
    assert [round((image[0].mean().item() * 0.229 + 0.485) * 255) for image, _ in view] == [0, 0, 20, 20]


def test_nothing_at_all_to_measure_on(draw_folder, check_one_line):
    root = draw_folder("train")
    (root / "val" / "bee").mkdir(parents=True)
    with pytest.raises(FileNotFoundError) as error:
        ready(root)
    check_one_line(error, root / "val", "add images")


def test_too_few_images_to_hold_out(draw_folder, check_one_line):
    root = draw_folder("train", num_images=4)
    with pytest.raises(ValueError) as error:
        module(root).setup("fit")
    check_one_line(error, root / "train", "val_size 0.1 asks for 1 of 12", "from 3 to 9")
    draw_folder("train", ["dog"], num_images=1)
    with pytest.raises(ValueError) as error:
        module(root).setup("fit")
    check_one_line(error, root / "train", "class dog has a single image")


def test_built_from_yaml(draw_folder):
    root = draw_folder("train", num_images=20)
    parser = ArgumentParser()
    parser.add_subclass_arguments(LightningDataModule, "data")
    config = parser.parse_string(f"""
        data:
          class_path: bnnlight.data.ImageFolderDataModule
          init_args:
            root: {root}
            image_size: 8
            val_size: 12
            train_transforms:
            - class_path: torchvision.transforms.v2.RandomSolarize
              init_args: {{threshold: 0, p: 1.0}}
    """)
    data = parser.instantiate(config).data
    data.setup("fit")
    assert len(data.val_set) == 12
    # Solarizing from 0 on inverts: blue is 255 - 200.
    blue = data.train_set[0][0][2, 0, 0].item() * 0.225 + 0.406
    assert blue == pytest.approx(55 / 255, abs=1e-5)
