"""A whole data set read before a run, through the real command line."""

import json
import shutil

import numpy as np
import pytest
from fixtures.coco_files import SIZE, coco_content, write_coco
from PIL import Image

from bnnlight.imaging.pose_pictures import LEFT, RIGHT
from bnnlight.imaging.skeletons import MPII

CLASSES = ("ant", "bee", "cat")
OWN_LINES = ("bnnlight ", "warning: ", "train ", "val ", "test ")


@pytest.fixture
def check(bnnlight, configs):
    def run(config, *options):
        code, out, err = bnnlight("check", "--config", configs / config, *options)
        # without what libraries say of the machine
        return code, out, [line for line in err.splitlines() if line.startswith(OWN_LINES)]

    return run


@pytest.fixture
def folder(draw_folder, tmp_path):
    """12 training and 6 validation images without a double; two more of class cat to train on."""
    root = tmp_path / "set"
    draw_folder("train", CLASSES, num_images=4, root=root)
    draw_folder("val", CLASSES, num_images=2, root=root)
    rng = np.random.default_rng(0)
    for file in [*sorted(root.rglob("*.png")), root / "train/cat/004.png", root / "train/cat/005.png"]:
        Image.fromarray(rng.integers(0, 256, (70, 60, 3), dtype=np.uint8)).save(file)
    return root


NETWORK = ("resnet18_imagenet.yaml", "--data.image_size=64", "--model.backbone.width=0.0625")
IMAGES = (*NETWORK, f"--model.backbone.num_classes={len(CLASSES)}")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_is_well(check, folder, num_workers):
    options = (*IMAGES, f"--data.root={folder}", f"--num_workers={num_workers}")
    code, out, err = check(*options, "--json")
    assert (code, err) == (0, [])
    train = {"num_items": 14, "num_files": 14, "num_unreadable": 0, "num_classes": 3}
    val = {"num_items": 6, "num_files": 6, "num_unreadable": 0, "num_classes": 3}
    train |= {"smallest_class": {"name": "ant", "num_items": 4}, "largest_class": {"name": "cat", "num_items": 6}}
    val |= {"smallest_class": {"name": "ant", "num_items": 2}, "largest_class": {"name": "ant", "num_items": 2}}
    # without test/ the validation images are tested on, and read once
    splits = {"train": train, "val": val, "test": {**val, "same_as": "val"}}
    assert json.loads(out) == {"splits": splits, "unreadable": [], "in_both": []}
    code, out, err = check(*options)
    assert (code, err) == (0, [])
    for part in ("train", "test (is val)", "cat (6)", "ant (2)"):
        assert part in out


def test_a_network_with_another_number_of_classes_is_told_and_the_pictures_are_read(check, folder):
    code, out, err = check(*NETWORK, f"--data.root={folder}", "--num_workers=0", "--json")
    assert code == 0 and json.loads(out)["splits"]["train"]["num_items"] == 14
    told = "the data have 3 classes, and the network distinguishes 1000: set model.backbone.num_classes to 3"
    assert err == [f"warning: fit would end at once: {told}"]


