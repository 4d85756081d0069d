"""The files of W&B Launch: by wandb's own models and checks, and what the agent would start really run."""

import json
import re
import shlex

import kubernetes_validate
import pytest
import yaml
from wandb.sdk.launch.agent.config import AgentConfig
from wandb.sdk.launch.errors import LaunchError
from wandb.sdk.launch.runner.local_container import get_docker_command
from wandb.sdk.launch.utils import (
    recursive_macro_sub,
    validate_kubernetes_resource_args,
    validate_local_container_resource_args,
)


@pytest.fixture
def read(cluster):
    return lambda name: yaml.safe_load((cluster / "wandb_launch" / name).read_text())


@pytest.fixture
def asked(cluster, opening):
    """The arguments that the line in a queue's opening comment, `wandb launch …`, gives its run."""

    def find(name):
        text = opening(cluster / "wandb_launch" / name)
        (line,) = re.findall(r"^  (wandb launch --queue .*?}}')$", text, re.MULTILINE | re.DOTALL)
        words = shlex.split(line.replace("\\\n", ""))
        assert words[words.index("--docker-image") + 1]
        return json.loads(words[words.index("--config") + 1])["overrides"]["args"]

    return find


@pytest.fixture
def queue(read):
    """The Kubernetes queue as the agent fills it in for a run."""
    values = {"run_id": "x1y2z3", "image_uri": "registry/bnnlight"}
    return recursive_macro_sub(read("kubernetes_queue.yaml"), values)


def test_the_agent_takes_its_file_and_serves_both_queues(read, cluster, opening):
    config = AgentConfig(**read("agent.yaml"))
    assert config.builder.type.value == "noop"
    for name in ("kubernetes_queue.yaml", "docker_queue.yaml"):
        made = re.search(r"create_run_queue\('([\w-]+)', '([\w-]+)'", opening(cluster / "wandb_launch" / name))
        assert made[1] in config.queues
        assert made[2] == {"kubernetes_queue.yaml": "kubernetes", "docker_queue.yaml": "local-container"}[name]


def test_launch_and_kubernetes_take_the_kubernetes_queue(queue):
    validate_kubernetes_resource_args(queue)
    assert "${" not in json.dumps(queue)
    kubernetes_validate.validate(queue, "1.31", strict=True)


def test_it_is_retried_as_the_job_beside_it(queue, cluster):
    (_, job) = yaml.safe_load_all((cluster / "kubernetes" / "job.yaml").read_text())
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        rule.get("onExitCodes", {}).pop("containerName", None)
    assert queue["spec"]["podFailurePolicy"] == job["spec"]["podFailurePolicy"]


@pytest.mark.slow
def test_what_the_kubernetes_queue_starts_trains(queue, asked, run, on_digits, steps, tmp_path):
    command = queue["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[:2] == ["tini", "--"]
    # as Launch does: a run's arguments take the place of args
    words, digits, found = on_digits([*command[2:], *asked("kubernetes_queue.yaml")], tmp_path / "a")
    assert "--resume" in words
    assert found["--run_dir"] == "/runs/x1y2z3"
    done = run(*words, *digits)
    assert done.returncode == 0, done.stderr
    assert steps(tmp_path / "a") == 4


def test_launch_takes_the_docker_queue_and_would_take_no_mount(read):
    options = read("docker_queue.yaml")
    validate_local_container_resource_args(options)
    # what its comment says of mounts; should Launch admit them one day, the data belong on one
    with pytest.raises(LaunchError):
        validate_local_container_resource_args(options | {"volume": ["DATA:/data:ro"]})


def test_what_the_docker_queue_starts_trains(read, asked, run, program, on_digits, steps, tmp_path):
    words, digits, found = on_digits(asked("docker_queue.yaml"), tmp_path / "a")
    assert set(found) == {"--config", "--data.root", "--run_dir"}
    command = get_docker_command(
        "mine", {"WANDB_MODE": "disabled"}, docker_args=read("docker_queue.yaml"), additional_args=[*words, *digits]
    )
    # in the place of the container: what stands behind the image's name goes to its entry point
    program("docker", '#!/bin/bash\nwhile [ "$1" != mine ]; do echo "$1"; shift; done\nshift\nexec bnnlight "$@"\n')
    done = run("bash", "-c", " ".join(command))
    assert done.returncode == 0, done.stderr
    assert steps(tmp_path / "a") == 4
    assert done.stdout.splitlines()[4:8] == ["--gpus", "all", "--shm-size", "8g"]
