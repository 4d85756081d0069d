"""Boxes of a command line: read, brought to their pictures, chosen, and refused in one line."""

import json

import pytest
from PIL import Image

from bnnlight.imaging.given_boxes import given_boxes
from bnnlight.imaging.reading import upright_size

BOX = [10, 20, 30, 40]


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of 100×80 px in two folders."""
    files = []
    for name in ("a/000000000785.jpg", "b/photo.jpg"):
        file = tmp_path / name
        file.parent.mkdir()
        Image.new("RGB", (100, 80)).save(file)
        files.append(file)
    return files


def write(tmp_path, content, name="boxes.json"):
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path / name


def found(tmp_path, pictures, entries, annotations=None, **options):
    told = write(tmp_path, annotations, "val.json") if annotations else None
    return given_boxes(pictures, [str(write(tmp_path, entries))], told, **options)


def places(given):
    return [given.arrays(index).tolist() for index in range(len(given.files))]


LISTED = {
    "images": [
        {"id": 5, "file_name": "photo.jpg", "width": 100, "height": 80},
        {"id": "x", "file_name": "a/000000000785.jpg"},
    ]
}


JOINTS = ("left hip", "nose", "right hip")


@pytest.mark.parametrize(
    ("categories", "fault", "warning"),
    [
        ([{"id": 1, "keypoints": ["Left_Hip", "nose", "right-hip"]}], "", ""),
        ([{"id": 1}], "", ""),
        ("none", "", ""),
        # the boxes are of category 7
        ([{"id": 1, "keypoints": ["a"]}, {"id": 7, "keypoints": list(JOINTS)}], "", ""),
        (
            [{"id": 1, "keypoints": list(JOINTS)}, {"id": 7, "keypoints": ["a"]}],
            "has 1 joints in its category",
            "",
        ),
        ([{"id": 1, "keypoints": ["a"] * 4}], "in its category, and the model finds 3", ""),
        (
            [{"id": 7, "keypoints": ["nose", "left hip", "right hip"]}],
            "joint 0 is nose, and the model's is left",
            "",
        ),
        ([{"id": 7, "keypoints": ["left hip", "nose", "tail"]}], "", "joint 2 is tail, and the model's is right hip"),
    ],
)
def test_joints_are_compared_with_those_of_the_annotations(
    pictures, tmp_path, capsys, check_one_line, categories, fault, warning
):
    images = [{"id": 785, "file_name": pictures[0].name}]
    file = write(tmp_path, {"images": images, "categories": categories}, "val.json")
    boxes = write(tmp_path, [{"image_id": 785, "bbox": [1, 2, 3, 4], "category_id": 7}])
    given = given_boxes(pictures[:1], [str(boxes)], file)
    if fault:
        with pytest.raises(ValueError) as error:
            given.check_joints(JOINTS)
        check_one_line(error, file, fault)
    else:
        given.check_joints(JOINTS)
    err = capsys.readouterr().err
    assert (warning in err and err.count("\n") == 1) if warning else not err


def test_pictures_are_found_by_id_name_and_annotations(tmp_path, pictures):
    first, second = [1, 2, 3, 4], [5, 6, 7, 8]
    for entries, annotations in (
        ([{"image_id": 785, "bbox": first}, {"image_id": "photo", "bbox": second}], None),
        (
            [
                {"image_id": "000000000785", "bbox": first},
                {"image_id": 785.0, "bbox": BOX},
                {"file_name": "b/photo.jpg", "bbox": second},
            ],
            None,
        ),
        ([{"image_id": 5, "bbox": second}, {"image_id": "x", "bbox": first}], LISTED),
    ):
        given = found(tmp_path, pictures, entries, annotations)
        assert [boxes[0] for boxes in places(given)] == [first, second]
        assert len(places(given)[0]) == len(entries) - 1


def test_ids_of_the_answer(tmp_path, pictures):
    given = found(tmp_path, pictures, [{"image_id": 785, "bbox": BOX}])
    assert [given.id_of(0, True), given.id_of(1, True), given.id_of(1, False)] == [785, "photo", None]
    given = found(tmp_path, pictures, [{"file_name": "photo.jpg", "bbox": BOX}], LISTED)
    assert [given.id_of(0, False), given.id_of(1, True)] == ["x", 5]
    # without boxes too
    assert given_boxes(pictures).id_of(0, True) == 785
    only = write(tmp_path, {"images": LISTED["images"][:1]})
    with pytest.raises(ValueError, match=r"000000000785.jpg is not among the images of --annotations"):
        given_boxes(pictures, annotations=only).id_of(0, True)


def test_scores_and_categories_choose(tmp_path, pictures):
    entries = [
        {"image_id": 785, "bbox": [n, 0, 9, 9], "score": score, "category_id": category}
        for n, (score, category) in enumerate([(0.9, 1), (0.5, 1), (0.49, 1), (0.8, 3), (None, 1)])
    ]
    given = found(tmp_path, pictures, entries, min_score=0.5, categories="1")
    assert [box[0] for box in places(given)[0]] == [0, 1, 4]
    assert given.left_out == {"of other categories": 1, "below --min_box_score 0.5": 1}
    assert given.told(0)[0] == {"box_score": 0.9, "category_id": 1} and given.told(0)[2] == {"category_id": 1}
    assert len(places(found(tmp_path, pictures, entries, categories="all"))[0]) == 5
    assert len(places(found(tmp_path, pictures, entries, categories="3, 1"))[0]) == 5
    with pytest.raises(ValueError, match="of 2 categories, 1, 3: pass --box_category"):
        found(tmp_path, pictures, entries)
    with pytest.raises(ValueError, match="--box_category 7: the boxes are of 1, 3"):
        found(tmp_path, pictures, entries, categories="7")


def test_boxes_of_other_pictures_are_an_error_or_left_out(tmp_path, pictures):
    entries = [{"image_id": 785, "bbox": BOX}, {"image_id": 9, "bbox": BOX}, {"image_id": 8, "bbox": BOX}]
    with pytest.raises(ValueError) as error:
        found(tmp_path, pictures, entries)
    for part in ("boxes.json: entry 2 of 3 (and 1 more)", "image_id 9", "--annotations", "--on_missing_image skip"):
        assert part in str(error.value)
    given = found(tmp_path, pictures, entries, skip_others=True)
    assert given.left_out == {"of pictures that are not given": 2} and len(places(given)[0]) == 1
    # none at all is never what was meant
    with pytest.raises(ValueError, match="is not among the images"):
        found(tmp_path, pictures, entries[1:], skip_others=True)


def test_typed_boxes(pictures):
    given = given_boxes(pictures[:1], ["1,2,3,4", "-5,0,9.5,1e1"], min_score=0.9)
    assert places(given) == [[[1, 2, 3, 4], [-5, 0, 9.5, 10]]] and given.told(0) == [{}, {}]


BAD = [
    ("{", "not a JSON file"),
    ({"a": 1}, "does not hold a list of boxes"),
    ({"annotations": []}, "its annotations are one"),
    ([], "no boxes"),
    ([3], "entry 1 of 1 is not a detection: 3"),
    ([{"bbox": BOX}], "neither image_id nor file_name"),
    ([{"image_id": True, "bbox": BOX}], "image_id True names no picture"),
    ([{"file_name": 3, "bbox": BOX}], "file_name 3 names no picture"),
    ([{"image_id": 785}], "bbox is not there"),
    ([{"image_id": 785, "bbox": [1, 2, 3]}], "bbox is [1, 2, 3] where four numbers belong"),
    ([{"image_id": 785, "bbox": [1, 2, 3, "4"]}], "four numbers"),
    ([{"image_id": 785, "bbox": [1, 2, 3, 10**400]}], "four numbers"),
    ([{"image_id": 785, "bbox": BOX, "score": "high"}], "score is high"),
    ('[{"image_id": 785, "bbox": [1, 2, 3, 4], "score": NaN}]', "score is nan"),
    ([{"image_id": 785, "bbox": BOX, "category_id": [1]}], "category_id is [1]"),
    ('[{"image_id": 785, "bbox": [NaN, 2, 3, 4]}]', "entry 1 of 1: the box has a coordinate that is not a number"),
    ([{"image_id": 785, "bbox": BOX}, {"image_id": 785, "bbox": [1, 2, 0, 4]}], "entry 2 of 2: the box is 0×4 px"),
    ([{"image_id": 785, "bbox": [100, 0, 5, 5]}], "[100, 0, 5, 5] lies outside the picture of 100×80 px"),
]


@pytest.mark.parametrize(("content", "part"), BAD)
def test_bad_files_are_told_in_one_line(tmp_path, pictures, content, part, check_one_line):
    with pytest.raises(ValueError) as error:
        found(tmp_path, pictures, content).check(turn=True)
    check_one_line(error, tmp_path / "boxes.json", part)


def test_bad_annotations_and_options(tmp_path, pictures, check_one_line):
    boxes = [str(write(tmp_path, [{"image_id": 5, "bbox": BOX}]))]
    for content, part in (
        ([], "no list of images"),
        ({"images": [{"id": 1}]}, "entry 1 of its 1 images lacks an id or a file_name"),
        ({"images": [LISTED["images"][0]] * 2}, "entry 2 of its 2 images has the id 5 of an earlier one"),
    ):
        with pytest.raises(ValueError) as error:
            given_boxes(pictures, boxes, write(tmp_path, content, "val.json"))
        check_one_line(error, "val.json", part)
    other = write(tmp_path, {"images": LISTED["images"][1:]}, "val.json")
    for given, annotations, part in (
        (boxes, other, "boxes.json: entry 1 of 1: image_id 5 is not one of the 1 images of --annotations"),
        (boxes * 2, None, "--boxes is given 2 times"),
        (["1,2,3,4"], None, "--boxes 1,2,3,4 is a box in one picture, and 2 are given"),
        (["1,2,3"], None, "and 2 are given"),
    ):
        with pytest.raises(ValueError) as error:
            given_boxes(pictures, given, annotations)
        check_one_line(error, part)
    for text in ("1,2,3", "1,2,3,4,5", "a,b,c,d"):
        with pytest.raises(ValueError, match=f"--boxes {text}: neither a file nor four numbers"):
            given_boxes(pictures[:1], [text])
    for text, part in (("nan,2,3,4", "not a number"), ("1,2,3,0", "above 0"), ("100,0,9,9", "outside")):
        with pytest.raises(ValueError, match=f"--boxes {text}: the box .*{part}"):
            given_boxes(pictures[:1], [text]).check(turn=True)
    for given, annotations in ((["none.json"], None), (boxes, tmp_path / "none.json")):
        with pytest.raises(FileNotFoundError, match=r"no such file of \w+: .*none.json"):
            given_boxes(pictures, given, annotations)


def test_two_pictures_of_one_name(tmp_path, pictures):
    twin = tmp_path / "b/000000000785.jpg"
    Image.new("RGB", (100, 80)).save(twin)
    with pytest.raises(ValueError, match=r"entry 1 of 1: image_id 785 may be .*a/0+785.jpg and .*b/0+785.jpg"):
        found(tmp_path, [*pictures, twin], [{"image_id": 785, "bbox": BOX}])
    # one that is named twice is one picture
    assert len(places(found(tmp_path, [*pictures, pictures[0]], [{"image_id": 785, "bbox": BOX}]))) == 2


@pytest.mark.parametrize("day", ["day1/a.jpg", "day1\\a.jpg", "../day1/a.jpg", "./day1/a.jpg"])
def test_the_longest_name_is_a_pictures_own(tmp_path, day):
    files = [tmp_path / "q/a.jpg", tmp_path / "q/day1/a.jpg"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (100, 80)).save(file)
    listed = {"images": [{"id": 1, "file_name": day}, {"id": 2, "file_name": "a.jpg"}]}
    for images in (listed["images"], listed["images"][::-1]):
        entries = [{"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 2, "bbox": [5, 6, 7, 8]}]
        given = found(tmp_path, files, [*entries, {"file_name": "a.jpg", "bbox": BOX}], {"images": images})
        assert places(given) == [[[5, 6, 7, 8], BOX], [[1, 2, 3, 4]]]
        assert [given.id_of(0, True), given.id_of(1, True)] == [2, 1]
        assert found(tmp_path, files[1:], entries[:1], {"images": images}).id_of(0, True) == 1


def test_a_picture_with_two_ids_is_one_line(tmp_path, pictures, check_one_line):
    listed = {"images": [{"id": 1, "file_name": "photo.jpg"}, {"id": 2, "file_name": "photo.jpg"}]}
    with pytest.raises(ValueError) as caught:
        found(tmp_path, pictures, [{"image_id": 1, "bbox": BOX}], listed)
    check_one_line(caught, "b/photo.jpg", "1 and 2", "both photo.jpg", "a name of its own")
    given = found(tmp_path, pictures, [{"image_id": i, "file_name": "photo.jpg", "bbox": BOX} for i in (2, 9)])
    with pytest.raises(ValueError) as caught:
        given.id_of(1, True)
    check_one_line(caught, "entry 2 of 2", "image_id 9 here and 2")


def test_boxes_in_shares_of_the_picture_are_one_line(tmp_path, pictures, check_one_line):
    with pytest.raises(ValueError) as caught:
        found(tmp_path, pictures, [{"image_id": 785, "bbox": [0.1, 0.1, 0.5, 0.9]}])
    check_one_line(caught, "boxes.json", "shares of the picture: multiply")
    with pytest.raises(ValueError) as caught:
        given_boxes(pictures[:1], ["0.1,0.1,0.5,0.9"])
    check_one_line(caught, "--boxes 0.1,0.1,0.5,0.9", "shares of the picture: multiply")


def test_a_picture_that_is_not_given_is_told_by_its_name(tmp_path, pictures, check_one_line):
    listed = {"images": [{"id": 1, "file_name": "sub/photo.jpg"}]}
    with pytest.raises(ValueError) as caught:
        found(tmp_path, pictures, [{"image_id": 1, "bbox": BOX}], listed)
    check_one_line(caught, "image_id 1, sub/photo.jpg, is not among the images")


def test_a_picture_that_was_turned_after_it_was_annotated_is_told(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / "photo.jpg"
    Image.new("RGB", (100, 80)).save(file, exif=exif)
    assert upright_size(file) == (80, 100) and upright_size(file, turn=False) == (100, 80)
    given = found(tmp_path, [file], [{"image_id": 5, "bbox": BOX}], LISTED)
    given.check(turn=True)
    line = capsys.readouterr().err
    assert "photo.jpg has 80×100 px, but by --annotations 100×80" in line and "--as_stored" in line
    given.check(turn=False)
    assert capsys.readouterr().err == ""
