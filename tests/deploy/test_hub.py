"""Models from a hub and to it, by huggingface_hub itself, against a server of our own on loopback."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml
from fixtures.hub_server import HubServer
from fixtures.light import light
from fixtures.trained_networks import classifier
from PIL import Image

from bnnlight.deploy import Runtime
from bnnlight.deploy.card import Facts, write_card
from bnnlight.deploy.formats.onnx import save_onnx
from bnnlight.deploy.formats.openvino import save_openvino
from bnnlight.deploy.formats.packed import save_packed
from bnnlight.deploy.freezing.freeze import freeze
from bnnlight.deploy.hub import Address
from bnnlight.deploy.shipped import shipped_models

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed: pip install 'bnnlight[hub]'")

SAVE = {"packed": save_packed, "openvino": save_openvino, "onnx": save_onnx}
# one line of code for each line of its input: opens a model, uploads one, tells what came of it
ASK = """
import json, sys
from pathlib import Path
import numpy as np
from bnnlight.deploy import Runtime
from bnnlight.deploy.hub import check_upload, upload
for line in sys.stdin:
    try:
        print(json.dumps({"answer": eval(line)}), flush=True)
    except (ValueError, OSError) as error:
        print(json.dumps({"error": type(error).__name__, "line": str(error)}), flush=True)
