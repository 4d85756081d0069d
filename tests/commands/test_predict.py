"""Pictures and JSON for image files and folders."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits


@pytest.fixture
def digit_files(tmp_path):
    """Six digits as PNG files, two of them with one name in two folders."""
    images = load_digits().images
    files = []
    for index in range(6):
        folder = tmp_path / "images" / ("a" if index < 3 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        files.append(folder / f"{index % 3}.png")
        Image.fromarray((images[index] * 15.9).astype(np.uint8)).save(files[-1])
    return files


def test_folder_and_file(bnnlight, digits_run, digit_files, tmp_path):
    run_dir, _ = digits_run
    single = tmp_path / "single.png"
    Image.open(digit_files[0]).resize((20, 30)).convert("RGBA").save(single)
    code, _, err = bnnlight(
        *("predict", tmp_path / "images", single, "--ckpt_path", run_dir / "checkpoints/best.ckpt"),
        *("--output", tmp_path / "out", "--top", 3, "--batch_size", 4),
    )
    assert code == 0, err
    record = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    assert [entry["image"] for entry in record] == [*map(str, digit_files), str(single)]
    # every image has a picture of its own, also where file names are the same
    assert len({entry["picture"] for entry in record}) == 7
    for entry in record:
        probabilities = [c["probability"] for c in entry["classes"]]
        assert len(probabilities) == 3
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1 + 1e-6
        assert {c["class"] for c in entry["classes"]} <= set("0123456789")
        assert Image.open(tmp_path / "out" / entry["picture"]).width == 480


def test_probabilities_are_those_of_the_network(bnnlight, digits_run, digit_files, tmp_path):
    import torch

    from bnnlight.experiment.trained.predictor import load_run

    run_dir, _ = digits_run
    checkpoint = run_dir / "checkpoints/best.ckpt"
    code, _, err = bnnlight("predict", digit_files[4], "--ckpt_path", checkpoint, "--top", 1)
    assert code == 0, err
    (entry,) = json.loads((tmp_path / "predictions/predictions.json").read_text())["images"]
    task, _ = load_run(checkpoint, None)
    pixels = torch.from_numpy(np.asarray(Image.open(digit_files[4]), dtype=np.float32))
    # normalized by hand, with the mean and spread that the data module states for digits in 0..255
    from bnnlight.data import DigitsDataModule

    expected = DigitsDataModule().eval_transform(Image.fromarray(pixels.byte().numpy()))
    with torch.no_grad():
        logits = task.eval().backbone(expected[None]).double()[0]
    probabilities = logits.exp() / logits.exp().sum()
    assert entry["classes"][0]["class"] == str(int(probabilities.argmax()))
    assert entry["classes"][0]["probability"] == pytest.approx(float(probabilities.max()), rel=1e-4)


@pytest.mark.parametrize("what", ["missing", "empty", "damaged"])
def test_bad_images_are_named(bnnlight_error, digits_run, tmp_path, what):
    run_dir, _ = digits_run
    path = tmp_path / what
    if what == "empty":
        path.mkdir()
    if what == "damaged":
        path = tmp_path / "damaged.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    _, line = bnnlight_error("predict", path, "--ckpt_path", run_dir / "checkpoints/best.ckpt")
    assert str(path) in line
    assert not list(tmp_path.glob("predictions/*"))


def test_usage_errors(bnnlight_error, digits_run, digit_files, tmp_path):
    run_dir, _ = digits_run
    checkpoint = run_dir / "checkpoints/best.ckpt"
    for args, part in (
        (("predict", digit_files[0]), "--ckpt_path"),
        (("predict", digit_files[0], "--ckpt_path", tmp_path / "none.ckpt"), "none.ckpt"),
        (("predict", digit_files[0], "--ckpt_path", checkpoint, "--top", "0"), "--top"),
        (("predict", digit_files[0], "--ckpt_path", checkpoint, "--tpo", "2"), "--tpo"),
        (("predict", "--ckpt_path", checkpoint), "IMAGE"),
        (("predict", digit_files[0], "--ckpt_path", checkpoint, "--config", tmp_path / "no.yaml"), "no.yaml"),
    ):
        code, line = bnnlight_error(*args)
        assert code == 2
        assert part in line, line
