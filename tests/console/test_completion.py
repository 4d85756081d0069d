"""Completion, asked as the shells ask it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("argcomplete", reason="argcomplete is not installed: pip install -e . brings it")

import bnnlight.console.completion as completion
from bnnlight import cli

# as bash does at the tab key, with the cursor at the end of the line
BASH = """
source "$HOME/.bashrc"
while IFS= read -r line; do
  COMP_LINE="$line" COMP_POINT=${#line} COMP_TYPE=9 COMPREPLY=()
  _python_argcomplete bnnlight
  echo "${COMPREPLY[*]}"
done
"""
# what stands on the line → what must be offered, and what must not
LINES = {
    "bnnlight ": ({*cli._VERBS, "--version", "--install-completion"}, set()),
    "bnnlight --install-completion ": ({"bash", "zsh", "fish"}, {"fit"}),
    "bnnlight export --": ({"--ckpt_path", "--format", "--help"}, {"--trainer.max_epochs"}),
    "bnnlight export --format ": ({"packed", "openvino", "onnx", "qonnx", "lce"}, {"fit"}),
    "bnnlight fit --": ({"--config", "--resume", "--trainer.max_epochs", "--flip_rates.interval"}, {"--image_size"}),
    "bnnlight fit --config q": ({"quickstart "}, set()),
    "bnnlight fit --config quickstart --model.backbone.sc": ({"--model.backbone.scale "}, set()),
    "bnnlight fit --config quickstart --model.backbone.scale ": ({"none", "analytic", "channel", "spatial"}, set()),
    "bnnlight fit --test_after_fit ": ({"true", "false"}, set()),
    "bnnlight fit --config nope --trainer.max_s": ({"--trainer.max_steps "}, set()),
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_bash_offers_verbs_options_and_values(home):
    program = home / "bin" / "bnnlight"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bnnlight "$@"\n')
    program.chmod(0o755)
    completion.install("bash", home)
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in (str(Path(cli.__file__).parents[1]), *sys.path) if p)
    done = subprocess.run(
        ["bash", "-c", BASH], input="\n".join(LINES) + "\n", env=environment, capture_output=True, text=True, check=True
    )
    answers = done.stdout.splitlines()
    assert len(answers) == len(LINES), done.stderr
    for (line, (offered, absent)), answer in zip(LINES.items(), answers, strict=True):
        # of a word that is the only one, bash gets the blank behind it
        assert {word.strip() for word in offered} <= set(answer.split()), line
        assert not absent & set(answer.split()), line
        assert all(answer == word for word in offered if word.endswith(" ")), line


def test_torch_is_not_imported_for_it(home):
    code = """
import atexit, os, sys
os._exit = sys.exit
os.dup2(2, 8)
os.environ |= {"_ARGCOMPLETE": "1", "COMP_LINE": "bnnlight fit --config quickstart --d", "COMP_POINT": "36"}
atexit.register(lambda: print({"torch", "lightning"} & set(sys.modules)))
from bnnlight.cli import main
main([])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "set()" and "--data.batch_size" in done.stderr, done.stderr


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_it_is_put_in_place_once(shell, home, bnnlight):
    settings = {"bash": home / ".bashrc", "zsh": home / ".zshrc"}.get(shell)
    if settings:
        settings.write_text("alias a=b")
    for _ in range(2):
        code, out, _ = bnnlight("--install-completion", shell)
        assert code == 0 and f"every new {shell}" in out
    files = {path for path in home.rglob("*") if path.is_file()}
    [script] = files - {settings}
    assert str(script) in out and "_ARGCOMPLETE" in script.read_text()
    if settings:
        assert settings.read_text().startswith("alias a=b\n# completes bnnlight\n")
        assert settings.read_text().count(f"source {script}") == 1
    else:
        assert script == home / ".config/fish/completions/bnnlight.fish"


def test_the_shell_is_the_one_that_runs(home, bnnlight, monkeypatch):
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert bnnlight("--install-completion")[0] == 0
    assert (home / ".zshrc").is_file()
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    code, _, err = bnnlight("--install-completion")
    assert code == 2 and err == (
        "bnnlight: error: 'tcsh' is not a known shell: write bnnlight --install-completion bash, zsh or fish\n"
    )
    assert bnnlight("--install-completion", "bash", "zsh")[0] == 2
