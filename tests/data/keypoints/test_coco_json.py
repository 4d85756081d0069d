"""Files in COCO's form: what may be left out or written otherwise, and what is wrong."""

import json
import warnings

import numpy as np
import pytest
from fixtures.coco_files import JOINTS, coco_content, keypoints, module, people_of, ready, write_coco


def each(content, change):
    """Let `change` work on all annotations."""
    for entry in content["annotations"]:
        change(entry)
    return content


def test_a_whole_file(tmp_path):
    content = coco_content(3)
    people = people_of(content, tmp_path)
    table = np.array([entry["keypoints"] for entry in content["annotations"]]).reshape(3, -1, 3)
    np.testing.assert_array_equal(people.joints, table[..., :2].astype(np.float32))
    assert people.annotated.all()
    # the middle of the box, and 1.25 × its longer side
    np.testing.assert_array_equal(people.center, [[70, 60]] * 3)
    np.testing.assert_array_equal(people.side_px, [125] * 3)
    np.testing.assert_array_equal(people.box, [[20, 30, 100, 60]] * 3)
    np.testing.assert_array_equal(people.area, np.float32([4000.5] * 3))
    assert people.ids.tolist() == [100, 101, 102]
    assert people.image_ids.tolist() == [10, 11, 10]
    assert people.images.tolist() == ["0.jpg", "1.jpg", "0.jpg"]
    person = people.person(1)
    assert (person.box_px, person.area) == (100, np.float32(4000.5))
    assert people.take(np.array([2])).ids.tolist() == [102]


def in_triples(entry):
    entry["keypoints"] = np.array(entry["keypoints"]).reshape(-1, 3).tolist()


def as_floats(entry):
    entry["keypoints"][2::3] = [0.3] * len(JOINTS)


def without_all_else(entry):
    for name in ("id", "category_id", "num_keypoints", "area", "iscrowd"):
        del entry[name]


def with_much_else(entry):
    entry |= {"segmentation": [[1, 2, 3, 4]], "face_kpts": [0.0] * 204, "lefthand_kpts": [0] * 63, "track_id": 1}
    entry |= {"category": "x", "attributes": {"occluded": False, "keypoints": ["a"]}}