"""
IMAGES = "np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)"


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def user(hub, tmp_path):
    """A process that uses the hub: a line of code → what came of it. `user.cached()` are the files in its cache."""

    class User:
        cache = tmp_path / "home/hub"

        def __init__(self, **variables):
            env = {**os.environ, **hub.environment(tmp_path / "home"), **variables}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            self.process = subprocess.Popen([sys.executable, "-c", ASK], env=env, text=True, **pipes)

        def __call__(self, code):
            self.process.stdin.write(f"{code}\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())

        def open(self, address):
            return self(f"Runtime({address!r}).format")

        def end(self):
            """What the process wrote besides."""
            return self.process.communicate()[1]

        @classmethod
        def cached(cls):
            """But for the hub's own notes."""
            files = (p for p in cls.cache.rglob("*") if not p.is_dir() or p.is_symlink())
            notes = (".lock", "CACHEDIR.TAG", "refs/main")
            return sorted(p.name for p in files if not str(p).endswith(notes))

    users = []

    def start(**variables):
        users.append(User(**variables))
        return users[-1]

    start.cached = User.cached
    yield start
    for one in users:
        one.process.kill()
        one.process.communicate()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folder of a small model in each format, with its card."""
    network, manifest = classifier()
    program = freeze(network, (3, 16, 16))
    folders = {name: tmp_path_factory.mktemp(name) for name in SAVE}
    for name, folder in folders.items():
        SAVE[name](program, manifest, folder)
        sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
        write_card(folder, manifest, Facts(8, 1, sizes), "me/model")
    return folders


def files_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("name", SAVE)
def test_what_is_uploaded_is_found_and_answers_alike(hub, user, exported, name):
    folder, me = exported[name], user()
    names = sorted(file.name for file in folder.iterdir())
    hub.add(
        "me/model",
        {"README.md": b"---\ntags: [bnnlight]\n---\n", "model.other": b"of an earlier export", "LICENSE": b""},
    )
    assert me('check_upload("me/model")') == {"answer": None}
    page = me(f'upload(Path({str(folder)!r}), {names}, "me/model", False)')
    assert page == {"answer": f"{hub.url}/me/model"}
    # in one commit, byte for byte; what is not the model's stays
    assert hub.repos["me/model"][-1] == {**files_of(folder), "LICENSE": b""} and len(hub.repos["me/model"]) == 3
    answer = me(f'Runtime("hf://me/model")({IMAGES}).tolist()')["answer"]
    images = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(np.float32(answer), Runtime(folder)(images))
    # what has been downloaded once is not sent again
    hub.asked.clear()
    assert me.open("hf://me/model") == {"answer": name}
    assert [line for line in hub.asked if line.startswith("GET") and "resolve" in line] == []
    assert [n for n in user.cached() if n.startswith("model")] == [n for n in names if n != "README.md"]


def test_predict_runs_a_model_of_the_hub_without_what_trains(hub, tmp_path):
    hub.add("me/cifar10", files_of(shipped_models()["cifar10"]) | {"README.md": b"---\nlibrary_name: bnnlight\n---\n"})
    Image.new("RGB", (8, 8), (9, 99, 200)).save(tmp_path / "a.png")
    env = {**os.environ, **hub.environment(tmp_path / "home", token=None)}
    lacking = ("torch", "lightning", "wandb", "onnx", "onnxruntime")
    command = ("predict", tmp_path / "a.png", "--output", tmp_path / "out", "--model")
    done = light(*command, "hf://me/cifar10", absent=lacking, env=env)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out/predictions.json").read_text())["images"]
    (expected,) = Runtime("cifar10").predict([Image.open(tmp_path / "a.png")])
    assert [c["class"] for c in found["classes"]] == [c["class"] for c in expected["classes"]]
    # one line, and nothing is written
    for address, absent, code, line in (
        ("hf://me/nobody", lacking, 2, f"hf://me/nobody: no such model on {hub.url}, or a private one: "),
        (
            "hf://me/cifar10",
            (*lacking, "huggingface_hub"),
            2,
            "hf://me/cifar10: huggingface_hub is not installed; run: pip ",
        ),
    ):
        done = light(*command[:3], tmp_path / "other", "--model", address, absent=absent, env=env)
        assert done.returncode == code and done.stderr.startswith(f"bnnlight predict: error: {line}"), done.stderr
        assert done.stderr.count("\n") == 1 and not (tmp_path / "other").exists()


def check_error(answer, kind, *parts):
    assert answer.get("error") == kind, answer
    assert "\n" not in answer["line"] and all(part in answer["line"] for part in parts), answer


def test_a_download_that_is_damaged_or_breaks_off_is_not_kept(hub, user, exported):
    hub.add("me/one", files_of(exported["onnx"]))
    hub.add("me/two", files_of(exported["openvino"]))
    me = user()

    def flip(path, content):
        place = len(content) // 2
        return (
            content if path.endswith(".xml") else content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        )

    for address in ("hf://me/one", "hf://me/two"):
        hub.damage = flip
        check_error(me.open(address), "ValueError", address, "its checksum is wrong", "it is not kept: try again")
        hub.damage = lambda path, content: content[:-1]
        check_error(me.open(address), "ValueError", address, "it is not kept")
        hub.damage = lambda path, content: content
        assert user.cached() == []
    hub.cut = True
    check_error(me.open("hf://me/one"), "OSError", f"hf://me/one: {hub.url} cannot be reached", "check the network")
    assert user.cached() == []
    hub.cut = False
    assert me.open("hf://me/one") == {"answer": "onnx"} and me.open("hf://me/two") == {"answer": "openvino"}
    assert "Traceback" not in me.end()


def test_without_a_network_what_was_downloaded_goes_on(hub, user, exported):
    hub.add("me/one", files_of(exported["onnx"]))
    assert user().open("hf://me/one") == {"answer": "onnx"}
    # a port at which nobody answers any more
    with HubServer() as gone:
        pass
    for variables in ({"HF_ENDPOINT": gone.url}, {"HF_HUB_OFFLINE": "1"}):
        me = user(**variables)
        assert me.open("hf://me/one") == {"answer": "onnx"}
        check_error(me.open("hf://me/two"), "OSError", "hf://me/two: http://127.0.0.1", "check the network")
        check_error(me('check_upload("me/two")'), "OSError", "--hub me/two: http://127.0.0.1")
    assert len(user.cached()) == 2  # the model, and a link to it


def test_what_is_no_model_of_ours(hub, user, exported):
    ours = files_of(exported["onnx"])
    card = {"README.md": ours["README.md"]}
    hub.add("me/bert", {"README.md": b"---\nlibrary_name: transformers\n---\n", "model.safetensors": b"2 GB"})
    hub.add("me/bare", {"model.safetensors": b"2 GB"})
    hub.add("me/empty", card)
    hub.add("me/junk", card | {"model.safetensors": b"junk"})
    hub.add("me/both", ours | {"model.safetensors": b""})
    hub.add("me/mine", ours)
    hub.private.add("me/mine")
    me, stranger = user(), user(HF_TOKEN="hf_other")
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    for address, *parts in (
        ("hf://me/bert", "is not a model of bnnlight: its card says library_name transformers"),
        ("hf://me/bare", "is not a model of bnnlight: its card does not say so"),
        ("hf://me/empty", "no shipped model in it: looked for model.xml, model.onnx"),
        ("hf://me/junk", "it is not a safetensors file, or is cut off"),
        ("hf://me/both", "several models, model.onnx, model.safetensors: name one, hf://me/both/model.onnx"),
        ("hf://me/both/model.xml", "it has model.onnx, model.safetensors, and no model.xml"),
        ("hf://me/mine@v7", "it has no such revision"),
        ("hf://me/none", f"no such model on {hub.url}, or a private one: {log_in}"),
        ("hf://mine", "write hf://OWNER/NAME"),
    ):
        check_error(me.open(address), "ValueError", address, *parts)
    check_error(stranger.open("hf://me/mine"), "ValueError", f"or a private one: {log_in}")
    # what is not ours is not even downloaded
    assert user.cached() == [] and not any("resolve" in line and "me/b" in line for line in hub.asked)
    assert me.open("hf://me/both@main/model.onnx") == {"answer": "onnx"}
    assert me.open("hf://me/mine") == {"answer": "onnx"}


def test_uploads_that_are_refused(hub, user, exported):
    folder, me = exported["packed"], user()
    hub.add("me/bert", {"README.md": b"---\nlibrary_name: transformers\n---\n", "model.safetensors": b"2 GB"})
    check_error(me('check_upload("me/bert")'), "ValueError", "--hub me/bert: there is another project's model already")
    check_error(me('check_upload("model")'), "ValueError", "--hub model: write OWNER/NAME")
    check_error(user(HF_TOKEN="")('check_upload("me/x")'), "ValueError", "you are not logged in: run `hf auth login`")
    check_error(user(HF_TOKEN="hf_no")('check_upload("me/x")'), "ValueError", "refuses it (401)")
    code = f'upload(Path({str(folder)!r}), ["model.safetensors", "README.md"], "{{}}", True)'
    check_error(me(code.format("you/x")), "ValueError", f"--hub you/x: {hub.url} refuses it (403)")
    hub.refuse = 503
    check_error(me(code.format("me/x")), "OSError", f"--hub me/x: {hub.url} cannot be reached")
    hub.refuse = None
    # nothing half is there, and the next try makes it whole
    assert hub.repos["me/x"] == [{}] and hub.private == {"me/x"}
    assert me(code.format("me/x")) == {"answer": f"{hub.url}/me/x"}
    assert hub.repos["me/x"][-1] == files_of(folder)


def test_addresses():
    assert Address.parse("hf://a/b") == Address("hf://a/b", "a/b")
    assert Address.parse("hf://a.b/c-d@v1.0/model.xml") == Address(
        "hf://a.b/c-d@v1.0/model.xml", "a.b/c-d", "v1.0", "model.xml"
    )
    for text in ("hf://a", "hf://a/b/c", "hf://a/b@", "hf://a/..", "hf://a/b\n", "hf:///b", "hf://a/b/../c"):
        with pytest.raises(ValueError, match="write hf://OWNER/NAME"):
            Address.parse(text)


def test_the_hub_understands_the_card(tmp_path):
    from huggingface_hub import ModelCard

    path = write_card(tmp_path, Runtime("lsp").manifest, Facts(8, 1, {"model.onnx": 7}), "me/poses")
    data = ModelCard.load(path).data
    assert (data.library_name, data.pipeline_tag) == ("bnnlight", "keypoint-detection")
    assert data.tags == ["bnnlight", "binary-neural-network", "onnx"]
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_name, result.task_type) == ("pck", "PCK@0.2", "keypoint-detection")
    assert result.metric_value == pytest.approx(0.451, abs=5e-4) and result.dataset_split == "test"
    # the same by another reader; the text behind it is the card as it is
    text = path.read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["model-index"][0]["results"][0]["metrics"][0]["name"] == "PCK@0.2"
    assert "bnnlight predict --model hf://me/poses photos/" in text and "pip install 'bnnlight[hub,deploy]'" in text
    assert "hf download me/poses --local-dir poses" in text and '"poses/model.onnx"' in text
