"""What is wrong with pose data is one line of `bnnlight fit`, before the first step and before anything is written."""

import json

import numpy as np
import pytest
import scipy.io

TINY = ("--model.backbone.features=16", "--model.backbone.depth=1", "--data.image_size=64", "--data.num_workers=0")


def change_entry(root, **values):
    file = root / "annot/train.json"
    people = json.loads(file.read_text())
    people[2] |= values
    file.write_text(json.dumps(people))


def without_picture(root):
    (root / "images/train002.jpg").unlink()


def joint_far_outside(root):
    change_entry(root, joints=[[5000.0, 60.0]] + [[80.0, 60.0]] * 15)


def no_scale(root):
    change_entry(root, scale=0)


def lsp_joints(root):
    change_entry(root, joints=[[80.0, 60.0]] * 14)


def empty_list(root):
    (root / "annot/train.json").write_text("[]")


def other_fields(root):
    scipy.io.savemat(root / "annot/gt_valid.mat", {"joints": np.zeros((16, 2))})


def cut_off(root):
    file = root / "annot/train.json"
    file.write_text(file.read_text()[:-200])


# how the data are spoiled → what the line must contain
WRONG = {
    without_picture: ("train.json", "entry 3 of 6", "train002.jpg", "images"),
    joint_far_outside: ("train.json", "entry 3 of 6", "right ankle", "(5000.0, 60.0)", "160×120"),
    no_scale: ("train.json", "entry 3 of 6", "train002.jpg", "scale is 0"),
    lsp_joints: ("train.json", "entry 3 of 6", "14×2", "16×2"),
    empty_list: ("train.json", "an empty list"),
    other_fields: ("gt_valid.mat", "lacks", "headboxes_src", "it holds joints"),
    cut_off: ("train.json", "not valid JSON", "cut off"),
}


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_wrong_annotations(bnnlight_error, write_mpii, configs, tmp_path, spoil):
    root = write_mpii()
    spoil(root)
    code, line = bnnlight_error("fit", "--config", configs / "hg_mpii.yaml", f"--data.root={root}", *TINY)
    assert code == 2
    for part in WRONG[spoil]:
        assert part in line, line
    assert {path.name for path in tmp_path.iterdir()} == {"mpii"}


def test_missing_data_are_told_with_the_option_that_names_them(bnnlight_error, configs, tmp_path):
    code, line = bnnlight_error("fit", "--config", configs / "hg_mpii.yaml", f"--data.root={tmp_path / 'none'}", *TINY)
    assert code == 2
    assert "valid.json" in line
    assert "--data.root" in line
    assert list(tmp_path.iterdir()) == []


def test_joints_a_little_outside_are_one_warning(bnnlight, write_mpii, configs, quick, tmp_path):
    root = write_mpii()
    change_entry(root, joints=[[80.0, -10.0]] + [[80.0, 60.0 + j] for j in range(15)])
    with pytest.warns(UserWarning, match=r"entry 3 of 6 \(train002\.jpg\): right ankle at \(80\.0, -10\.0\)") as caught:
        code, _, err = bnnlight(
            *("fit", "--config", configs / "hg_mpii.yaml", f"--data.root={root}", *TINY, *quick),
            *(f"--run_dir={tmp_path / 'run'}", "--trainer.max_steps=1", "--data.batch_size=2", "--trainer.devices=1"),
        )
    assert code == 0, err
    assert sum("outside" in str(warning.message) for warning in caught) == 1


def test_lsp_given_for_lsp_extended(bnnlight_error, write_lsp, configs, tmp_path):
    lsp, _ = write_lsp()
    code, line = bnnlight_error(
        *("fit", "--config", configs / "hg_lsp.yaml", f"--data.lsp_root={lsp}", f"--data.lspet_root={lsp}"),
        *(*TINY, "--data.val_size=2"),
    )
    assert code == 2
    assert "it looks like the other set's" in line
    assert {path.name for path in tmp_path.iterdir()} == {"lsp", "lspet"}
