"""The warp against pixels that are known, and the sample against its definition."""

import numpy as np
import pytest
import torch

from bnnlight.data.keypoints.data_module import PoseView
from bnnlight.data.keypoints.person import Person, PosePicture
from bnnlight.data.keypoints.transforms import PoseAugmentation, PoseTransform
from bnnlight.imaging.pose_crop import MEAN, STD
from bnnlight.imaging.skeletons import LSP, MPII

NO_COLOURS = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def person(joints=None, center=(60.0, 40.0), side_px=64.0, **options):
    if joints is None:
        joints = np.random.default_rng(0).uniform(35, 75, (16, 2))
        joints[:, 1] -= 15
    joints = np.asarray(joints, np.float32)
    annotated = options.pop("annotated", np.ones(len(joints), bool))
    return Person(joints, annotated, np.array(center, np.float32), side_px, **options)


def picture(image=None, shrink=1, **options):
    image = np.random.default_rng(1).integers(0, 256, (80, 120, 3), dtype=np.uint8) if image is None else image
    return PosePicture(image, person(**options), shrink)


def spot(width, height, x, y, radius=4.0):
    """A white blob on black whose middle is exactly at (x, y)."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    grey = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, 2)


def middle(sample):
    """Centre of mass of the brightness above black, in crop pixels."""
    grey = sample["image"][0].double() * STD[0] + MEAN[0]
    grey = torch.where(grey > 0.1, grey, 0)
    rows, columns = torch.meshgrid(*map(torch.arange, grey.shape), indexing="ij")
    return torch.stack(((grey * columns).sum(), (grey * rows).sum())) / grey.sum()


@pytest.mark.parametrize("skeleton", [MPII, LSP])
def test_mirrored_swaps_left_and_right_by_name(skeleton):
    names = skeleton.joints
    for index, other in enumerate(skeleton.mirrored):
        swapped = names[index].replace("left", "?").replace("right", "left").replace("?", "right")
        assert names[other] == swapped
    assert len(names) == {"MPII": 16, "LSP": 14}["MPII" if skeleton is MPII else "LSP"]


@pytest.mark.parametrize("skeleton", [MPII, LSP])
def test_limbs_and_torso_are_of_one_side(skeleton):
    for a, b in skeleton.limbs:
        sides = {skeleton.joints[i].split()[0] for i in (a, b)} & {"left", "right"}
        assert len(sides) < 2 or {"hip"} == {skeleton.joints[i].split()[1] for i in (a, b)}
    assert [skeleton.joints[i] for i in skeleton.torso] == ["left shoulder", "right hip"]


def test_crop_of_whole_pixels_copies_them():
    # a box of 64 px for a crop of 64 px, its middle between two pixels: nothing to interpolate
    source = picture(center=(59.5, 39.5))
    sample = PoseTransform(MPII, 64)(source)
    pixels = source.image[8:72, 28:92].transpose(2, 0, 1) / 255
    expected = (pixels - MEAN[:, None, None]) / STD[:, None, None]
    np.testing.assert_allclose(sample["image"].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(sample["joints"].numpy(), source.person.joints - [28, 8], atol=1e-4)


def test_outside_the_picture_is_the_mean_colour():
    sample = PoseTransform(MPII, 64)(picture(center=(-200.0, 40.0)))
    # a rounded mean colour: half a grey level
    assert sample["image"].abs().max() < 0.5 / 255 / STD.min()


@pytest.mark.parametrize("shrink", [1, 2, 4])
@pytest.mark.parametrize("seed", range(6))
def test_what_is_at_a_joint_is_at_the_joint_of_the_crop(seed, shrink):
    torch.manual_seed(seed)
    place = np.array([350.0, 310.0])
    joints = np.full((16, 2), place)
    # as a decoder that shrinks sees it: the middle of a block of pixels
    small = (place + 0.5) / shrink - 0.5
    image = spot(720 // shrink, 640 // shrink, *small, radius=8 / shrink)
    source = PosePicture(image, person(joints, center=(360.0, 320.0), side_px=200.0), shrink)
    augmentation = PoseAugmentation(rotation_deg=40, flip=0.5, **NO_COLOURS)
    sample = PoseTransform(MPII, 64, augmentation)(source)
    found = middle(sample)
    torch.testing.assert_close(found, sample["joints"][0].double(), atol=0.15, rtol=0)
    back = sample["to_image"].double() @ torch.tensor([*sample["joints"][0].tolist(), 1.0], dtype=torch.float64)
    np.testing.assert_allclose(back, place, atol=1e-2)


def test_a_far_larger_picture_is_averaged_not_sampled():
    # single white pixels, which four-pixel interpolation would hit or miss; their mean is 1/16 of white
    image = np.zeros((1024, 1024, 3), np.uint8)
    image[::4, ::4] = 255
    sample = PoseTransform(MPII, 64)(PosePicture(image, person(center=(511.5, 511.5), side_px=1024.0)))
    grey = sample["image"].numpy() * STD[:, None, None] + MEAN[:, None, None]
    np.testing.assert_allclose(grey, 1 / 16, atol=0.5 / 255)


def test_flip_swaps_the_joints_and_the_sides_of_the_picture():
    left, right = MPII.joints.index("left wrist"), MPII.joints.index("right wrist")
    annotated = np.ones(16, bool)
    annotated[right] = False
    source = picture(center=(59.5, 39.5), annotated=annotated)
    plain = PoseTransform(MPII, 64)(source)
    always = PoseAugmentation(scale=(1, 1), rotation_deg=0, flip=1, **NO_COLOURS)
    flipped = PoseTransform(MPII, 64, always)(source)
    torch.testing.assert_close(flipped["image"], plain["image"].flip(2))
    expected = plain["joints"][right] * torch.tensor([-1.0, 1.0]) + torch.tensor([63.0, 0.0])
    torch.testing.assert_close(flipped["joints"][left], expected)
    torch.testing.assert_close(flipped["truth"][left], plain["truth"][right])
    assert [bool(flipped[key][side]) for key in ("annotated", "weight") for side in (left, right)] == [0, 1, 0, 1]


def test_scale_rotation_and_flip_stay_within_their_ranges_and_reach_them():
    torch.manual_seed(0)
    augmentation = PoseAugmentation(scale=(0.5, 2.0), rotation_deg=20, flip=0.3, **NO_COLOURS)
    transform = PoseTransform(MPII, 64, augmentation)
    source = picture()
    maps = torch.stack([transform(source)["to_image"] for _ in range(400)])[:, :, :2].double()
    determinant = torch.linalg.det(maps)
    scale = determinant.abs().sqrt()  # the box is 64 px for a crop of 64 px
    assert 0.5 <= scale.min() < 0.55
    assert 1.9 < scale.max() <= 2.0
    flips = determinant < 0
    assert 0.2 < flips.double().mean() < 0.4
    angle = torch.atan2(maps[:, 0, 1], maps[:, 1, 1]).rad2deg().abs()
    assert 18 < angle.max() <= 20 + 1e-4


def test_weight_is_zero_where_not_annotated_outside_the_crop_or_outside_the_picture():
    joints = np.tile([60.0, 40.0], (16, 1))
    annotated = np.ones(16, bool)
    annotated[0] = False
    joints[1] = (27.0, 40.0)  # left of the crop, which begins at 28
    joints[2] = (28.0, 8.0)  # its first pixel
    sample = PoseTransform(MPII, 64)(picture(joints=joints, annotated=annotated, center=(59.5, 39.5)))
    assert sample["weight"].tolist() == [0, 0] + [1] * 14
    joints[3] = (60.0, -2.0)  # inside the crop, above the picture
    sample = PoseTransform(MPII, 64)(picture(joints=joints, center=(59.5, 19.5)))
    assert sample["weight"][3] == 0
    # what is measured does not depend on the crop
    assert sample["annotated"].all()


def test_reference_lengths():
    joints = np.zeros((16, 2))
    joints[13], joints[2] = (10, 10), (13, 14)  # left shoulder, right hip: 5 apart
    sample = PoseTransform(MPII, 64)(picture(joints=joints, head_px=7.5))
    assert sample["torso_px"].item() == pytest.approx(5)
    assert sample["head_px"].item() == 7.5
    annotated = np.ones(16, bool)
    annotated[13] = False
    sample = PoseTransform(MPII, 64)(picture(joints=joints, annotated=annotated))
    assert sample["torso_px"].isnan()
    assert sample["head_px"].isnan()


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colours_change_as_defined(name):
    torch.manual_seed(3)
    options = {**NO_COLOURS, name: 0.5}
    transform = PoseTransform(MPII, 64, PoseAugmentation(scale=(1, 1), rotation_deg=0, flip=0, **options))
    source = picture(center=(59.5, 39.5))
    original = source.image[8:72, 28:92].astype(np.float64) / 255
    changed = transform(source)["image"].numpy().transpose(1, 2, 0) * STD + MEAN
    grey = original @ [0.299, 0.587, 0.114]
    base = {"brightness": 0.0, "contrast": grey.mean(), "saturation": grey[..., None]}[name]
    # changed = base + factor · (original - base), with one factor in [0.5, 1.5] for all pixels
    factor = (changed - base).ravel() @ (original - base).ravel() / ((original - base) ** 2).sum()
    np.testing.assert_allclose(changed, base + factor * (original - base), atol=1e-4)
    assert 0.5 <= factor <= 1.5
    assert abs(factor - 1) > 0.02


def test_the_same_seed_gives_the_same_sample_and_another_another():
    transform = PoseTransform(MPII, 64, PoseAugmentation())
    source, samples = picture(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        samples.append(transform(source))
    for key in ("image", "joints", "to_image"):
        assert torch.equal(samples[0][key], samples[1][key])
        assert not torch.equal(samples[0][key], samples[2][key])


def test_view_shows_the_chosen_items():
    sources = [picture(center=(59.5 + i, 39.5)) for i in range(3)]
    view = PoseView(sources, PoseTransform(MPII, 64), [2, 0])
    assert len(view) == 2
    assert view[0]["to_image"][0, 2].item() == pytest.approx(30)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"scale": (0.0, 1.0)}, "augmentation.scale is [0.0, 1.0]"),
        ({"scale": (1.2, 0.8)}, "the smaller one first"),
        ({"flip": 1.5}, "augmentation.flip is 1.5"),
        ({"rotation_deg": -1}, "augmentation.rotation_deg is -1"),
    ],
)
def test_wrong_augmentation(options, part, check_one_line):
    with pytest.raises(ValueError) as error:
        PoseAugmentation(**options)
    check_one_line(error, part)
