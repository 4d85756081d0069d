"""The model card: README.md beside a shipped model, for whoever is handed the folder, and for the Hugging Face Hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bnnlight.deploy.check import METRICS, Check
from bnnlight.deploy.hub import LIBRARY, PREFIX
from bnnlight.deploy.manifest import Manifest
from bnnlight.deploy.runtime import FILES
from bnnlight.imaging.boxes import PADDING

MOST_NAMES = 30
"""More classes, or joints, than that are not listed."""


@dataclass(frozen=True)
class Facts:
    """What was counted and measured when a model was exported.

    Attributes:
        num_binary: 1-bit weights.
        num_real: all other numbers.
        file_bytes: name of each file → its size.
        check: the comparison with the checkpoint, where one was made.
    """

    num_binary: int
    num_real: int
    file_bytes: Mapping[str, int]
    check: Check | None = None


def write_card(folder: Path, manifest: Manifest, facts: Facts, repo: str | None = None) -> Path:
    """Writes README.md into the folder of a model.

    Args:
        folder: that holds the model's files.
        manifest: of the model.
        facts: counted and measured at the export.
        repo: ``OWNER/NAME`` on the hub, where it will be found.

    Returns:
        The path of the file.
    """
    formats = [name for name in FILES.values() if name in facts.file_bytes]
    parts = [
        f"{_head(manifest, formats)}\n\n{_what(manifest)}",
        _training(manifest),
        _size(facts),
        _input(manifest, FILES["lce"] in facts.file_bytes),
        _use(repo.split("/")[1] if repo else folder.resolve().name, manifest, formats, repo),
        _checks(facts),
    ]
    path = folder / "README.md"
    part = path.with_name(path.name + ".part")
    part.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def _head(manifest: Manifest, formats: Sequence[str]) -> str:
    """What the hub reads of a card, as YAML: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
    task = "keypoint-detection" if manifest.skeleton else "image-classification"
    tags = [LIBRARY, "binary-neural-network", *(_TAGS[name] for name in formats if name in _TAGS)]
    lines = [f"library_name: {LIBRARY}", f"pipeline_tag: {task}", "tags:", *(f"- {tag}" for tag in tags)]
    measured = {name: value for name, value in manifest.metrics.items() if name in _HUB_METRICS}
    if measured:
        # quoted as in JSON, which YAML reads
        data, network = (
            json.dumps(text.rsplit(".", 1)[-1], ensure_ascii=False)
            for text in (manifest.origin.get("data", "test pictures"), manifest.network)
        )
        split = manifest.origin.get("tested_on", "test")
        lines += ["model-index:", f"- name: {network}", "  results:", "  - task:", f"      type: {task}"]
        lines += ["    dataset:", f"      name: {data}", f"      type: {data}", f"      split: {split}", "    metrics:"]
        for name, value in measured.items():
            kind, title = _HUB_METRICS[name]
            lines += [f"    - type: {kind}", f"      name: {title}", f"      value: {value:.6g}"]
    return "\n".join(("---", *lines, "---"))


_TAGS = {FILES["openvino"]: "openvino", FILES["onnx"]: "onnx", FILES["packed"]: "safetensors"}
_HUB_METRICS = {
    "test/acc1": ("accuracy", METRICS["test/acc1"]),
    "test/acc5": ("accuracy", "top-5 accuracy"),
    "test/pckh": ("pckh", METRICS["test/pckh"]),
    "test/pck": ("pck", METRICS["test/pck"]),
    "test/pck_box": ("pck", METRICS["test/pck_box"]),
    "test/ap": ("mean_average_precision", METRICS["test/ap"]),
}
"""A test's figure → its type on the hub, and its name."""


def _what(manifest: Manifest) -> str:
    network = manifest.network.rsplit(".", 1)[-1]
    if manifest.skeleton:
        joints = manifest.skeleton.joints
        named = f"It finds {len(joints)} joints of whatever fills a picture, or a box in it: {_names(joints)}."
    elif manifest.classes:
        named = f"It tells {len(manifest.classes):,} classes apart: {_names(manifest.classes)}."
    else:
        named = "It tells classes apart, which have numbers instead of names."
    task = "keypoints" if manifest.skeleton else "image classification"
    return (
        f"# {network}: {task}\n\n"
        "A binary neural network: the weights and activations of its inner layers are one bit. "
        f"{named}\n\n"
        f"It is a `{manifest.network}`, trained and exported by bnnlight."
    )


