"""The model card: every fact is in it, and its code runs."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bnnlight.deploy import runtime
from bnnlight.deploy.card import Facts, write_card
from bnnlight.deploy.check import Agreement, Check
from bnnlight.deploy.manifest import Manifest, PictureInput
from bnnlight.imaging.skeletons import LSP

NAMES = tuple(f"class{number}" for number in range(100))
CLASSES = Manifest(
    *("classification", "bnnlight.backbones.ResNet", PictureInput(3, 32, (0.4914, 0.48, 0.45), (0.2, 0.25, 0.26), 36)),
    classes=NAMES[:10],
    metrics={"test/acc1": 0.5737, "test/loss": 1.2345},
    origin={"command": "bnnlight fit --a=`b|c`", "commit": "abc123+", "config_sha256": "f" * 64, "town": "Delft"},
)
POSE = Manifest(
    *("pose", "bnnlight.backbones.StackedHourglass", PictureInput(3, 96, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))),
    skeleton=LSP,
    flip_test=True,
    sigmoid=True,
)
FACTS = Facts(
    num_binary=123_457,
    num_real=2_000,
    file_bytes={"model.xml": 9_876, "model.bin": 23_456, "model.onnx": 54_321, "model.safetensors": 33_333},
    check=Check(
        "model.xml", Agreement(400, 399, 1_000_000, 123, 2, 1.25e-5), {"test/acc1": 0.5737}, {"test/acc1": 0.5}
    ),
)


def rows(text):
    """The tables' cells, a list a row."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]


def test_facts_of_a_classification_network(tmp_path):
    path = write_card(tmp_path, CLASSES, FACTS)
    assert path == tmp_path / "README.md" and [p.name for p in tmp_path.iterdir()] == ["README.md"]
    text = path.read_text()
    table = rows(text)
    for row in (
        ["command", "`bnnlight fit --a='b\\|c'`"],
        ["commit", "`abc123+`"],
        ["SHA-256 of the config", f"`{'f' * 64}`"],
        ["town", "`Delft`"],
        ["`test/acc1`", "57.37 %"],
        ["`test/loss`", "1.2345"],
        ["`model.xml`", "9,876"],
        ["`model.safetensors`", "33,333"],
        ["pictures", "400", ""],
        ["same answer", "99.75 %", "at least 99.9 %"],
        ["activation bits that differ", "123 of 1,000,000 (0.012 %)", ""],
        ["pictures with such bits", "2", ""],
        ["largest relative difference on the others", "1.3e-05", "at most 1e-03"],
        ["top-1 accuracy", "50.00 %, the checkpoint's 57.37 %", "within 0.05 points"],
    ):
        assert row in table
    # 123,457 bits are 15,433 bytes, the last of which is not full
    for part in (
        "10 classes",
        "class9",
        "123,457",
        "15,433 bytes",
        "2,000 real",
        "8,000 bytes",
        "beside the checkpoint",
    ):
        assert part in text
    for part in ("(pictures, 3, 32, 32)", "RGB", "(0.4914, 0.48, 0.45)", "(0.2, 0.25, 0.26)", "36 px"):
        assert part in text
    # each table's rows are as long as its head
    for block in re.split(r"\n\n", text):
        assert len({len(row) for row in rows(block)}) <= 1


def test_facts_of_a_pose_network(tmp_path):
    text = write_card(tmp_path, POSE, Facts(8, 1, {"model.onnx": 7})).read_text()
    for part in ("14 joints", "left wrist", "EXIF", "96×96", "sigmoid", "mirror image", '["joints"]'):
        assert part in text
    # nothing is said of what is not known
    for part in ("How it was trained", "How good it is", "asked", "openvino", "safetensors", "`None`"):
        assert part not in text
    assert "was not compared" in text
    # a single file is found in its folder
    assert f"bnnlight predict --model {tmp_path.name} " in text