def test_what_cannot_be_read_is_listed_and_an_error(check, folder):
    bad = [folder / "train/ant/001.png", folder / "train/cat/002.png", folder / "val/bee/000.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:2000])
    bad[1].write_bytes(b"")
    bad[2].write_text("no image\n")
    options = (*IMAGES, f"--data.root={folder}", "--num_workers=0")
    code, out, err = check(*options, "--json")
    assert code == 1
    assert err == [
        "bnnlight check: error: 3 of 20 pictures cannot be read: replace or remove them, or train with "
        "--data.on_bad_image skip"
    ]
    record = json.loads(out)
    assert [line["file"] for line in record["unreadable"]] == sorted(map(str, bad))
    assert [record["splits"][name]["num_unreadable"] for name in ("train", "val", "test")] == [2, 1, 1]
    assert record["splits"]["train"]["smallest_class"] == {"name": "ant", "num_items": 3}
    code, out, _ = check(*options)
    assert code == 1
    # the table, then a line each
    assert [line.split(": ")[0] for line in out.splitlines()[-3:]] == [f"cannot read image {file}" for file in bad]


def test_the_terminal_shows_twenty_at_most(check, draw_folder, tmp_path):
    root = draw_folder("train", CLASSES, num_images=9, root=tmp_path / "set")
    for file in root.rglob("*.png"):
        if file.stem != "000":
            file.write_bytes(b"")
    code, out, err = check(*IMAGES, f"--data.root={root}", "--num_workers=0", "--data.val_size=3")
    assert code == 1
    lines = out.splitlines()
    assert sum(line.startswith("cannot read image") for line in lines) == 20
    assert lines[-1] == "… and 4 more: --json lists all"
    assert "24 of 27 pictures cannot be read" in err[-1]


def test_pictures_that_are_trained_on_and_measured_on(check, folder):
    shutil.copy(folder / "train/ant/002.png", folder / "val/cat/001.png")
    shutil.copy(folder / "train/ant/002.png", folder / "train/bee/000.png")
    # the same picture in other bytes is another one
    Image.open(folder / "train/cat/000.png").save(folder / "val/bee/001.png", compress_level=1)
    pair = {"train": f"{folder}/train/ant/002.png", "val": f"{folder}/val/cat/001.png"}
    options = (*IMAGES, f"--data.root={folder}", "--num_workers=0")
    code, out, err = check(*options, "--json")
    assert code == 0
    assert json.loads(out)["in_both"] == [pair]
    assert err == [
        "warning: 1 of the pictures to measure on is also trained on, byte for byte:",
        f"val {pair['val']} is train {pair['train']}",
    ]


def test_people_and_their_joints(check, write_mpii):
    root = write_mpii()
    (root / "images/train003.jpg").write_bytes(b"")
    options = (f"--data.root={root}", "--model.backbone.features=16", "--model.backbone.depth=1", "--num_workers=0")
    code, out, err = check("hg_mpii.yaml", *options, "--json")
    assert code == 1
    assert "1 of 12 pictures" in err[-1]
    record = json.loads(out)
    assert [line["file"] for line in record["unreadable"]] == [f"{root}/images/train003.jpg"]
    # of every second person the left wrist is not annotated; number 3 of those in training was not read
    joints = len(MPII.joints)
    assert record["splits"]["train"]["num_joints"] == 6 * joints - 3 - (joints - 1)
    assert record["splits"]["val"]["num_joints"] == 6 * joints - 3
    assert record["splits"]["val"]["num_files"] == 6


def test_several_lists_of_people(check, write_lsp):
    lsp, lspet = write_lsp()
    (lspet / "images/im00002.jpg").write_bytes(b"\xff\xd8")
    shutil.copy(lsp / "images/im0001.jpg", lsp / "images/im0008.jpg")
    options = (f"--data.lsp_root={lsp}", f"--data.lspet_root={lspet}", "--data.val_size=1", "--num_workers=0")
    code, out, _ = check("hg_lsp_small.yaml", *options, "--data.train_on=lsp+lspet", "--json")
    record = json.loads(out)
    assert code == 1
    assert [line["file"] for line in record["unreadable"]] == [f"{lspet}/images/im00002.jpg"]
    assert [record["splits"][name]["num_items"] for name in ("train", "val", "test")] == [11, 1, 4]
    assert record["in_both"] == [{"train": f"{lsp}/images/im0001.jpg", "test": f"{lsp}/images/im0008.jpg"}]


def test_annotated_crops_are_drawn_beside_their_mirror_image(check, tmp_path):
    root = tmp_path / "set"
    content = coco_content(4, num_pictures=1)
    # nothing but grey, so that the colours are those of the drawing
    picture = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    for entry in content["annotations"]:
        entry["keypoints"] = [70, 40, 2, 112, 50, 2, 50, 45, 2, 95, 88, 2, 68, 75, 2]
    write_coco(root, content)
    Image.fromarray(picture).save(root / "0.jpg")
    files = ("--data.train_annotations=people.json", "--data.val_annotations=people.json", "--data.images=.")
    options = (f"--data.root={root}", *files, "--model.backbone.num_joints=5", "--num_workers=0")
    small = ("--model.backbone.features=16", "--model.backbone.depth=1", "--data.image_size=64")
    code, out, err = check("hg_coco.yaml", *options, *small, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert record["sheet"] == str(tmp_path / "check_crops.png")
    assert record["splits"]["train"]["num_joints"] == 20
    sheet = np.asarray(Image.open(record["sheet"])).astype(int)
    # the key and four people, in tiles of two crops of 320 px with 2 px between them, below a line of 18 px
    columns, rows = (sheet.shape[1] + 6) // 648, (sheet.shape[0] + 6) // 344
    assert columns * rows >= 5
    tile = sheet[344 : 344 + 338, :642] if columns == 1 else sheet[:338, 648 : 648 + 642]
    for crop, mirrored in ((tile[18:, :320], False), (tile[18:, 322:], True)):
        # the box is (20, 30, 100, 60), 125 px of it are shown: from (7.5, -2.5) on, 2.56 px each
        for joint, side in (((112, 50), LEFT), ((50, 45), RIGHT), ((95, 88), LEFT), ((68, 75), RIGHT)):
            x, y = ((place - corner) * 2.56 for place, corner in zip(joint, (7.5, -2.5), strict=True))
            # mirrored, the left side is shown where the right one was
            color = side if not mirrored else {LEFT: RIGHT, RIGHT: LEFT}[side]
            x = 320 - x if mirrored else x
            assert np.abs(crop[round(y), round(x)] - color).max() < 40, (joint, mirrored)
    code, out, _ = check("hg_coco.yaml", *options, *small, "--sheet=null")
    assert (code, "mirror" in out) == (0, False)


def test_a_network_with_another_number_of_joints_is_told(bnnlight_error, configs, tmp_path):
    root = write_coco(tmp_path / "set")
    files = ("--data.train_annotations=people.json", "--data.val_annotations=people.json", "--data.images=.")
    small = ("--model.backbone.features=16", "--model.backbone.depth=1", "--num_workers=0")
    options = ("--config", configs / "hg_coco.yaml", f"--data.root={root}", *files, *small)
    code, line = bnnlight_error("check", *options)
    assert code == 2
    assert "5 joints" in line
    assert line.endswith("set model.backbone.num_joints to 5")


def test_data_without_files_is_drawn(check):
    code, out, _ = check("quickstart.yaml", "--json", "--num_workers=0")
    splits = json.loads(out)["splits"]
    assert code == 0
    assert [splits[name]["num_items"] for name in ("train", "val", "test")] == [1257, 180, 360]
    assert {split["num_files"] for split in splits.values()} == {0}
    assert splits["train"]["num_classes"] == 10
    options = ("--data.num_train=3", "--data.num_val=2", "--data.num_test=1", "--model.backbone.features=16")
    code, out, _ = check("hg_people.yaml", *options, "--model.backbone.depth=1", "--json", "--num_workers=2")
    splits = json.loads(out)["splits"]
    assert code == 0
    assert [splits[name]["num_joints"] for name in ("train", "val", "test")] == [48, 32, 16]


OWN = """
import lightning
from PIL import Image


class Own(lightning.LightningDataModule):
    def setup(self, stage=None):
        self.train_set = Items()


class Empty(lightning.LightningDataModule):
    pass


class Items:
    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index == 3:
            raise KeyError("no such label")
        return index
"""


def test_a_data_module_of_ones_own(check, tmp_path, monkeypatch):
    (tmp_path / "own_data.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    code, out, _ = check("quickstart.yaml", "--data=own_data.Own", "--json", "--num_workers=0")
    assert code == 1
    record = json.loads(out)
    assert record["splits"] == {"train": {"num_items": 5, "num_files": 0, "num_unreadable": 1}}
    assert record["unreadable"] == [{"file": "item 3", "reason": "KeyError: 'no such label'"}]
    code, _, err = check("quickstart.yaml", "--data=own_data.Empty", "--num_workers=0")
    assert code == 2
    assert err[-1].startswith("bnnlight check: error: Empty has none of train_set, val_set, test_set after setup")


def test_nothing_is_written_and_no_gpu_is_asked_for(check, folder, tmp_path):
    options = ("--trainer.accelerator=gpu", "--trainer.devices=8", "--trainer.precision=16-mixed")
    code, _, err = check(*IMAGES, f"--data.root={folder}", "--num_workers=0", *options)
    assert code == 0, err
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_bar_on_a_terminal(bnnlight, configs, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    _, _, err = bnnlight("check", "--config", configs / "quickstart.yaml", "--num_workers=0")
    assert "1797/1797" in err
    assert "/s" in err