def _names(names: Sequence[str]) -> str:
    rest = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    # a name may hold anything, and a card is read as Markdown
    return ", ".join(re.sub(r"([\\`*\[\]<>|])", r"\\\1", name) for name in names[:MOST_NAMES]) + rest


def _training(manifest: Manifest) -> str:
    origin = dict(manifest.origin)
    titles = {
        "command": "command",
        "data": "data",
        "tested_on": "its test pictures are those of the",
        "commit": "commit",
        "bnnlight": "version of bnnlight",
        "config_sha256": "SHA-256 of the config",
        "checkpoint_sha256": "SHA-256 of the checkpoint",
        "made": "exported",
    }
    rows = [(title, f"`{_cell(origin.pop(key))}`") for key, title in titles.items() if key in origin]
    rows += [(_cell(key), f"`{_cell(text)}`") for key, text in origin.items()]
    lines = ["## How it was trained", _table(("what", "value"), rows)] if rows else []
    if manifest.metrics:
        measured = [(f"`{name}`", _metric(name, value)) for name, value in manifest.metrics.items()]
        chosen = "tested_on" in manifest.origin
        which = "the validation pictures, which also chose its checkpoint," if chosen else "the test pictures"
        which += " of its data set"
        lines += ["## How good it is", f"On {which}:", _table(("metric", "value"), measured)]
    return "\n\n".join(lines)


def _size(facts: Facts) -> str:
    weights = (
        f"{facts.num_binary:,} weights of one bit ({-(-facts.num_binary // 8):,} bytes) and "
        f"{facts.num_real:,} real numbers ({4 * facts.num_real:,} bytes as float32). "
        "The whole files, with the network's structure and what it says of itself:"
    )
    rows = [(f"`{name}`", f"{size:,}") for name, size in facts.file_bytes.items()]
    return "\n\n".join(("## How large it is", weights, _table(("file", "bytes"), rows)))


def _input(manifest: Manifest, channels_last: bool) -> str:
    form = manifest.input
    shape = ("pictures", form.channels, form.size_px, form.size_px)
    maps = "(pictures, stacks, joints, height, width)"
    if channels_last:
        shape, maps = (1, form.size_px, form.size_px, form.channels), "(1, stacks, height, width, joints)"
    kind = "grey" if form.channels == 1 else "RGB"
    if manifest.skeleton:
        cut = (
            f"The picture is turned upright (its EXIF orientation applied), the square round it is brought to "
            f"{form.size_px}×{form.size_px} px, and what lies outside the picture gets the mean colour. Of a box it is "
            f"the square round its middle, {form.box_padding or PADDING:g} × its longer side."
        )
    else:
        cut = (
            f"The picture is resized so that its shorter side has {form.resize_px or form.size_px} px (Pillow, "
            f"bilinear), and the middle {form.size_px}×{form.size_px} px are cut out."
        )
    output = "Its outputs are logits, one per class; softmax turns them into probabilities."
    if manifest.skeleton:
        output = f"Its outputs are heat maps {maps}, of which the last stack counts"
        output += "; a sigmoid turns them into confidences." if manifest.sigmoid else "."
        if manifest.flip_test:
            output += " The maps of the picture and of its mirror image are averaged."
    return (
        "## What it takes and gives\n\n"
        f"float32 of shape ({', '.join(map(str, shape))}), {kind}, on the scale 0..1, "
        f"normalized: minus mean {_numbers(form.mean)}, divided by standard deviation {_numbers(form.std)}.\n\n"
        f"{cut} {output}"
    )


