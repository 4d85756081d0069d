"""The data module of COCO's form: real sets against counts by hand, and against the modules of LSP and MPII."""

import json

import numpy as np
import pytest
import torch
from fixtures.coco_files import coco_content, module, ready, write_coco
from jsonargparse import ArgumentParser
from lightning import LightningDataModule

from bnnlight.data import COCOKeypointsDataModule, LSPDataModule, MPIIDataModule
from bnnlight.imaging.skeletons import LSP, MPII

SETS = {
    "aflw": "test_aflw.json",
    "aic": "test_aic.json",
    "animalpose": "test_animalpose.json",
    "atrw": "test_atrw.json",
    "coco": "test_coco.json",
    "cofw": "test_cofw.json",
    "deepfasion2": "deepfasion2.json",
    "horse10": "test_horse10.json",
    "macaque": "test_macaque.json",
    "onehand10k": "test_onehand10k.json",
    "zebra": "test_zebra.json",
}


@pytest.mark.parametrize("name", SETS)
def test_real_sets_against_a_count_by_hand(real_data, told, check_samples, name):
    root = real_data("keypoints") / name
    content = json.loads((root / SETS[name]).read_text())
    people, joints, pictures, empty, crowds = [], 0, set(), 0, 0
    for entry in content["annotations"]:
        number = sum(flag > 0 for flag in entry["keypoints"][2::3])
        if entry.get("iscrowd"):
            crowds += 1
        elif not number:
            empty += 1
        else:
            people.append(entry)
            joints += number
            pictures.add(entry["image_id"])
    data = ready(root, name=SETS[name], image_size=96)
    found = data.val_set.items.people
    assert (len(found), int(found.annotated.sum())) == (len(people), joints)
    left_out = ", ".join(f"{n} {what}" for n, what in ((empty, "without keypoints"), (crowds, "crowd")) if n)
    line = f"{root / SETS[name]}: {len(people)} people in {len(pictures)} pictures"
    of_sides = [message for message in told if "is left or right by its name" in message]
    assert bool(of_sides) == (name in ("horse10", "onehand10k"))
    assert [message for message in told if message not in of_sides] == [
        f"{line}; left out: {left_out}" if left_out else line
    ]
    assert found.ids.tolist() == [entry["id"] for entry in people]
    for index, entry in enumerate(people):
        table = np.array(entry["keypoints"], float).reshape(-1, 3)
        seen = table[:, 2] > 0
        np.testing.assert_allclose(found.joints[index][seen], table[seen, :2], rtol=1e-6)
        x, y, width, height = entry["bbox"]
        np.testing.assert_allclose(found.center[index], (x + width / 2, y + height / 2), rtol=1e-6)
        np.testing.assert_allclose(found.side_px[index], 1.25 * max(width, height), rtol=1e-6)
    torch.manual_seed(0)
    check_samples([*data.train_set, *data.val_set])
    assert len(data.skeleton.limbs) == len(content["categories"][0].get("skeleton") or [])


def test_real_sides_and_limbs(real_data):
    def skeleton(name):
        return module(real_data("keypoints") / name, SETS[name]).skeleton

    def named(made, pairs):
        return {frozenset(made.joints[index] for index in pair) for pair in pairs}

    # from 1, as most; the tiger's from 0
    assert frozenset(("left_ankle", "left_knee")) in named(skeleton("coco"), skeleton("coco").limbs)
    tiger = skeleton("atrw")
    assert {frozenset(("left_ear", "nose")), frozenset(("center", "tail"))} <= named(tiger, tiger.limbs)
    assert len(tiger.flip_pairs) == 6
    zebra = skeleton("zebra")
    assert named(zebra, zebra.flip_pairs) == {
        frozenset(("forelegL1", "forelegR1")),
        frozenset(("hindlegL1", "hindlegR1")),
    }
    assert [len(skeleton(name).flip_pairs) for name in ("coco", "aic", "animalpose", "onehand10k")] == [8, 6, 8, 0]


