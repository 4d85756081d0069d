import re
import shutil

import numpy as np
import pytest
import scipy.io
import torch
from jsonargparse import ArgumentParser
from lightning import LightningDataModule
from PIL import Image

from bnnlight.data import LSPDataModule
from bnnlight.imaging.skeletons import LSP

WRIST = LSP.joints.index("left wrist")


def module(roots, **options):
    return LSPDataModule(*map(str, roots), **{"image_size": 64, "num_workers": 0, "val_size": 3, **options})


def ready(roots, stage=None, **options):
    data = module(roots, **options)
    data.prepare_data()
    data.setup(stage)
    return data


def edit(root, change):
    """Let `change` work on the table in joints.mat; what it returns, if anything, replaces the table."""
    table = scipy.io.loadmat(root / "joints.mat")["joints"]
    changed = change(table)
    scipy.io.savemat(root / "joints.mat", {"joints": table if changed is None else changed})


def names_of(view):
    """Names of a view's pictures, in its order."""
    parts = getattr(view.items, "datasets", [view.items])
    names = [name for part in parts for name in part.people.images.tolist()]
    return [names[i] for i in view.indices]


@pytest.mark.parametrize(
    ("train_on", "names"),
    [
        ("lsp+lspet", [f"im{i:04}.jpg" for i in range(1, 7)] + [f"im{i:05}.jpg" for i in range(1, 7)]),
        ("lsp", [f"im{i:04}.jpg" for i in range(1, 7)]),
        ("lspet", [f"im{i:05}.jpg" for i in range(1, 7)]),
    ],
)
def test_every_training_picture_is_on_one_side(write_lsp, train_on, names):
    data = ready(write_lsp(), train_on=train_on)
    assert sorted(names_of(data.train_set) + names_of(data.val_set)) == sorted(names)
    assert len(data.val_set) == 3
    assert names_of(data.test_set) == [f"im{i:04}.jpg" for i in range(7, 11)]
    assert data.train_set.transform is data.train_transform
    assert data.val_set.transform is data.test_set.transform is data.eval_transform


def test_coordinates_count_from_the_corner(write_lsp):
    lsp, lspet = write_lsp()
    data = ready((lsp, lspet))
    table = scipy.io.loadmat(lsp / "joints.mat")["joints"]
    for i in range(4):
        np.testing.assert_allclose(data.test_set[i]["truth"], table[:2, :, 6 + i].T - 0.5, atol=1e-4)
    table = scipy.io.loadmat(lspet / "joints.mat")["joints"]
    files = data.train_set.items.datasets[1]
    for i in range(6):
        joints = np.delete(files[i].person.joints, WRIST, 0)
        np.testing.assert_allclose(joints, np.delete(table[:, :2, i], WRIST, 0) - 0.5, atol=1e-4)


def test_all_joints_of_lsp_are_annotated_and_the_visible_ones_of_lspet(write_lsp):
    data = ready(write_lsp())
    lsp, lspet = data.train_set.items.datasets
    for i in range(6):
        assert lsp[i].person.annotated.all()
        assert lspet[i].person.annotated[WRIST] == (i % 2 == 0)
        assert np.delete(lspet[i].person.annotated, WRIST).all()
    for sample in data.test_set:
        assert sample["weight"].tolist() == [1] * 14


def test_the_box_is_half_as_wide_again_as_the_joints(write_lsp):
    lsp, lspet = write_lsp()
    for root in (lsp, lspet):
        table = scipy.io.loadmat(root / "joints.mat")["joints"]
        x, y = (table[:2, :, 1] if root == lsp else table[:, :2, 1].T) - 0.5
        if root == lspet:
            x, y = np.delete(x, WRIST), np.delete(y, WRIST)
        part = ready((lsp, lspet)).train_set.items.datasets[int(root == lspet)]
        person = part[1].person
        assert person.side_px == pytest.approx(1.5 * max(x.max() - x.min(), y.max() - y.min()), rel=1e-5)
        assert person.center.tolist() == pytest.approx([(x.min() + x.max()) / 2, (y.min() + y.max()) / 2], rel=1e-5)
        assert np.isnan(person.head_px)


def test_held_out_choice_follows_split_seed_alone(write_lsp):
    roots, chosen = write_lsp(), []
    for run_seed in (1, 2):
        torch.manual_seed(run_seed)
        np.random.seed(run_seed)
        chosen.append(names_of(ready(roots).val_set))
    assert chosen[0] == chosen[1] != names_of(ready(roots, split_seed=3).val_set)
    assert len(ready(roots, val_size=0.25).val_set) == 3


def test_testing_needs_no_extended_set(write_lsp):
    lsp, lspet = write_lsp()
    shutil.rmtree(lspet)
    assert len(ready((lsp, lspet), "test").test_set) == 4
    assert len(ready((lsp, lspet), train_on="lsp").train_set) == 3
    data = LSPDataModule(str(lsp), None, "lsp", val_size=2, num_workers=0)
    data.prepare_data()
    data.setup()
    assert len(data.train_set) == 4