def _use(folder: str, manifest: Manifest, files: Sequence[str], repo: str | None) -> str:
    if FILES["lce"] in files:
        return _LCE.format(folder=folder)
    place = PREFIX + repo if repo else folder
    # with several formats side by side, the folder alone does not tell which is meant
    place = place if len(files) < 2 else f"{place}/{files[0]}"
    extras = ["hub"] * bool(repo) + ["deploy"] * (FILES["onnx"] in files)
    install = f"pip install '{LIBRARY}[{','.join(extras)}]'" if extras else f"pip install {LIBRARY}"
    answer = "joints" if manifest.skeleton else "classes"
    boxes = f"\nbnnlight predict --model {place} photos/ --boxes detections.json" if manifest.skeleton else ""
    parts = [
        "## How to use it",
        "On the command line, for files and folders of pictures:",
        f"```sh\n{install}\nbnnlight predict --model {place} photos/{boxes}\n```",
        "In Python, with everything before and after the network:",
        "```python\nfrom PIL import Image\nfrom bnnlight.deploy import Runtime\n\n"
        f'print(Runtime("{place}").predict([Image.open("photo.jpg")])[0]["{answer}"])\n```',
    ]
    if repo:
        parts.append(f"The files themselves:\n\n```sh\nhf download {repo} --local-dir {folder}\n```")
    if _BARE.keys() & {*files}:
        parts.append("The bare network, without bnnlight, on `images` that were prepared as described above:")
        parts += [f"```python\n{_BARE[name].format(folder=folder)}\n```" for name in files if name in _BARE]
    if FILES["packed"] in files:
        parts.append(_PACKED.format(folder=folder))
    if FILES["qonnx"] in files:
        parts.append(_QONNX)
    return "\n\n".join(parts)


_QONNX = """`model.qonnx` is for FPGA compilers. It takes one picture of pixels as they are stored, 0 to 255, not
normalized; `model.hls4ml.json` has arguments of `hls4ml.utils.config_from_onnx_model`, and types of single layers."""
_BARE = {
    FILES["openvino"]: """import openvino

# each node asks for float32 by itself; OpenVINO before 2026.4, which cannot see that, needs the hint
settings = {{"INFERENCE_PRECISION_HINT": "f32"}}
network = openvino.Core().compile_model("{folder}/model.xml", "CPU", settings)
output = network(images[:1])[0]  # one picture at a time""",
    FILES["onnx"]: """import onnxruntime

session = onnxruntime.InferenceSession("{folder}/model.onnx", providers=["CPUExecutionProvider"])
(output,) = session.run(None, {{session.get_inputs()[0].name: images}})""",
}
_LCE = """## How to use it

It runs in [Larq Compute Engine](https://docs.larq.dev/compute-engine/), TensorFlow Lite with operators for binary \
layers. Its library is quick on ARM, on phones and boards. In Python it is the package `larq-compute-engine`, which \
wants TensorFlow 2.16 beside it. One picture at a time, channels last:

```python
from larq_compute_engine.tflite.python.interpreter import Interpreter

with open("{folder}/model.tflite", "rb") as file:
    interpreter = Interpreter(file.read())
output = interpreter.predict(images)  # (N, H, W, C), one after the other
```"""
_PACKED = """`model.safetensors` holds the network's numbers, 1-bit weights eight to a byte, and as metadata its steps:

```python
from safetensors import safe_open

with safe_open("{folder}/model.safetensors", framework="numpy") as file:
    steps, tensors = file.metadata(), {{name: file.get_tensor(name) for name in file.keys()}}
```"""


def _checks(facts: Facts) -> str:
    if facts.check is None:
        return "## How it was checked\n\nIt was not compared with the checkpoint that it was made from."
    lines = [
        "## How it was checked",
        "Run beside the checkpoint that it was made from, on pictures of the test set:",
        _table(("compared", "found", "asked"), facts.check.rows()),
    ]
    if not facts.check.exact:
        lines.append("Its real layers are rounded, so that it may differ from the checkpoint.")
    return "\n\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text that cannot leave its cell of a table."""
    return " ".join(text.replace("|", "\\|").replace("`", "'").split())


def _metric(name: str, value: float) -> str:
    # as `bnnlight fit` prints them: accuracies are shares
    is_share = any(f"/{kind}" in name for kind in ("acc", "pck", "ap", "ar"))
    return f"{100 * value:.2f} %" if is_share else f"{value:.4f}"


def _numbers(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"
