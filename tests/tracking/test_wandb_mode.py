"""Whether wandb would find a key, asked without wandb."""

import os
import subprocess
import sys

import pytest

from bnnlight.tracking import logged_in


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_key_that_wandb_itself_has_written_is_found(home):
    assert not logged_in()
    code = "import wandb; wandb.login(key='0123456789' * 4, verify=False)"
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    subprocess.run([sys.executable, "-c", code], env=env, cwd=home, capture_output=True, check=True)
    assert (home / ".netrc").exists()
    assert logged_in()


@pytest.mark.parametrize("host", ["api.wandb.ai", "api.forge.coreweave.com"])
def test_the_public_server_goes_by_two_names(home, monkeypatch, host):
    (home / ".netrc").write_text(f"machine {host} login user password key\n")
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://api.wandb.ai")
    assert logged_in()


def test_a_server_of_ones_own_needs_its_own_key(home, monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    (home / ".netrc").write_text("machine api.wandb.ai login user password key\n")
    assert not logged_in()
    (home / ".netrc").write_text("machine wandb.example.org login user password key\n")
    assert logged_in()