def test_numbers_of_four_and_five_digits_are_pictures(write_lsp):
    lsp, lspet = write_lsp()
    (lsp / "images" / "im0008.jpg").rename(lsp / "images" / "im00008.jpg")
    (lspet / "images" / "im00002.jpg").rename(lspet / "images" / "im0002.jpg")
    data = ready((lsp, lspet))
    assert names_of(data.test_set)[1] == "im00008.jpg"
    assert "im0002.jpg" in [*names_of(data.train_set), *names_of(data.val_set)]


def test_large_pictures_are_read_no_finer_than_needed(write_lsp):
    data = ready(write_lsp(), image_size=20)
    # boxes of about 115 px; the smallest augmented one of about 86 px still holds 20 px four times
    for files in (data.test_set.items, *data.train_set.items.datasets, *data.val_set.items.datasets):
        assert {files[i].shrink for i in range(len(files))} == {4}
    files = ready((data.lsp_root, data.lspet_root), image_size=25).train_set.items.datasets[0]
    assert {files[i].shrink for i in range(len(files))} == {2}


def test_home_is_expanded(write_lsp, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_lsp()
    assert len(ready(("~/lsp", "~/lspet")).train_set) == 9


@pytest.mark.parametrize("which", [0, 1])
def test_missing_files(write_lsp, check_one_line, which):
    roots = write_lsp()
    root, option = roots[which], ("--data.lsp_root", "--data.lspet_root")[which]

    def fails(*parts):
        with pytest.raises(FileNotFoundError) as error:
            module(roots).setup("fit")
        check_one_line(error, option, *parts)

    names = sorted((root / "images").iterdir())
    names[2].unlink()
    names[4].unlink()
    fails(f"{root / 'joints.mat'}: entry 3 of ", names[2].name, root / "images", "(and 1 more); ")
    shutil.rmtree(root / "images")
    fails(root / "images")
    (root / "joints.mat").unlink()
    fails(root / "joints.mat")


@pytest.mark.parametrize("which", [0, 1])
def test_tables_of_another_kind(write_lsp, check_one_line, which):
    roots = write_lsp()
    root, other = roots[which], roots[1 - which]
    shape = ("(3, 14, N)", "(14, 3, N)")[which]

    def fails(*parts):
        with pytest.raises(ValueError) as error:
            module(roots).setup("fit")
        check_one_line(error, root / "joints.mat", ("--data.lsp_root", "--data.lspet_root")[which], *parts)

    good = (root / "joints.mat").read_bytes()
    shutil.copy(other / "joints.mat", root / "joints.mat")
    fails(shape, "it looks like the other set's")
    scipy.io.savemat(root / "joints.mat", {"joints": np.zeros((16, 3, 9))})
    fails(shape, "(16, 3, 9)")
    scipy.io.savemat(root / "joints.mat", {"joints": np.zeros((3, 14))})
    fails(shape, "(3, 14)")
    scipy.io.savemat(root / "joints.mat", {"points": np.zeros((3, 14))})
    fails("lacks joints", "it holds points")
    (root / "joints.mat").write_bytes(good[:200])
    fails("cannot be read as a MATLAB file")


def test_wrong_entries(write_lsp, check_one_line):
    lsp, lspet = write_lsp()
    good = {root: (root / "joints.mat").read_bytes() for root in (lsp, lspet)}

    def fails(root, change, *parts):
        edit(root, change)
        with pytest.raises(ValueError) as error:
            module((lsp, lspet)).setup()
        check_one_line(error, root / "joints.mat", *parts)
        (root / "joints.mat").write_bytes(good[root])

    fails(lspet, lambda t: t.__setitem__((slice(None), 2, 1), 0), "entry 2 of 6 (im00002.jpg): no joint is annotated")
    fails(lspet, lambda t: t.__setitem__((slice(1, None), 2, 1), 0), "entry 2 of 6 (im00002.jpg): all joints lie in")
    fails(lsp, lambda t: t.__setitem__((slice(None), slice(None), 3), 7), "entry 4 of 10 (im0004.jpg): all joints lie")
    fails(lsp, lambda t: t.__setitem__((0, 2, 8), np.nan), "entry 9 of 10 (im0009.jpg): right hip is at (nan, ")
    fails(lspet, lambda t: t.__setitem__((2, 1, 4), np.inf), "entry 5 of 6 (im00005.jpg): right hip is at (", "inf)")
    fails(lsp, lambda t: t[:, :, :6], "has 6 people", "begins after number 6")
    # invisible joints may have any numbers
    edit(lspet, lambda t: t.__setitem__((WRIST, slice(0, 2), 1), np.nan))
    assert ready((lsp, lspet)).train_set.items.datasets[1][1].person.joints[WRIST].tolist() == [0, 0]


def test_joints_outside_their_picture(write_lsp, check_one_line, recwarn):
    lsp, lspet = write_lsp()
    # pictures of 120×130 px; a joint at the corner is none of the warning's
    edit(lsp, lambda t: t.__setitem__((slice(0, 2), 13, 8), [0, 0]))
    edit(lsp, lambda t: t.__setitem__((slice(0, 2), 13, 9), [60, -30]))
    data = ready((lsp, lspet))
    (warning,) = [str(w.message) for w in recwarn]
    assert warning == (
        f"{lsp / 'joints.mat'}: entry 10 of 10 (im0010.jpg): head top at (60.0, -30.0) lies outside the picture of "
        "120×130 px; joints outside are not trained on"
    )
    assert data.test_set[3]["weight"].tolist() == [1] * 13 + [0]
    edit(lspet, lambda t: t.__setitem__((13, slice(0, 2), 0), [60, -33.5]))
    with pytest.raises(ValueError) as error:
        module((lsp, lspet)).prepare_data()
    check_one_line(error, f"{lspet / 'joints.mat'}: entry 1 of 6 (im00001.jpg): head top at (60.0, -33.5)", "120×130")


def test_joints_are_compared_with_the_pictures_once(write_lsp, monkeypatch):
    calls = []
    monkeypatch.setattr("bnnlight.data.keypoints.lsp.check_inside", lambda *args: calls.append(args))
    data = ready(write_lsp())
    data.prepare_data()
    assert len(calls) == 2


def test_settings_that_do_not_fit(write_lsp, check_one_line):
    lsp, lspet = write_lsp()
    for train_on in ("lsp+lspet", "lspet"):
        with pytest.raises(ValueError) as error:
            LSPDataModule(str(lsp), None, train_on)
        check_one_line(error, f"train_on {train_on}", "lspet_root", "train_on lsp")
    with pytest.raises(ValueError) as error:
        module((lsp, lspet), val_size=12).setup()
    check_one_line(error, f"{lsp / 'joints.mat'} and {lspet / 'joints.mat'}", "asks for 12 of 12", "from 1 to 11")


def test_built_from_the_command_line(write_lsp):
    lsp, _ = write_lsp()

    def build(*args):
        parser = ArgumentParser()
        parser.add_subclass_arguments(LightningDataModule, "data")
        config = parser.parse_args(["--data=bnnlight.data.LSPDataModule", f"--data.lsp_root={lsp}", *args])
        return parser.instantiate(config).data

    assert build("--data.augmentation.rotation_deg=10").train_transform.augmentation.rotation_deg == 10
    data = build("--data.train_on=lsp", "--data.lspet_root=null", "--data.augmentation=null", "--data.val_size=0.5")
    assert data.train_transform.augmentation is None
    data.num_workers = 0
    data.setup()
    assert (len(data.train_set), len(data.val_set)) == (3, 3)


def real(real_data, **options):
    data = module((real_data("lsp"), real_data("lspet128")), **{"image_size": 128, "val_size": 500, **options})
    data.setup()
    return data


def test_real_sets(real_data, recwarn):
    data = real(real_data)
    data.prepare_data()
    assert len(recwarn) == 0
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (10491, 500, 1000)
    names = [*names_of(data.train_set), *names_of(data.val_set)]
    assert len(set(names)) == 10991
    assert max(name for name in names if re.fullmatch(r"im\d{4}.jpg", name)) == "im1000.jpg"
    assert names_of(data.test_set)[0] == "im1001.jpg"
    lsp, lspet = (part.people for part in data.train_set.items.datasets)
    assert lsp.annotated.all()
    # of 139,874 joints 16,704 are not visible, which is 12 %
    assert (~lspet.annotated).sum() == 16704
    # the picture is 128 px wide and was cut 1.5 times as wide as the joints: it is the box
    np.testing.assert_allclose(lspet.side_px, 128, atol=1e-3)
    np.testing.assert_allclose(lspet.center, 63.5, atol=1e-3)


def test_real_crops_of_the_extended_set_come_through_unchanged(real_data):
    files = real(real_data).train_set.items.datasets[1]
    data = module(("nowhere", "nowhere"), image_size=128)
    for index in (0, 700, 9990):
        pixels = np.asarray(Image.open(files.folder / files.people.images[index]).convert("RGB"))
        sample = data.plain(files)[index]
        read = data.to_pixels(sample["image"][None])[0]
        assert np.abs(read.astype(int) - pixels).mean() < 1.5
        np.testing.assert_allclose(sample["joints"], sample["truth"], atol=1e-2)


@pytest.mark.parametrize("which", [0, 1])
def test_real_joints_survive_augmentation_and_heat_maps(real_data, check_samples, which):
    data = real(real_data, image_size=256)
    view = data.augmented(data.train_set.items.datasets[which])
    torch.manual_seed(0)
    assert check_samples(view[index] for index in range(0, 200)) > 2000
