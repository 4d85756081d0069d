"""Drawings of several people, and of joints that are not sure."""

import numpy as np
import pytest

from bnnlight.imaging.pose_pictures import LEFT, PEOPLE, DrawnPerson, draw_people, draw_pose
from bnnlight.imaging.skeletons import Skeleton

ARM = Skeleton(("left shoulder", "left wrist", "right shoulder", "right wrist"), ((0, 1), (2, 3)), ())
GREY = np.full((120, 200, 3), 90, np.uint8)


def person(x, confidence, shown=(True,) * 4, side_px=None):
    joints = np.array([[x, 30.0], [x + 40, 30], [x, 90], [x + 40, 90]])
    return DrawnPerson(joints, np.broadcast_to(confidence, 4), np.array(shown), side_px)


def test_a_sure_person_alone_is_drawn_as_on_the_sheets_of_training():
    one = person(40, 0.9)
    np.testing.assert_array_equal(draw_people(GREY, [one], ARM), draw_pose(GREY, one.joints, one.shown, ARM))
    assert GREY.max() == 90


def test_the_less_sure_the_fainter():
    changes = [
        np.abs(draw_people(GREY, [person(40, sure)], ARM).astype(int) - 90).sum() for sure in (0.9, 0.25, 0.15, 0.05)
    ]
    assert changes == sorted(changes, reverse=True)
    # what is a guess can hardly be seen
    assert 0 < changes[3] < 0.1 * changes[0]


def test_a_limb_is_as_faint_as_its_weaker_end_and_the_other_joint_is_not():
    drawn = draw_people(GREY, [person(40, [0.9, 0.05, 0.9, 0.9])], ARM).astype(int)
    contrast = np.abs(drawn - 90).sum(2)
    assert contrast[30, 40] > 100 and contrast[90, 60] > 100
    assert contrast[30, 60] < 40 and contrast[30, 80] < 40


def test_of_several_people_each_has_a_colour():
    drawn = draw_people(GREY, [person(20, 0.9), person(120, 0.9)], ARM)
    # a thin line is mixed a little with its outline
    for x, color in ((40, PEOPLE[0]), (140, PEOPLE[1])):
        np.testing.assert_allclose(drawn[30, x], color, atol=30)
    # the dots tell left from right
    assert tuple(drawn[30, 20]) == tuple(drawn[30, 120]) == LEFT


def test_lines_are_as_wide_as_the_person_is_large():
    near, far = (
        (draw_people(np.zeros((800, 800, 3), np.uint8), [person(40, 0.9, side_px=side)], ARM)[:, 60] > 30).any(1).sum()
        for side in (700, 80)
    )
    assert near > far > 0


@pytest.mark.parametrize("people", [[], [person(40, 0.9, shown=(False,) * 4)]])
def test_nobody_leaves_the_picture_as_it_is(people):
    np.testing.assert_array_equal(draw_people(GREY, people, ARM), GREY)
