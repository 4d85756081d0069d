"""What a shipped model says of itself, and what of a stranger's manifest is refused."""

import json
from importlib import import_module

import pytest

from bnnlight.backbones import StackedHourglass
from bnnlight.deploy import Runtime
from bnnlight.deploy.card import Facts, write_card
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.manifest import FORMAT, Manifest, PictureInput, read_seal
from bnnlight.deploy.seal import EMPTY, PREFIX
from bnnlight.imaging.skeletons import LSP, MPII, Skeleton

CLASSES = Manifest(
    *("classification", "networks.Small", PictureInput(1, 8, (0.5,), (0.25,), 9), ("ant", "bee", "ζῷον")),
    metrics={"test/acc1": 0.75, "epochs": 3},
    origin={"commit": "0123abcd", "command": "bnnlight fit\n\t--config x"},
)
POSE = Manifest(
    *("pose", "networks.Hourglass", PictureInput(3, 64, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)), (), MPII),
    sigmoid=True,
    flip_test=True,
)


@pytest.mark.parametrize("manifest", [CLASSES, POSE], ids=["classification", "pose"])
def test_a_manifest_read_back_is_the_same(manifest):
    text = manifest.to_json()
    assert text.isascii() and "\n" not in text
    assert Manifest.from_json(text) == (manifest, PREFIX + EMPTY)
    assert read_seal(text) == PREFIX + EMPTY


def changed(manifest, path, value):
    record = json.loads(manifest.to_json())
    parent = record
    for key in path[:-1]:
        parent = parent[key]
    if value is KeyError:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return json.dumps(record)


REFUSED = [
    (CLASSES, ("format",), FORMAT + 1, "its format is 2, but this version of bnnlight reads 1"),
    (CLASSES, ("format",), True, "its format is True"),
    (CLASSES, ("format",), 1.0, "its format is 1.0"),
    (CLASSES, ("format",), KeyError, "its format is None"),
    (CLASSES, ("seal",), None, "seal"),
    (CLASSES, ("seal",), ["sha256"], "seal"),
    (CLASSES, ("task",), "segmentation", "no task"),
    (CLASSES, ("task",), {}, "task"),
    (CLASSES, ("task",), "pose", "a pose model has a skeleton"),
    (POSE, ("task",), "classification", "a pose model has a skeleton"),
    (POSE, ("skeleton",), None, "a pose model has a skeleton"),
    (CLASSES, ("network",), "a\nb", "not a single line of text"),
    (CLASSES, ("extra",), 1, "unknown entry 'extra'"),
    (CLASSES, ("input", "extra"), 1, "unknown entry 'extra'"),
    (POSE, ("skeleton", "extra"), 1, "unknown entry 'extra'"),
    (CLASSES, ("input",), [1, 2], "input is of the wrong kind"),
    (CLASSES, ("input", "channels"), 2, "1 or 3 channels"),
    (CLASSES, ("input", "channels"), True, "channels"),
    (CLASSES, ("input", "size_px"), 0, "size_px"),
    (CLASSES, ("input", "size_px"), 8.0, "size_px"),
    (CLASSES, ("input", "size_px"), 10**18, "size_px"),
    (CLASSES, ("input", "size_px"), KeyError, "lacks 'size_px'"),
    (CLASSES, ("input", "resize_px"), -1, "resize_px"),
    (CLASSES, ("input", "mean"), [0.5, 0.5], "mean"),
    (CLASSES, ("input", "mean"), ["0.5"], "mean"),
    (CLASSES, ("input", "mean"), [float("nan")], "not valid JSON"),
    (CLASSES, ("input", "std"), [], "std"),
    (CLASSES, ("input", "std"), [0], "std"),
    (CLASSES, ("input", "std"), [1e-320], "std"),
    (CLASSES, ("input", "std"), [1e300], "std"),
    (CLASSES, ("input", "std"), [[0.5]], "std"),
    (CLASSES, ("classes",), "ant", "classes"),
    (CLASSES, ("classes", 1), 5, "classes"),
    (CLASSES, ("classes", 1), "\x1b[31m", "not a single line of text"),
    (CLASSES, ("classes", 1), "\ud800", "not a single line of text"),
    (CLASSES, ("sigmoid",), 1, "sigmoid"),
    (CLASSES, ("flip_test",), None, "flip_test"),
    (CLASSES, ("metrics", "x"), float("inf"), "not valid JSON"),
    (CLASSES, ("metrics", "x"), 10**19 * 10**300, "not valid JSON"),
    (CLASSES, ("metrics", "x"), True, "'x' is not a number"),
    (CLASSES, ("metrics", "x\n"), None, "not a single line of text"),
    (CLASSES, ("origin", "x"), 3, "'x' is not text"),
    (CLASSES, ("origin", "x"), "\ud800", "'x' is not text"),
    (POSE, ("input", "box_padding"), 0, "box_padding must be above 0"),
    (POSE, ("input", "box_padding"), "1.25", "not a number"),
    (POSE, ("skeleton",), {}, "lacks 'joints'"),
    (POSE, ("skeleton", "joints", 0), "left nose", "not symmetric"),
    (POSE, ("skeleton", "joints", 6), "thorax", "or one twice"),
    (POSE, ("skeleton", "joints"), [f"joint {n}" for n in range(5000)], "more than 1024 joints"),
    (POSE, ("skeleton", "limbs", 0), [0, 16], "not there"),
    (POSE, ("skeleton", "limbs", 0), [0, -1], "not there"),
    (POSE, ("skeleton", "limbs", 0), [0, True], "not there"),
    (POSE, ("skeleton", "limbs", 0), [0, 1, 2], "not there"),
    (POSE, ("skeleton", "limbs", 0), [[0], [1]], "not there"),
    (POSE, ("skeleton", "torso"), [13], "not there"),
    (POSE, ("skeleton", "excluded"), {"6": 7}, "excluded"),
    (POSE, ("skeleton", "sigmas"), [0.1] * 15, "sigmas that do not fit"),
    (POSE, ("skeleton", "sigmas"), [0.0] * 16, "sigmas that do not fit"),
    (POSE, ("skeleton", "flip_pairs"), [[0, 5], [5, 1]], "two flip_pairs"),
    (POSE, ("skeleton", "flip_pairs"), [[0, 16]], "not there"),
    (POSE, ("skeleton", "flip_pairs"), [[0, 1, 2]], "not there"),
]


