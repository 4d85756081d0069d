"""`bnnlight doctor`: what it finds, and that no person is in it."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from fixtures.light import light

from bnnlight.commands import doctor as module
from bnnlight.commands.doctor import findings, without_paths


def test_a_line_each_and_the_same_as_json(bnnlight, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(module, "_openvino", lambda: "as it is")  # compiling takes its time: once is enough
    code, out, _ = bnnlight("doctor")
    assert code == 0
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    lines = {name.strip(): text.strip() for name, text in lines.items()}
    code, out, _ = bnnlight("doctor", "--json")
    assert code == 0 and json.loads(out) == lines
    assert lines["bnnlight"].startswith(version("bnnlight"))
    assert lines["Python"].startswith(platform.python_version())
    assert lines["torch"].startswith(torch.__version__)
    assert f"torch {torch.get_num_threads()}, " in lines["threads"]
    assert (lines["GPU"] == "torch finds none") == (not torch.cuda.is_available() and bool(torch.version.cuda))
    assert "OMP_NUM_THREADS=3" in lines["variables"]
    assert f"safetensors {version('safetensors')}" in lines["packages"]


def test_no_key_user_or_folder_is_told(tmp_path, monkeypatch):
    home = tmp_path / "home" / "annabel"
    home.mkdir(parents=True)
    for name, value in {
        "HOME": str(home),
        "USER": "annabel",
        "LOGNAME": "annabel",
        "HOSTNAME": "annabels-host",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_API_KEY", "f00" * 13 + "0")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "https://annabel.example.org")
    monkeypatch.setattr(module, "_torch", lambda: (home / "torch.so").read_text())
    found = findings()
    text = json.dumps(found)
    assert "annabel" not in text and "f00f00" not in text and str(Path.cwd()) not in text and str(tmp_path) not in text
    assert found["W&B"] == f"{version('wandb')}, online, logged in, a server of its own"
    assert found["torch"].startswith("fails: FileNotFoundError: [Errno 2] No such file or directory: '…/torch.so'")
    # of the model that comes with the package, in bits
    assert found["OpenVINO"].startswith(
        f"{version('openvino')}, 12 of 12 binary layers on bits (BinaryConvolution jit_"
    )


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("cannot open /home/anna/lib/libcudart.so.13: gone", "cannot open …/libcudart.so.13: gone"),
        (r"C:\Users\anna\torch\lib.dll is damaged", "…/lib.dll is damaged"),
        ("in ~/data/x and 1/2", "in …/x and 1/2"),
    ],
)
def test_of_a_path_the_last_name_is_left(text, left):
    assert without_paths(text) == left


def test_what_is_missing_is_named_with_its_extra(monkeypatch):
    def gone(name):
        if name in ("onnx", "torch", "rich"):
            raise module.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(module, "version", gone)
    wanted = (
        "rich (pip install 'bnnlight'); torch (pip install 'bnnlight[train]'); onnx (pip install 'bnnlight[deploy]')"
    )
    assert module._missing() == wanted


def test_it_answers_where_nothing_is_installed_that_trains(tmp_path):
    done = light("doctor", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    found = {parts[0]: parts[-1].strip() for parts in lines}
    assert found["torch"] == found["GPU"] == "torch is not installed"
    assert found["OpenVINO"].startswith(version("openvino"))
