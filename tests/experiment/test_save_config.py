"""What is noted of the code that made a run."""

import sys

import pytest

from bnnlight.experiment import save_config


def test_outside_a_checkout_the_commit_is_what_the_image_says(monkeypatch, tmp_path):
    monkeypatch.setattr(save_config, "__file__", str(tmp_path / "save_config.py"))
    monkeypatch.delenv("BNNLIGHT_COMMIT", raising=False)
    assert save_config.provenance()["commit"] is None
    monkeypatch.setenv("BNNLIGHT_COMMIT", "abc123")
    assert save_config.provenance()["commit"] == "abc123"


@pytest.mark.parametrize("program", ["/usr/bin/bnnlight", "/opt/venv/lib/bnnlight/__main__.py"])
def test_the_command_is_told_as_it_is_typed(monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program, "fit", "--config", "a b.yaml"])
    assert save_config.command_line() == "bnnlight fit --config 'a b.yaml'"