def test_average_precision_is_a_share(tmp_path):
    both = {"test/ap": 0.4321}, {"test/ap": 0.43}
    facts = Facts(8, 1, {"model.onnx": 7}, Check("model.onnx", Agreement(10, 10), *both))
    manifest = replace(POSE, metrics={"test/ap": 0.4321, "test/nme": 0.05})
    text = write_card(tmp_path, manifest, facts).read_text()
    found = rows(text)
    assert ["`test/ap`", "43.21 %"] in found and ["`test/nme`", "0.0500"] in found
    assert ["AP by OKS", "43.00 %, the checkpoint's 43.21 %", "within 0.05 points"] in found
    assert "      name: AP by OKS\n      value: 0.4321" in text


def test_many_classes_are_not_all_listed(tmp_path):
    manifest = Manifest("classification", "a.B", PictureInput(1, 8, (0.5,), (0.5,)), NAMES)
    text = write_card(tmp_path, manifest, Facts(8, 1, {"model.onnx": 7})).read_text()
    assert "class29 and 70 more" in text and "class30" not in text
    assert "grey" in text and "8 px (Pillow" in text


@pytest.fixture
def engines_files(tmp_path):
    """A folder with real files of the three engines, of a network that doubles its input."""
    import onnx
    import openvino
    from safetensors.numpy import save_file

    folder = tmp_path / "exported"
    folder.mkdir()
    images = openvino.opset13.parameter([-1, 3, 32, 32], np.float32)
    doubled = openvino.opset13.add(images, images)
    openvino.save_model(openvino.Model([doubled], [images]), folder / "model.xml", compress_to_fp16=False)
    value = [onnx.helper.make_tensor_value_info(name, 1, ["N", 3, 32, 32]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "x"], ["y"])], "g", value[:1], value[1:])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, folder / "model.onnx")
    save_file({"weight": np.arange(3, dtype=np.float32)}, folder / "model.safetensors", {"bnnlight": "{}"})
    return folder


def test_the_code_for_bare_engines_runs(engines_files, monkeypatch):
    text = write_card(engines_files, CLASSES, FACTS).read_text()
    monkeypatch.chdir(engines_files.parent)
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 4
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    engines = 0
    for block in blocks[1:]:
        names = {"images": images}
        exec(compile(block, "card", "exec"), names)
        if "safetensors" in block:
            assert names["tensors"]["weight"].tolist() == [0, 1, 2]
        else:
            # OpenVINO's model takes one picture at a time
            np.testing.assert_array_equal(names["output"], 2 * images[: 1 if "openvino" in block else 2])
            engines += 1
    assert engines == 2


def test_of_a_format_that_runs_elsewhere(tmp_path):
    text = write_card(tmp_path, POSE, Facts(1, 1, {"model.tflite": 5})).read_text()
    assert "float32 of shape (1, 96, 96, 3), RGB" in text
    assert "heat maps (1, stacks, height, width, joints), of which the last stack counts" in text
    assert "larq-compute-engine" in text and f"{tmp_path.name}/model.tflite" in text
    # its engine is not this package's
    assert "bnnlight predict" not in text and "Runtime" not in text
    compile(re.search(r"```python\n(.*?)```", text, re.S)[1], "card", "exec")


def test_the_code_for_the_runtime_runs(tmp_path, monkeypatch, capsys):
    from PIL import Image

    asked = []

    class Answers:
        def __init__(self, path):
            asked.append(path)

        def predict(self, pictures):
            return [{"classes": [f"{picture.size}" for picture in pictures]}]

    monkeypatch.setattr("bnnlight.deploy.Runtime", Answers)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (5, 4)).save("photo.jpg")
    folder = Path("exported")
    folder.mkdir()
    block = re.search(r"```python\n(.*?)```", write_card(folder, CLASSES, FACTS).read_text(), re.S)[1]
    exec(compile(block, "card", "exec"), {})
    assert capsys.readouterr().out == "['(5, 4)']\n"
    # of several formats one is named
    assert asked == ["exported/model.xml"]
    assert Path(asked[0]).suffix in runtime.FORMATS
