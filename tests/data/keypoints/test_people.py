import dataclasses
import hashlib
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from bnnlight.data import PeopleDataModule
from bnnlight.data.keypoints.figures.body import Body, place
from bnnlight.data.keypoints.figures.brush import Brush
from bnnlight.data.keypoints.figures.dice import Dice
from bnnlight.data.keypoints.figures.look import Look
from bnnlight.data.keypoints.figures.painting import draw_figure
from bnnlight.data.keypoints.figures.poses import ARM_PAIRS, ARMS, LEG_PAIRS, LEGS, PARTS, Pose, draw_pose
from bnnlight.data.keypoints.heatmaps import decode, render
from bnnlight.data.keypoints.people import SKELETON, People, draw_person
from bnnlight.data.keypoints.transforms import PoseAugmentation, PoseTransform
from bnnlight.imaging.heatmaps import to_heatmap

MARK, OTHER = (255, 0, 255), (0, 255, 0)
BARE = PoseAugmentation(scale=(1, 1), rotation_deg=0, flip=0, brightness=0, contrast=0, saturation=0)


def joint(name):
    return SKELETON.joints.index(name)


def figure_and_look(seed, view=None, **look):
    dice = Dice(seed)
    body, pose = Body.draw(dice), draw_pose(dice)
    if view:
        pose = Pose(np.zeros((len(PARTS), 3)), view)
    figure = place(body, pose).moved(120, np.array([96.0, 96.0]))
    plain = {"skirt": False, "backpack": False, "glasses": False, "headwear": "none", "hair_style": "short"}
    return figure, dataclasses.replace(Look.draw(dice), **{**plain, **look})


def painted(figure, look):
    brush = Brush(np.full((192, 192, 3), 128, np.uint8))
    draw_figure(brush, figure, look)
    brush.flush()
    return brush.canvas.astype(int)


def shown(figure, look, **part):
    """Pixels ``(N, 2)``, x and y, which change when a part of the look does."""
    one, other = ({name: colour for name in part} for colour in (MARK, OTHER))
    change = painted(figure, dataclasses.replace(look, **one)) - painted(figure, dataclasses.replace(look, **other))
    return np.argwhere(np.abs(change).sum(2) > 60)[:, ::-1]


def distance(pixels, one, other):
    """From pixels ``(N, 2)`` to the nearest point of a line between two points, px."""
    along = other - one
    share = ((pixels - one) @ along / max(along @ along, 1e-9)).clip(0, 1)
    return np.linalg.norm(pixels - one - share[:, None] * along, axis=1)


def digest(pictures):
    joined = b"".join(picture.image.tobytes() + picture.person.joints.tobytes() for picture in pictures)
    return hashlib.sha256(joined).hexdigest()


def test_picture_follows_from_its_arguments_alone():
    first = [draw_person(3, index, "test") for index in range(20)]
    for module in (random, np.random):
        module.seed(1)
    torch.manual_seed(1)
    assert digest(draw_person(3, index, "test") for index in reversed(range(20))) == digest(first[::-1])