VARIATIONS = {
    "triples": lambda c: each(c, in_triples),
    "flags are shares": lambda c: each(c, as_floats),
    "the least": lambda c: each(c, without_all_else),
    "much else": lambda c: each(c, with_much_else),
    "no categories": lambda c: {name: c[name] for name in ("images", "annotations")},
    "a category without joints": lambda c: {**c, "categories": [{"id": 1, "name": "face", "keypoints": []}]},
    "joints are a number": lambda c: {**c, "categories": [{"id": 1, "keypoints": len(JOINTS)}]},
    "joints have numbers for names": lambda c: {**c, "categories": [{"id": 1, "keypoints": [1, 2, 3, 4, 5]}]},
    "pictures have no size": lambda c: {
        **c,
        "images": [{"id": i["id"], "file_name": i["file_name"]} for i in c["images"]],
    },
    "more pictures": lambda c: {**c, "images": [*c["images"], {"id": 99, "file_name": "not/there.jpg"}]},
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_what_may_be_written_otherwise(tmp_path, variation):
    expected = people_of(coco_content(), tmp_path / "a")
    content = VARIATIONS[variation](coco_content())
    write_coco(tmp_path / "b")
    (tmp_path / "b/people.json").write_text(json.dumps(content))
    people = ready(tmp_path / "b", "validate").val_set.items.people
    for name in ("images", "joints", "annotated", "center", "side_px", "box", "image_ids"):
        np.testing.assert_array_equal(getattr(people, name), getattr(expected, name), name)


def test_ids_that_are_texts_and_pictures_in_folders(tmp_path):
    content = coco_content()
    for image in content["images"]:
        image |= {"id": f"p{image['id']}", "file_name": f"day/one/{image['file_name']}"}
    each(content, lambda entry: entry.update(id=f"a{entry['id']}", image_id=f"p{entry['image_id']}"))
    write_coco(tmp_path, content)
    content["images"][0]["file_name"] = "day\\one\\0.jpg"  # as some write it on Windows
    (tmp_path / "people.json").write_text(json.dumps(content))
    people = ready(tmp_path, "validate").val_set.items.people
    assert people.ids.tolist() == ["a100", "a101", "a102", "a103"]
    assert people.image_ids.tolist() == ["p10", "p11", "p10", "p11"]
    assert people.images.tolist()[:2] == ["day/one/0.jpg", "day/one/1.jpg"]


def test_crowds_and_those_without_joints_are_left_out_and_counted(tmp_path, told):
    content = coco_content(7)
    entries = content["annotations"]
    entries[0]["iscrowd"] = 1
    entries[1]["keypoints"] = [0] * 15
    del entries[2]["keypoints"]
    entries[3]["keypoints"] = None
    # neither a joint nor a box, which is not a matter then
    entries[4] |= {"keypoints": [], "bbox": [0, 0, 0, 0]}
    # one joint alone and no box
    entries[5] |= {"keypoints": [50, 50, 2] + [0, 0, 0] * 4, "bbox": None}
    people = people_of(content, tmp_path)
    assert people.ids.tolist() == [106]
    assert people.numbers.tolist() == [7]
    assert told == [
        f"{tmp_path / 'people.json'}: 1 people in 1 pictures; left out: 4 without keypoints, 1 crowd, 1 without a box, "
        "all joints in one place"
    ]


def test_flags_that_count(tmp_path):
    content = coco_content(2)
    for entry, flags in zip(content["annotations"], ([0, 1, 2, 1, 2], [1, 1, 1, 1, 1]), strict=True):
        entry["keypoints"][2::3] = flags
    assert people_of(content, tmp_path).annotated.sum(1).tolist() == [4, 5]
    people = people_of(content, tmp_path, visible=[2])
    assert people.annotated.tolist() == [[False, False, True, False, True]]
    # what is not annotated is nowhere, whatever the file says
    assert (people.joints[~people.annotated] == 0).all()


def test_boxes_from_joints_where_there_are_none_or_by_option(tmp_path):
    content = coco_content(2)
    places = [10, 20, 2, 50, 40, 2, 30, 100, 1, 0, 0, 0, 0, 0, 0]
    content["annotations"][0] |= {"keypoints": places, "bbox": None}
    people = people_of(content, tmp_path)
    np.testing.assert_array_equal(people.box, [[10, 20, 40, 80], [20, 30, 100, 60]])
    np.testing.assert_array_equal(people.center[0], [30, 60])
    assert people.side_px.tolist() == [100, 125]
    people = people_of(content, tmp_path, box_from="keypoints", box_padding=2)
    low, high = people.joints[1].min(0), people.joints[1].max(0)
    np.testing.assert_allclose(people.box[1], [*low, *(high - low)], rtol=1e-6)
    assert people.side_px[1] == pytest.approx(2 * (high - low).max())


def test_origin_moves_joints_and_boxes(tmp_path):
    plain, moved = people_of(coco_content(), tmp_path), people_of(coco_content(), tmp_path, origin=1)
    np.testing.assert_allclose(moved.joints, plain.joints - 1, atol=1e-5)
    np.testing.assert_array_equal(moved.center, plain.center - 1)
    np.testing.assert_array_equal(moved.box[:, 2:], plain.box[:, 2:])


def two_categories(joints=("a", "b", "c", "d", "e")):
    content = coco_content(4)
    content["categories"].append({"id": 2, "name": "dog", "keypoints": list(joints)})
    for entry in content["annotations"][2:]:
        entry["category_id"] = 2
    return content


@pytest.mark.parametrize("category", ["dog", 2, "2"])
def test_one_of_several_categories(tmp_path, told, category):
    data = ready(write_coco(tmp_path, two_categories()), category=category)
    assert data.val_set.items.people.ids.tolist() == [102, 103]
    assert data.skeleton.joints == ("a", "b", "c", "d", "e")
    assert "left out: 2 of another category" in told[0]


def test_categories_with_the_same_joints_are_one_skeleton(tmp_path, told):
    data = ready(write_coco(tmp_path, two_categories(JOINTS)))
    assert len(data.val_set) == 4
    assert told[0].endswith("read as one, since they have the same joints: person, dog")
    # without keypoints a category does not matter
    content = two_categories()
    for entry in content["annotations"][2:]:
        entry["keypoints"] = [0] * 15
    assert len(ready(write_coco(tmp_path, content)).val_set) == 2


def at(index, **values):
    def change(content):
        content["annotations"][index] |= values
        return content

    return change


def with_points(index, place, value):
    def change(content):
        content["annotations"][index]["keypoints"][place] = value
        return content

    return change


def with_picture(**values):
    def change(content):
        content["images"][1] |= values
        return content

    return change


WRONG = {
    "box outside": (at(1, bbox=[200, 10, 30, 30]), "entry 2 of 4 (1.jpg)", "(200, 10)", "160×120", "data.box_from"),
    "box above": (at(1, bbox=[10, -50, 30, 30]), "entry 2 of 4 (1.jpg)", "lies outside", "data.box_from keypoints"),
    "box of no size": (at(2, bbox=[20, 30, 0, 60]), "entry 3 of 4 (0.jpg)", "0×60 px", "data.box_from keypoints"),
    "box that is negative": (at(2, bbox=[20, 30, 5, -6]), "entry 3 of 4 (0.jpg)", "5×-6 px"),
    "box of three": (at(2, bbox=[20, 30, 5]), "entry 3 of 4 (0.jpg)", "bbox is [20, 30, 5]", "correct"),
    "box with NaN": (at(2, bbox=[20, float("nan"), 5, 5]), "entry 3 of 4 (0.jpg)", "bbox is", "correct"),
    "box beyond all pictures": (at(2, bbox=[-1e300, 0, 2e300, 9]), "entry 3 of 4 (0.jpg)", "bbox is", "below 2³¹"),
    "box of too large whole numbers": (at(2, bbox=[0, 0, 10**400, 9]), "entry 3 of 4 (0.jpg)", "bbox is", "correct"),
    "joint beyond all pictures": (with_points(1, 3, 1e300), "entry 2 of 4 (1.jpg)", "joint 1 is at (1e+300, ", "2³¹"),
    "pairs": (at(3, keypoints=[[1, 2]] * 5), "entry 4 of 4 (1.jpg)", "pairs without a flag: add 2 to each"),
    "area is text": (at(0, area="large"), "entry 1 of 4 (0.jpg)", "area is large", "a number"),
    "joint is NaN": (with_points(1, 3, float("nan")), "entry 2 of 4 (1.jpg)", "left_eye is at (nan", "correct"),
    "flag is NaN": (with_points(1, 5, float("nan")), "entry 2 of 4 (1.jpg)", "flag", "correct"),
    "joint is a word": (with_points(1, 3, "x"), "entry 2 of 4 (1.jpg)", "keypoints", "numbers", "correct"),
    "joint far away": (with_points(1, 3, 5000), "entry 2 of 4 (1.jpg)", "left_eye", "outside the picture"),
    "a joint too few": (at(3, keypoints=keypoints(0, 4)), "entry 4 of 4 (1.jpg)", "12 numbers", "5 joints", "15"),
    "keypoints are a number": (at(3, keypoints=5), "entry 4 of 4 (1.jpg)", "not a list of numbers"),
    "no image_id": (lambda c: c["annotations"][0].pop("image_id") and c, "entry 1 of 4", "no image_id"),
    "image_id of none": (at(0, image_id=77), "entry 1 of 4", "image_id 77", "not one of its images"),
    "an annotation is a list": (lambda c: c["annotations"].__setitem__(1, []) or c, "entry 2 of 4 is a list"),
    "missing picture": (with_picture(file_name="gone.jpg"), "entry 2 of 4 (gone.jpg)", "not in", "--data.images"),
    "no file_name": (with_picture(file_name=None), "picture 2 of 2", "no file_name"),
    "two pictures of one id": (with_picture(id=10), "picture 2 of 2", "two pictures have the id 10", "0.jpg and 1.jpg"),
    "two annotations of one id": (at(2, id=100), "two annotations have the id 100", "an id of its own"),
    "two categories": (lambda c: two_categories(), "2 categories", "1 person, 2 dog", "data.category"),
    "two categories of one id": (lambda c: {**c, "categories": c["categories"] * 2}, "two categories have the id 1"),
    "category_id of none": (
        at(0, category_id=5),
        "entry 1 of 4 (0.jpg)",
        "category_id 5 is not one of the categories, 1 person",
    ),
    "a joint twice": (
        lambda c: {**c, "categories": [{"id": 1, "keypoints": ["a", "b", "a", "c", "d"]}]},
        "the joint 'a' twice",
    ),
    "nobody": (lambda c: {**c, "annotations": []}, "it has no annotations", "--data.root"),
    "all crowds": (
        lambda c: each(c, lambda e: e.update(iscrowd=1)),
        "none of its 4 annotations can be trained on: 4 crowd",
    ),
    "no flag counts": (
        lambda c: each(c, lambda e: e.update(keypoints=[10, 20, 0] * 5)),
        "can be trained on: 4 without",
        "data.visible",
    ),
    "shares of the picture": (
        lambda c: each(c, lambda e: e.update(keypoints=[0.2, 0.3, 2] * 5, bbox=[0.1, 0.1, 0.8, 0.8])),
        "shares of the picture: multiply",
    ),
    "no category_id among two": (
        lambda c: {
            **each(c, lambda e: e.pop("category_id")),
            "categories": [*c["categories"], {"id": 2, "name": "dog"}],
        },
        "entry 1 of 4 (0.jpg): it has no category_id",
        "2 dog",
    ),
    "categories are an object": (lambda c: {**c, "categories": c["categories"][0]}, "categories is not a list"),
    "nested without end": (lambda c: "[" * 100000, "nested too deeply"),
    "no annotations": (lambda c: {"images": c["images"]}, "has no list annotations", "COCO's form"),
    "annotations are an object": (lambda c: {**c, "annotations": {}}, "annotations is not a list"),
    "detections": (lambda c: [{"image_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4]}], "list of detections", "--data."),
    "MPII's list": (lambda c: [{"joints_vis": [], "joints": []}], "MPIIDataModule"),
    "a list": (lambda c: [], "holds a list", "--data.val_annotations"),
    "a number": (lambda c: 5, "holds a int"),
    "cut off": (lambda c: json.dumps(c)[:700], "not valid JSON", "cut off"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_files(tmp_path, check_one_line, wrong):
    change, *parts = WRONG[wrong]
    warnings.simplefilter("error", RuntimeWarning)  # numpy's, of numbers that are too large
    write_coco(tmp_path)
    content = change(coco_content())
    (tmp_path / "people.json").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        ready(tmp_path)
    check_one_line(error, tmp_path / "people.json", *parts)


def test_a_box_is_asked_for_where_there_is_none(tmp_path, check_one_line):
    content = coco_content()
    del content["annotations"][1]["bbox"]
    with pytest.raises(ValueError) as error:
        ready(write_coco(tmp_path, content), box_from="box")
    check_one_line(error, "entry 2 of 4 (1.jpg)", "no bbox", "data.box_from keypoints")


def test_a_file_that_is_not_there(tmp_path, check_one_line):
    write_coco(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        ready(tmp_path, val_annotations="no.json")
    check_one_line(error, tmp_path / "no.json", "--data.root", "--data.val_annotations")
    with pytest.raises(ValueError) as error:
        module(tmp_path, box_padding=0)
    check_one_line(error, "box_padding is 0")
    with pytest.raises(ValueError) as error:
        ready(tmp_path, category="cat")
    check_one_line(error, tmp_path / "people.json", "no category 'cat'", "1 person", "data.category")


def test_a_picture_of_another_size_is_told(tmp_path, recwarn):
    content = coco_content()
    content["images"][1] |= {"width": 120, "height": 160}
    ready(write_coco(tmp_path, content))
    lines = [str(warning.message) for warning in recwarn if "is stored with" in str(warning.message)]
    assert len(lines) == 1
    assert "entry 2 of 4 (1.jpg): its picture is stored with 160×120 px, and the file says 120×160" in lines[0]


def test_ids_of_more_bits_than_a_number_has(tmp_path):
    content = coco_content(3)
    for entry in content["annotations"]:
        entry["id"] += 2**70
    people = people_of(content, tmp_path)
    assert people.ids.tolist() == [str(entry["id"]) for entry in content["annotations"]]


@pytest.mark.parametrize(("flag", "number"), [("0", 3), (0.0, 3), (None, 3), ("1", 2), (True, 2)])
def test_flags_of_crowds_as_text(tmp_path, flag, number):
    content = coco_content(3)
    content["annotations"][0]["iscrowd"] = flag
    assert len(people_of(content, tmp_path)) == number
