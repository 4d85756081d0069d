import json
import math

import numpy as np
import pytest
import scipy.io
from PIL import Image

from bnnlight.data import MPIIDataModule
from bnnlight.data.keypoints.mpii_release import read_release

NOTHING = np.zeros((0, 0))
FILE = "mpii_human_pose_v1_u12_1.mat"


def structs(*rows):
    """A struct array of MATLAB: all elements have all fields, and one that is not set is an empty array."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    array = np.empty((1, len(rows)), [(name, "O") for name in names])
    for i, row in enumerate(rows):
        for name in names:
            array[0, i][name] = row.get(name, NOTHING)
    return array


def point(joint, x, y, **more):
    return {"x": float(x), "y": float(y), "id": joint, **more}


def person(*points, x=80, scale=0.42, **more):
    head = {"x1": 10, "y1": 20, "x2": 22, "y2": 36}
    place = {"scale": scale, "objpos": structs({"x": x, "y": 55})}
    points = points or [point(joint, 20 + 3 * joint, 30 + 2 * joint, is_visible=1) for joint in range(16)]
    return {**head, **place, "annopoints": structs({"point": structs(*points)}), **more}


def picture(name, *people, **more):
    rectangles = {"annorect": structs(*people)} if people else {}
    return {"image": structs({"name": name}), "vidx": 1, **rectangles, **more}


@pytest.fixture
def write_release(tmp_path):
    """Write a .mat as published, and a picture of 160×120 px for each of its names; return its path."""

    def write(pictures, is_train=None):
        (tmp_path / "images").mkdir(exist_ok=True)
        is_train = [1] * len(pictures) if is_train is None else is_train
        for each in pictures:
            Image.new("RGB", (160, 120)).save(tmp_path / "images" / each["image"][0, 0]["name"])
        release = {"annolist": structs(*pictures), "img_train": np.array([is_train]), "version": "12"}
        scipy.io.savemat(tmp_path / FILE, {"RELEASE": release})
        return tmp_path / FILE

    return write


def module(file, **options):
    options = {"train_annotations": FILE, "image_size": 64, "num_workers": 0, **options}
    return MPIIDataModule(str(file.parent), **options)


def ready(file, **options):
    data = module(file, **options)
    data.prepare_data()
    data.setup()
    return data


def test_a_person_by_hand(write_release):
    people = read_release(write_release([picture("a.jpg", person(x=81)), picture("b.jpg", person())]), "")
    assert people.images.tolist() == ["a.jpg", "b.jpg"]
    # counted from 1 in the file: (81 - 1, 55 - 1 + 15 · 0.42), 0.42 · 200 · 1.25
    assert people.center[0].tolist() == pytest.approx([80, 60.3])
    assert people.side_px[0] == pytest.approx(105)
    assert people.joints[0].tolist() == [[19 + 3 * joint, 29 + 2 * joint] for joint in range(16)]
    assert people.annotated.all()
    assert people.head_px.tolist() == pytest.approx([0.6 * math.hypot(12, 16)] * 2)


@pytest.mark.parametrize("visible", [0, 1, "0", "1", "", NOTHING, None])
def test_occluded_joints_count(write_release, visible):
    more = {} if visible is None else {"is_visible": visible}
    points = [point(9, 30, 31), point(15, 40, 41, **more)]
    people = read_release(write_release([picture("a.jpg", person(*points))]), "")
    assert np.flatnonzero(people.annotated[0]).tolist() == [9, 15]
    assert people.joints[0, 15].tolist() == [39, 40]
    assert people.joints[0, 9].tolist() == [29, 30]
    assert (people.joints[0, :9] == 0).all()


def test_single_structures_and_integers(write_release):
    # one picture, one person, one point: MATLAB's arrays of one shrink to no array at all
    objpos = structs({"x": np.uint16(81), "y": np.uint16(55)})
    alone = person(point(np.uint8(3), 200, 7), scale=np.float32(0.5), objpos=objpos)
    people = read_release(write_release([picture("a.jpg", alone)]), "")
    assert (len(people), people.num_entries) == (1, 1)
    assert people.joints[0, 3].tolist() == [199, 6]
    assert people.annotated[0].sum() == 1
    assert people.center[0].tolist() == [80, 54 + 7.5]
    assert people.joints.dtype == people.center.dtype == np.float32


def test_who_lacks_something_is_left_out(write_release, told):
    complete = person(x=99)
    file = write_release(
        [
            picture("a.jpg", person(scale=NOTHING), person(annopoints=NOTHING), complete),
            picture("b.jpg"),
            picture("c.jpg", annorect=NOTHING),
            picture("d.jpg", {"x1": 1, "y1": 1, "x2": 5, "y2": 5}),
            picture("e.jpg", person(objpos=NOTHING), person(scale=0), person(scale=float("nan"))),
            picture("f.jpg", person(annopoints=structs({"point": NOTHING})), complete, complete),
        ]
    )
    people = read_release(file, "")
    assert people.images.tolist() == ["a.jpg", "f.jpg", "f.jpg"]
    assert people.numbers.tolist() == [1, 6, 6]
    assert people.center[:, 0].tolist() == [98, 98, 98]
    assert f"{file}: 3 people in 2 training pictures; 7 others have no scale" in " ".join(told)


def test_people_without_a_head_box(write_release):
    nobody = {"x1": NOTHING, "y1": NOTHING, "x2": NOTHING, "y2": NOTHING}
    people = read_release(write_release([picture("a.jpg", person(**nobody), person(x2=10, y2=20), person())]), "")
    assert np.isnan(people.head_px).tolist() == [True, True, False]


def test_only_training_pictures_are_used(write_release):
    pictures = [picture(f"{i}.jpg", person(), person()) for i in range(5)]
    people = read_release(write_release(pictures, is_train=[0, 1, 0, 0, 1]), "")
    assert people.images.tolist() == ["1.jpg", "1.jpg", "4.jpg", "4.jpg"]
    assert people.where(3).endswith(f"{FILE}: entry 5 of 5 (4.jpg)")


def crowd(number=20):
    """Pictures with one, two or three people, everyone with a place of their own."""
    return [picture(f"{i:02}.jpg", *(person(x=30 + i + 20 * j) for j in range(1 + i % 3))) for i in range(number)]


def names_of(view):
    return view.items.people.images.tolist()


@pytest.mark.parametrize(("val_size", "num_pictures"), [(0.1, 2), (0.25, 5), (7, 7)])
def test_pictures_are_held_out_whole(write_release, val_size, num_pictures):
    data = ready(write_release(crowd()), val_size=val_size)
    val, train = names_of(data.val_set), names_of(data.train_set)
    assert len(set(val)) == num_pictures
    assert not set(val) & set(train)
    assert len(val) + len(train) == sum(1 + i % 3 for i in range(20))
    assert data.test_set is data.val_set
    assert data.val_set[0]["head_px"].item() == data.train_set[0]["head_px"].item() == pytest.approx(12)


def test_held_out_choice_follows_split_seed_alone(write_release):
    file = write_release(crowd())
    chosen = []
    for run_seed in (1, 2):
        np.random.seed(run_seed)
        chosen.append(names_of(ready(file, val_size=5).val_set))
    assert chosen[0] == chosen[1] != names_of(ready(file, val_size=5, split_seed=1).val_set)


def write_list(root, name, entries):
    """A JSON list with chosen people of `crowd`: pairs of picture and who in it."""
    people = []
    for i, j in entries:
        joints = [[20.0 + 3 * joint, 30.0 + 2 * joint] for joint in range(16)]
        place = {"image": f"{i:02}.jpg", "center": [30.0 + i + 20 * j, 55.0], "scale": 0.42}
        people.append({**place, "joints": joints, "joints_vis": [1] * 16})
    (root / "annot").mkdir(exist_ok=True)
    (root / "annot" / name).write_text(json.dumps(people))


def test_pictures_of_a_validation_list_are_not_trained_on(write_release, told):
    file = write_release(crowd())
    # of picture 2 with its three people only one is on the list
    write_list(file.parent, "valid.json", [(2, 0), (4, 1)])
    data = ready(file)
    assert names_of(data.val_set) == ["02.jpg", "04.jpg"]
    assert sorted(set(names_of(data.train_set))) == [f"{i:02}.jpg" for i in range(20) if i not in (2, 4)]
    # head boxes of the .mat, since there is no gt_valid.mat
    assert data.val_set[1]["head_px"].item() == pytest.approx(12)
    assert f"5 people in 2 pictures held out, those in {file.parent / 'annot' / 'valid.json'}" in " ".join(told)
    assert ready(file, head_boxes=None).val_set[0]["head_px"].isnan()


def test_with_the_file_as_validation_list(write_release):
    file = write_release(crowd())
    write_list(file.parent, "train.json", [(i, 0) for i in range(17)])
    data = ready(file, train_annotations="annot/train.json", val_annotations=FILE)
    assert len(data.train_set) == 17
    assert sorted(set(names_of(data.val_set))) == ["17.jpg", "18.jpg", "19.jpg"]
    assert data.val_set[0]["head_px"].item() == pytest.approx(12)


def test_named_twice_it_is_split(write_release):
    data = ready(write_release(crowd()), val_annotations=FILE)
    assert len(set(names_of(data.val_set))) == 2


def test_the_file_is_read_once(write_release, monkeypatch):
    calls = []
    loadmat = scipy.io.loadmat
    monkeypatch.setattr(scipy.io, "loadmat", lambda *args, **options: calls.append(args) or loadmat(*args, **options))
    ready(write_release(crowd()))
    assert len(calls) == 1


def test_lists_that_do_not_fit(write_release, check_one_line):
    file = write_release(crowd(3))
    annot = file.parent / "annot"
    with pytest.raises(FileNotFoundError) as error:
        module(file, val_annotations="annot/vaild.json").setup()
    check_one_line(error, annot / "vaild.json", "--data.val_annotations")
    with pytest.raises(ValueError) as error:
        module(file, val_annotations="other.mat").setup()
    check_one_line(error, file, "other.mat", "give the same one")
    write_list(file.parent, "valid.json", [(0, 0), (1, 0), (2, 0)])
    with pytest.raises(ValueError) as error:
        module(file).setup()
    check_one_line(error, file, "of 6 people, 6 are in validation pictures", "leaves one side empty")
    write_list(file.parent, "valid.json", [(1, 0)])
    text = (annot / "valid.json").read_text()
    (annot / "valid.json").write_text(text.replace("20.0", "21.0"))
    with pytest.raises(ValueError) as error:
        module(file).setup()
    check_one_line(error, "valid.json: entry 1 of 1 (01.jpg)", file, "--data.head_boxes null")
    (annot / "valid.json").unlink()
    for val_size, number in ((3, 3), (0.01, 0)):
        with pytest.raises(ValueError) as error:
            module(file, val_size=val_size).setup()
        check_one_line(error, file, f"val_size {val_size} asks for {number} of 3", "from 1 to 2")


def test_files_of_another_kind(write_release, check_one_line):
    file = write_release(crowd(3))

    def fails(error_type, *parts):
        with pytest.raises(error_type) as error:
            module(file).setup()
        check_one_line(error, file, FILE, "--data.train_annotations", *parts)

    scipy.io.savemat(file, {"pos_gt_src": np.zeros((16, 2, 3))})
    fails(ValueError, "lacks RELEASE", "it holds pos_gt_src")
    scipy.io.savemat(file, {"RELEASE": {"img_train": [1]}})
    fails(ValueError, "RELEASE lacks annolist")
    scipy.io.savemat(file, {"RELEASE": 5})
    fails(ValueError, "RELEASE lacks annolist, img_train")
    write_release(crowd(3), is_train=[0, 0, 0])
    fails(ValueError, "no training pictures with people")
    write_release(crowd(3), is_train=[1, 1])
    fails(ValueError, "3 pictures and 2 img_train")
    write_release([picture("a.jpg", person(point(16, 5, 5)))])
    fails(ValueError, "entry 1 of 1 (a.jpg)", "the id 16.0, where 0 to 15 belong")
    write_release([picture("a.jpg", person(point(4, float("inf"), 5)))])
    with pytest.raises(ValueError) as error:
        module(file).setup()
    check_one_line(error, f"{file}: entry 1 of 1 (a.jpg)", "left knee is at (inf, 4.0)")
    file.write_bytes(file.read_bytes()[:300])
    fails(ValueError, "cannot be read as a MATLAB file")
    file.unlink()
    fails(FileNotFoundError, "looked for")


def test_missing_pictures_are_named(write_release, check_one_line):
    file = write_release(crowd())
    (file.parent / "images" / "05.jpg").unlink()
    with pytest.raises(FileNotFoundError) as error:
        module(file).setup()
    check_one_line(error, f"{file}: entry 6 of 20 (05.jpg)", file.parent / "images")