@pytest.mark.parametrize(("manifest", "path", "value", "part"), REFUSED)
def test_a_wrong_entry_is_refused(manifest, path, value, part, check_one_line):
    with pytest.raises(ValueError) as error:
        Manifest.from_json(changed(manifest, path, value))
    check_one_line(error, part)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not valid JSON"),
        ("[]", "wrong kind"),
        ("null", "wrong kind"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("9" * 100_000, "a number of 100000 digits"),
        ('{"format": 1, "format": 1}', "'format' appears twice"),
        (CLASSES.to_json()[:-1], "not valid JSON"),
    ],
    ids=["nothing", "list", "null", "deep list", "deep object", "long number", "twice", "cut off"],
)
def test_what_is_no_manifest_is_refused(text, part, check_one_line):
    for read in (Manifest.from_json, read_seal):
        with pytest.raises(ValueError) as error:
            read(text)
        check_one_line(error, part)


def test_another_version_is_named_before_anything_else():
    with pytest.raises(ValueError, match="its format is 7"):
        read_seal('{"format": 7, "seal": 3, "all": "else"}')


FITS = [
    (CLASSES, (1, 8, 8), (3,), None),
    (CLASSES, (1, 8, 8), (4,), "3 classes"),
    (CLASSES, (1, 8, 8), (3, 1, 1), "3 classes"),
    (CLASSES, (1, 8, 9), (3,), "pictures of shape (1, 8, 8)"),
    (CLASSES, (3, 8, 8), (3,), "pictures of shape (1, 8, 8)"),
    (POSE, (3, 64, 64), (1, 16, 16, 16), None),
    (POSE, (3, 64, 64), (16, 8, 8), None),
    (POSE, (3, 64, 64), (16, 14, 8, 8), "16 joints"),
    (POSE, (3, 64, 64), (16,), "16 joints"),
]


@pytest.mark.parametrize(("manifest", "input_shape", "output_shape", "part"), FITS)
def test_a_manifest_must_be_of_the_network(manifest, input_shape, output_shape, part, check_one_line):
    if part is None:
        assert manifest.check_fits(input_shape, output_shape) is None
        return
    with pytest.raises(ValueError) as error:
        manifest.check_fits(input_shape, output_shape)
    check_one_line(error, part)


def test_a_model_without_class_names_fits_any_number_of_them():
    nameless = Manifest("classification", "x", CLASSES.input)
    assert nameless.check_fits((1, 8, 8), (1000,)) is None


def test_all_skeletons_are_accepted():
    own = Skeleton(("L_Eye", "R_Eye", "nose"), ((0, 2),), (), sigmas=(0.1, 0.2, 0.3), flip_pairs=((0, 1),))
    for skeleton in (MPII, LSP, own, Skeleton(("left eye",), (), (), flip_pairs=())):
        manifest = Manifest("pose", "x", POSE.input, (), skeleton)
        assert Manifest.from_json(manifest.to_json())[0].skeleton == skeleton
    # files that were written before there were any
    record = json.loads(manifest.to_json())
    record["skeleton"] = {name: record["skeleton"][name] for name in ("joints", "limbs", "excluded")} | {"torso": []}
    record["skeleton"]["joints"] = ["tail"]
    del record["input"]["box_padding"]
    manifest, _ = Manifest.from_json(json.dumps(record))
    assert manifest.skeleton == Skeleton(("tail",), (), ()) and manifest.input.box_padding is None


@pytest.mark.parametrize("form", ["packed", "openvino", "onnx", "lce"])
def test_any_skeleton_is_kept_by_every_format(form, tmp_path):
    names = ('l\'œil <b> & "1"', "左目", "R_Eye|*", "a\\b", *(f"keypoint_{number}" for number in range(290)))
    pairs, sigmas = ((0, 2), (5, 293)), tuple(0.01 + 0.001 * number for number in range(294))
    skeleton = Skeleton(names, ((0, 1), (1, 293)), (), (), sigmas, pairs)
    told = PictureInput(3, 16, (0.5,) * 3, (0.2,) * 3, box_padding=1.3)
    manifest = Manifest("pose", "StackedHourglass", told, (), skeleton)
    program = freeze(StackedHourglass(features=16, depth=1, num_joints=294).eval(), (3, 16, 16))
    module = import_module(f"bnnlight.deploy.formats.{form}")
    file = getattr(module, f"save_{form}")(program, manifest, tmp_path)
    assert (module.read_lce(file) if form == "lce" else Runtime(file).manifest) == manifest
    card = write_card(tmp_path, manifest, Facts(8, 1, {file.name: 7})).read_text()
    assert "294 joints" in card and "左目" in card and "R_Eye\\|\\*" in card and "keypoint_25 and 264 more" in card
    assert "1.3 × its longer side" in card or form == "lce"
