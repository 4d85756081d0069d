"""Every job: well formed, and opening with how to start, stop and resume it."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from fixtures.processes import run_to_end

CLUSTER = Path(__file__).parents[2] / "cluster"
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix in (".sh", ".sbatch")]
MANIFESTS = [path for path in FILES if path.suffix == ".yaml"]


def name(path):
    return str(path.relative_to(CLUSTER))


def test_they_are_scripts_and_manifests():
    assert [path.name for path in SCRIPTS] == ["slurm.sbatch", "slurm_sweep.sbatch", "torchrun.sh"]
    assert len(MANIFESTS) == 4
    assert sorted(SCRIPTS + MANIFESTS) == FILES


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_bash_and_shellcheck_have_nothing_to_say(path):
    shellcheck = Path(sys.executable).with_name("shellcheck")
    for command in (["bash", "-n"], [str(shellcheck)]):
        done = run_to_end([*command, path])
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), command


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_scripts_can_be_started(path):
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    assert path.stat().st_mode & 0o111 == 0o111


@pytest.mark.parametrize("path", MANIFESTS, ids=name)
def test_manifests_are_yaml_without_a_key_given_twice(path):
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{path.name}: {keys}"
            return super().construct_mapping(node, deep)

    documents = list(yaml.load_all(path.read_text(), Strict))
    assert documents
    assert all(isinstance(document, dict) for document in documents)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_opens_with_its_command_needs_stop_and_resume(path, opening):
    comment = opening(path)
    lines = comment.splitlines()
    assert lines[0].endswith(".")
    assert any(f"cluster/{name(path)}" in line for line in lines), "does not say how it is started"
    assert "Needs:" in comment
    assert "Stop" in comment
    assert "esum" in comment


@pytest.mark.parametrize("path", FILES, ids=name)
def test_knows_no_secret_and_no_machine(path):
    text = path.read_text()
    for word in ("/home/", "/root", "/Users/", "password"):
        assert word not in text


@pytest.mark.parametrize("name", ["Dockerfile", "docs/cluster.md"])
def test_runs_are_mounted_where_the_image_lets_everybody_write(name):
    root = CLUSTER.parent
    writable = re.search(r"install -d -m 1777 ([^\\&]*)", (root / "Dockerfile").read_text())[1].split()
    mounted = set(re.findall(r"-v RUNS:([\w/]+)", (root / name).read_text()))
    assert len(mounted) == 1
    assert mounted < set(writable)