def as_coco(people, skeleton, name, boxes):
    """COCO's form of people that another module has read, in pixels from the corner, with boxes if there are any."""
    names = sorted(set(people.images.tolist()))
    annotations = []
    for index in range(len(people)):
        flags = np.where(people.annotated[index], 2, 0)[:, None]
        points = np.hstack((people.joints[index].astype(float) + 0.5, flags))
        entry = {"id": index, "image_id": names.index(people.images[index]), "keypoints": points.ravel().tolist()}
        annotations.append({**entry, "category_id": 1, **({"bbox": boxes[index]} if boxes else {})})
    category = {"id": 1, "name": name, "keypoints": list(skeleton.joints)}
    images = [{"id": number, "file_name": file} for number, file in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": [category]}


def check_same(ours, others):
    """Check that all samples are the same, augmentation included."""
    assert len(ours) == len(others) > 0
    for one, other in zip(ours, others, strict=True):
        for key, atol in (("joints", 1e-4), ("truth", 1e-4), ("to_image", 1e-5), ("torso_px", 1e-3)):
            torch.testing.assert_close(one[key], other[key], atol=atol, rtol=0, equal_nan=True)
        assert torch.equal(one["weight"], other["weight"])
        assert torch.equal(one["annotated"], other["annotated"])
        # a colour may round the other way, where the warp's numbers differ in the seventh place
        assert (one["image"] - other["image"]).abs().max() < 0.2
        assert (one["image"] - other["image"]).abs().mean() < 1e-4


@pytest.mark.parametrize("kind", ["drawn", "real"])
def test_lsp_as_coco_gives_what_the_lsp_module_gives(request, tmp_path, kind):
    if kind == "real":
        lsp = request.getfixturevalue("real_data")("lsp")
    else:
        lsp, _ = request.getfixturevalue("write_lsp")()
    options = {"image_size": 96, "batch_size": 8, "num_workers": 0}
    theirs = LSPDataModule(str(lsp), None, "lsp", val_size=0.5, **options)
    theirs.setup()
    train, val = (view.items.datasets[0].people.take(view.indices) for view in (theirs.train_set, theirs.val_set))
    test = theirs.test_set.items.people
    for name, people in (("train", train), ("val", val), ("test", test)):
        (tmp_path / f"{name}.json").write_text(json.dumps(as_coco(people, LSP, "athlete", None)))
    files = {f"{name}_annotations": str(tmp_path / f"{name}.json") for name in ("train", "val", "test")}
    ours = COCOKeypointsDataModule(str(lsp), images="images", **files, box_padding=1.5, origin=0.5, **options)
    ours.setup()
    assert ours.skeleton.mirrored == LSP.mirrored
    assert ours.skeleton.torso == LSP.torso
    for name in ("train_set", "val_set", "test_set"):
        view, other = getattr(ours, name), getattr(theirs, name)
        assert len(view) == len(other)
        for index in range(0, len(view), 1 if kind == "drawn" else 60):
            assert view.items.file(index).name == file_name(other, index)
        np.testing.assert_allclose(
            view.items.people.joints, {"train_set": train, "val_set": val, "test_set": test}[name].joints, atol=1e-4
        )
        # to the last bit, without which two trainings part after some hundred steps
        for key in ("joints", "center", "side_px"):
            people = {"train_set": train, "val_set": val, "test_set": test}[name]
            assert np.array_equal(getattr(view.items.people, key), getattr(people, key))
    # batch for batch: order and augmentation follow from seed and index
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        pairs = zip(getattr(ours, loader)(), getattr(theirs, loader)(), strict=True)
        pairs = [pair for _, pair in zip(range(2), pairs, strict=False)]
        check_same([one for one, _ in pairs], [other for _, other in pairs])


def file_name(view, index):
    items = view.items
    return (items.datasets[0] if hasattr(items, "datasets") else items).file(view.indices[index]).name


def test_mpii_as_coco_gives_what_the_mpii_module_gives(real_data, tmp_path):
    root, options = real_data("mpii_val"), {"image_size": 128, "batch_size": 5, "num_workers": 0}
    theirs = MPIIDataModule(str(root), "annot/sample5.json", "annot/sample5.json", **options)
    theirs.setup()
    people = theirs.val_set.items.people
    corners = people.center + 0.5 - people.side_px[:, None] / 2
    boxes = [
        [*map(float, corner), float(side), float(side)] for corner, side in zip(corners, people.side_px, strict=True)
    ]
    (tmp_path / "five.json").write_text(json.dumps(as_coco(people, MPII, "person", boxes)))
    name = str(tmp_path / "five.json")
    ours = COCOKeypointsDataModule(str(root), name, name, "images", box_padding=1, origin=0.5, **options)
    ours.setup()
    for loader in ("train_dataloader", "val_dataloader"):
        check_same([*getattr(ours, loader)()], [*getattr(theirs, loader)()])


def test_files_of_a_stage_and_folders_of_pictures(tmp_path, check_one_line):
    for split in ("train", "val"):
        content = coco_content()
        for image in content["images"]:
            image["file_name"] = f"{split}{image['file_name']}"
        write_coco(tmp_path / split, content)
    files = {"train_annotations": "train/people.json", "val_annotations": "val/people.json"}
    data = ready(tmp_path, images=["train", "val"], **files)
    assert data.train_set.items.file(0) == tmp_path / "train/train0.jpg"
    assert data.val_set.items.file(1) == tmp_path / "val/val1.jpg"
    assert data.test_set is data.val_set
    # to measure a network, nobody needs the training file
    (tmp_path / "train/people.json").unlink()
    data = ready(tmp_path, "validate", images="val", **files)
    assert data.train_set is None
    assert len(data.val_set) == 4
    with pytest.raises(FileNotFoundError) as error:
        ready(tmp_path, "fit", images="val", **files)
    check_one_line(error, tmp_path / "train/people.json", "--data.train_annotations")
    (tmp_path / "train/val0.jpg").write_bytes((tmp_path / "val/val0.jpg").read_bytes())
    with pytest.raises(ValueError) as error:
        ready(tmp_path, "validate", images=["train", "val"], **files)
    check_one_line(error, "val0.jpg is train/val0.jpg and val/val0.jpg", "before its name")


def test_samples_have_what_measures_go_by(tmp_path):
    content = coco_content(2)
    del content["annotations"][1]["area"]
    batch = next(iter(ready(write_coco(tmp_path, content)).val_dataloader()))
    assert batch["box_px"].tolist() == [100, 100]
    assert batch["area"][0] == np.float32(4000.5)
    assert batch["area"][1].isnan()
    assert batch["head_px"].isnan().all()
    assert batch["torso_px"].isnan().all()


def test_options_as_they_are_typed(tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    files = [f"--data.{name}_annotations=people.json" for name in ("train", "val")]
    root = write_coco(tmp_path)

    def build(*options):
        options = ["--data=bnnlight.data.COCOKeypointsDataModule", f"--data.root={root}", *files, *options]
        return parser.instantiate(parser.parse_args(options)).data

    data = build("--data.flip_pairs=[[left_eye, right_eye], [3, 4]]", "--data.limbs_from=1", "--data.category=1")
    assert data.skeleton.flip_pairs == ((1, 2), (3, 4))
    assert data.images == "."
    assert build("--data.images=[a, b]").images == ["a", "b"]
    assert build("--data.images=a").images == "a"
    assert build("--data.sigmas=[0.1, 0.1, 0.1, 0.1, 0.1]", "--data.visible=[1, 2]").skeleton.sigmas == (0.1,) * 5
    # names that are numbers are told from indices by their quotes
    assert build('--data.flip_pairs=[["1", 2]]').skeleton_options["flip_pairs"] == [["1", 2]]