@pytest.mark.slow
def test_picture_is_the_same_in_another_process():
    code = "; ".join(
        (
            "import hashlib",
            "from bnnlight.data.keypoints.people import draw_person as d",
            "p = [d(3, i) for i in range(12)]",
            "print(hashlib.sha256(b''.join(x.image.tobytes() + x.person.joints.tobytes() for x in p)).hexdigest())",
        )
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == digest(draw_person(3, index) for index in range(12))


def test_picture_is_the_same_in_loader_workers():
    def batches(num_workers):
        data = PeopleDataModule(num_val=10, batch_size=4, num_workers=num_workers)
        data.setup()
        return [batch["image"] for batch in data.val_dataloader()]

    for here, there in zip(batches(0), batches(2), strict=True):
        assert torch.equal(here, there)


def test_index_split_and_seed_each_make_another_picture():
    keys = [(seed, index, split) for seed in (0, 1) for index in (0, 1, 2) for split in ("train", "val", "test")]
    assert len({digest([draw_person(*key)]) for key in keys}) == len(keys)


def test_data_module_hands_out_its_splits_of_its_seed():
    data = PeopleDataModule(num_train=3, num_val=4, num_test=5, seed=7, num_workers=0)
    data.setup()
    for view, split, num in ((data.train_set, "train", 3), (data.val_set, "val", 4), (data.test_set, "test", 5)):
        assert len(view) == num
        assert digest(view.items[index] for index in range(num)) == digest(
            draw_person(7, index, split) for index in range(num)
        )


def test_all_joints_lie_in_picture_and_crop():
    transform = PoseTransform(SKELETON, 128)
    for index in range(300):
        picture = draw_person(11, index)
        assert picture.image.shape == (192, 192, 3)
        assert picture.image.dtype == np.uint8
        assert picture.person.annotated.all()
        assert ((picture.person.joints >= 5) & (picture.person.joints <= 186)).all()
        sample = transform(picture)
        assert sample["weight"].all(), index
        # with some room to spare, yet not lost in the crop
        joints = sample["joints"].numpy()
        assert 1 < joints.min() < joints.max() < 126
        assert np.ptp(joints, axis=0).max() > 40


def test_bones_are_as_long_as_the_body_says_on_both_sides():
    for seed in range(100):
        dice = Dice(seed)
        body = Body.draw(dice)
        figure = place(body, draw_pose(dice))
        for side in ("left", "right"):
            for start, end, length in (
                ("shoulder", "elbow", body.upper_arm),
                ("elbow", "wrist", body.forearm),
                ("hip", "knee", body.thigh),
                ("knee", "ankle", body.shank),
            ):
                bone = figure[f"{side} {end}"] - figure[f"{side} {start}"]
                assert np.linalg.norm(bone) == pytest.approx(length)
        assert np.linalg.norm(figure["thorax"]) == pytest.approx(body.torso)
        assert np.linalg.norm(figure["head top"] - figure["upper neck"]) == pytest.approx(body.head)
        for middle, pair, room in (("thorax", "shoulder", 0.05), ("pelvis", "hip", 0.02)):
            assert np.linalg.norm((figure[f"left {pair}"] + figure[f"right {pair}"]) / 2 - figure[middle]) < room


def test_limbs_bend_as_a_body_can():
    for seed in range(200):
        dice = Dice(seed)
        figure = place(Body.draw(dice), draw_pose(dice))
        for side in ("left", "right"):
            # the parts' own directions are columns: 2 is forward
            shank = figure[f"{side} ankle"] - figure[f"{side} knee"]
            assert shank @ figure.frames[f"{side} thigh"][:, 2] < 1e-9
            forearm = figure[f"{side} wrist"] - figure[f"{side} elbow"]
            assert forearm @ figure.frames[f"{side} upper arm"][:, 2] > -1e-9
            # no thigh swings far back, no arm straight back
            thigh = figure[f"{side} knee"] - figure[f"{side} hip"]
            assert thigh @ figure.frames["pelvis"][:, 2] > -0.51 * np.linalg.norm(thigh)
            arm = figure[f"{side} elbow"] - figure[f"{side} shoulder"]
            assert arm @ figure.frames["torso"][:, 2] > -0.88 * np.linalg.norm(arm)


def test_pairs_name_poses_of_the_tables():
    assert {name for _, *names in ARM_PAIRS for name in names} == set(ARMS)
    assert {name for _, *names in LEG_PAIRS for name in names} == set(LEGS)
    for low, high in (limits for table in (ARMS, LEGS) for row in table.values() for limits in row):
        assert low < high


def test_who_faces_the_viewer_has_the_left_hand_at_the_right():
    front, _ = figure_and_look(0, view=(0, 0, 0))
    back, _ = figure_and_look(0, view=(0, 180, 0))
    for name in ("shoulder", "hip", "wrist", "ankle"):
        for figure, sign in ((front, 1), (back, -1)):
            assert sign * (figure[f"left {name}"][0] - figure[f"right {name}"][0]) > 5
    assert front["head top"][1] < front["pelvis"][1] < front["left ankle"][1]
    # yaw 90 faces the right border, and z is toward the viewer
    side, _ = figure_and_look(0, view=(0, 90, 0))
    assert side["left toe"][0] - side["left heel"][0] > 10
    assert side["right hip"][2] > side["left hip"][2]
    assert front["left toe"][2] > front["left heel"][2]


def test_turned_figure_is_turned_clockwise_in_the_picture():
    for roll, x, y in ((90, -1, 0), (180, 0, 1)):
        figure, _ = figure_and_look(0, view=(0, 0, roll))
        up = figure["head top"][:2] - figure["pelvis"][:2]
        np.testing.assert_allclose(up / np.linalg.norm(up), (x, y), atol=0.1)


def test_hands_and_shoes_are_painted_where_the_joints_are():
    for seed in range(40):
        figure, look = figure_and_look(seed, sleeve=0.0, leg=2)
        for part, ends, reach_px in (("hand", ("wrist", "hand"), 6), ("shoes", ("ankle", "heel", "toe"), 5)):
            pixels = shown(figure, look, **{part: MARK})
            lines = [(f"{side} {a}", f"{side} {b}") for side in ("left", "right") for a in ends for b in ends if a < b]
            away = np.min([distance(pixels, figure[a][:2], figure[b][:2]) for a, b in lines], 0)
            assert away.max(initial=0) < reach_px, (seed, part)


def test_visible_hand_reaches_the_wrist():
    # seen from the front with hanging arms nothing is in front of the hands
    for seed in range(10):
        figure, look = figure_and_look(seed, view=(0, 0, 0), sleeve=0.0)
        hands = shown(figure, look, hand=MARK)
        for side in ("left", "right"):
            assert np.linalg.norm(hands - figure[f"{side} wrist"][:2], axis=1).min() < 4


def test_left_arm_is_painted_where_the_left_wrist_is():
    for yaw, at_the_right in ((0, True), (180, False)):
        angles = np.zeros((len(PARTS), 3))
        angles[PARTS.index("left upper arm"), 2] = 160
        figure = place(Body.draw(Dice(1)), Pose(angles, (0, yaw, 0))).moved(100, np.array([96.0, 96.0]))
        hands = shown(figure, figure_and_look(1, sleeve=0.0)[1], hand=MARK)
        raised = hands[hands[:, 1] < figure["thorax"][1]]
        assert len(raised) > 20
        assert distance(raised, figure["left wrist"][:2], figure["left hand"][:2]).max() < 7
        assert (raised[:, 0] > 96).all() == at_the_right


def test_what_is_nearer_covers_what_is_farther():
    angles = np.zeros((len(PARTS), 3))
    for side, sign in (("left", 1), ("right", -1)):
        angles[PARTS.index(f"{side} upper arm")] = -25, -70 * sign, 5 * sign
        angles[PARTS.index(f"{side} forearm"), 0] = -100
    look = figure_and_look(2, sleeve=2)[1]

    def num_hand_pixels(yaw):
        figure = place(Body.draw(Dice(1)), Pose(angles, (0, yaw, 0))).moved(120, np.array([96.0, 96.0]))
        return len(shown(figure, look, hand=MARK))

    assert num_hand_pixels(0) > 40 > 4 * num_hand_pixels(180)


def test_face_is_seen_from_the_front_only():
    for yaw, covered in ((0, False), (30, False), (150, True), (180, True)):
        figure, look = figure_and_look(3, view=(0, yaw, 0), beard=False)
        hair = shown(figure, look, hair=MARK)
        middle = figure["upper neck"][:2] + 0.45 * (figure["head top"] - figure["upper neck"])[:2]
        assert (np.linalg.norm(hair - middle, axis=1).min() < 1) == covered


def test_head_box_holds_the_head():
    for seed in range(60):
        figure, _ = figure_and_look(seed)
        low, high = figure.head_box
        for name in ("upper neck", "head top"):
            assert (figure[name][:2] > low - 1e-6).all()
            assert (figure[name][:2] < high + 1e-6).all()
        diagonal = np.linalg.norm(high - low)
        assert diagonal > 1.02 * np.linalg.norm(figure["head top"][:2] - figure["upper neck"][:2])
    for index in range(20):
        person = draw_person(0, index).person
        assert 6 < person.head_px < 30


def test_head_box_of_one_who_stands_upright():
    figure, look = figure_and_look(0, view=(0, 0, 0), hair_style="bald", beard=False)
    low, high = figure.head_box
    assert low[1] == pytest.approx(figure["head top"][1], abs=0.01)
    assert high[1] == pytest.approx(figure["upper neck"][1], abs=0.01)
    assert high[0] - low[0] == pytest.approx(120 * figure.body.head_width)
    hair = shown(figure, dataclasses.replace(look, hair_style="short"), hair=MARK)
    assert (hair.min(0) > low - 3).all()
    assert hair[:, 1].min() < low[1] + 2


def test_head_px_is_0_6_of_the_diagonal():
    # the box is as high as the head, and less wide than that
    for index in range(50):
        person = draw_person(0, index).person
        neck, top = (person.joints[joint(name)] for name in ("upper neck", "head top"))
        if np.linalg.norm(top - neck) > 17:
            assert 1.05 < person.head_px / 0.6 / np.linalg.norm(top - neck) < 1.6


def test_heat_maps_give_back_the_joints_of_augmented_pictures():
    torch.manual_seed(0)
    data = PeopleDataModule(num_train=60, num_workers=0)
    data.setup()
    samples = [data.train_set[index] for index in range(60)]
    joints = to_heatmap(torch.stack([sample["joints"] for sample in samples]), 4)
    weight = torch.stack([sample["weight"] for sample in samples]).bool()
    decoded, _ = decode(render(joints, 32, 32))
    assert weight.float().mean() > 0.98
    assert (decoded - joints).abs()[weight].max() <= 0.5
    # and the crop's joints are the annotated ones
    for sample in samples:
        affine = sample["to_image"]
        truth = sample["joints"] @ affine[:, :2].T + affine[:, 2]
        torch.testing.assert_close(truth, sample["truth"], atol=1e-3, rtol=0)


def test_mirror_image_has_mirrored_joints():
    picture = draw_person(0, 5)
    plain = PoseTransform(SKELETON, 128)(picture)
    flipped = PoseTransform(SKELETON, 128, dataclasses.replace(BARE, flip=1))(picture)
    torch.testing.assert_close(flipped["image"], plain["image"].flip(2), atol=0.1, rtol=0)
    for side, other in (("left", "right"), ("right", "left")):
        x, y = plain["joints"][joint(f"{side} wrist")]
        torch.testing.assert_close(flipped["joints"][joint(f"{other} wrist")], torch.stack((127 - x, y)))


def test_only_training_pictures_are_augmented():
    data = PeopleDataModule(num_train=2, num_val=2, num_test=2, num_workers=0)
    data.setup()
    for view, varies in ((data.train_set, True), (data.val_set, False), (data.test_set, False)):
        assert varies != torch.equal(view[0]["image"], view[0]["image"])
    data = PeopleDataModule(num_train=2, augmentation=None, num_workers=0)
    data.setup()
    assert torch.equal(data.train_set[0]["image"], data.train_set[0]["image"])


def test_batch():
    data = PeopleDataModule(num_train=8, image_size=64, batch_size=4, num_workers=0)
    assert (data.num_channels, data.image_size, len(data.skeleton.joints)) == (3, 64, 16)
    # pelvis and thorax count here
    assert data.skeleton.excluded == ()
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 64, 64)
    assert batch["joints"].shape == (4, 16, 2)
    assert batch["head_px"].isfinite().all()
    assert batch["torso_px"].isfinite().all()


@pytest.mark.parametrize("options", [{"num_train": 0}, {"num_val": 0}, {"num_test": -1}, {"seed": -1}])
def test_wrong_numbers_are_named(options):
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"^{name} is {value}: give [01] or more$"):
        PeopleDataModule(**options)


def test_items_end():
    assert len(list(People(0, 3, "val"))) == 3
    with pytest.raises(IndexError):
        People(0, 3, "val")[3]
