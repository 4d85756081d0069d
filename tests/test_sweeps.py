"""Every W&B sweep: well formed, and each of its trials is a command line of ours that makes the network it names."""

import inspect
import itertools
import json
import re
import sys
from pathlib import Path

import pytest
import torch
import wandb.wandb_agent
import yaml

import bnnlight.nn

SWEEPS = sorted((Path(__file__).parents[1] / "configs" / "sweeps").glob("*.yaml"))
# of https://docs.wandb.ai/models/sweeps/sweep-config-keys; W&B reads on without a word where a key is another
KEYS = {"program", "method", "metric", "early_terminate", "parameters", "command"}


def read(name):
    return yaml.safe_load((SWEEPS[0].parent / f"{name}.yaml").read_text())


def through_server(value):
    """A number after its way through W&B's server, where 1.0 becomes 1."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def trials(sweep):
    """All combinations of a grid, as the server sends them."""
    parameters = sweep["parameters"]
    for values in itertools.product(*(parameter["values"] for parameter in parameters.values())):
        yield {name: {"value": through_server(value)} for name, value in zip(parameters, values, strict=True)}


@pytest.fixture
def command_line(monkeypatch, tmp_path):
    """What W&B's own agent starts for a trial of a sweep."""
    for name in ("WANDB_DIR", "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, str(tmp_path) if name == "WANDB_DIR" else "")
    started = []

    class Process:
        def __init__(self, command, **_):
            started.append(command)

    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", Process)

    def line(sweep, trial):
        agent = wandb.wandb_agent.Agent(api=None, queue=None)
        agent._sweep_command = list(sweep["command"])
        answer = agent._process_command(
            {"type": "run", "run_id": "abc", "program": sweep["program"], "args": trial, "id": 1}
        )
        assert "exception" not in answer, answer
        return started.pop()

    return line


@pytest.fixture
def ours(command_line, configs):
    """A trial's arguments behind the verb, to be run from any folder."""

    def arguments(sweep, trial):
        env, program, verb, config, *rest = command_line(sweep, trial)
        if sys.platform == "win32":  # which has no env
            env, program, verb, config, rest = None, env, program, verb, [config, *rest]
        assert (env, program, verb) == (env and "/usr/bin/env", "bnnlight", "fit")
        name = config.removeprefix("--config=")
        assert (configs.parent / name).is_file()
        return [f"--config={configs.parent / name}", *rest]

    return arguments


def test_there_are_sweeps():
    assert {sweep.stem for sweep in SWEEPS} >= {"rank", "latent"}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_is_of_the_form_that_wandb_documents(path):
    sweep = yaml.safe_load(path.read_text())
    assert set(sweep) <= KEYS
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"] == {"name": "val/acc1", "goal": "maximize"}
    assert sweep["command"][-1] == "${args}"
    if "early_terminate" in sweep:
        assert sweep["early_terminate"].pop("type") == "hyperband"
        assert set(sweep["early_terminate"]) <= {"min_iter", "eta", "strict"}
        assert sweep["early_terminate"]["min_iter"] >= 1
    for name, parameter in sweep["parameters"].items():
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", name)
        assert set(parameter) == {"values"}
        assert len(set(parameter["values"])) == len(parameter["values"]) > 1
        # a whole number with a point would not arrive as it is written
        assert parameter["values"] == [through_server(value) for value in parameter["values"]]
        assert [type(v) for v in parameter["values"]] == [type(through_server(v)) for v in parameter["values"]]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_opens_with_its_commands_cost_and_question(path):
    comment = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert f"wandb sweep --project bnnlight configs/sweeps/{path.name}" in comment
    number = len(list(trials(yaml.safe_load(path.read_text()))))
    for word in ("wandb agent", "Asked:", f"Cost: {number} trials", "Result:"):
        assert word in comment, f"{path.name} does not say {word}"


def layers_of(bnnlight, arguments):
    """Latent and ranks of every binary layer that a trial trains, by its name."""
    code, out, err = bnnlight("summary", "--json", *arguments)
    assert code == 0, err
    return {layer["name"]: layer for layer in json.loads(out)["layers"] if layer["num_binary"]}


def test_each_rank_arrives(bnnlight, ours):
    sweep = read("rank")
    seen = set()
    for trial in trials(sweep):
        if trial["seed_everything"]["value"] != 0:
            continue
        share = float(trial["model.backbone.latent.rank"]["value"])
        layers = layers_of(bnnlight, ours(sweep, trial))
        for layer in layers.values():
            o, i, *kernel = layer["shape"]
            assert layer["latent"] == "Tucker"
            assert layer["ranks"] == [round(share * o), round(share * i), *kernel], layer
        seen.add(share)
    assert seen == {0.25, 0.5, 0.75, 1.0}


def test_each_latent_arrives_at_full_rank(bnnlight, ours):
    sweep = read("latent")
    full = {
        "Dense": lambda o, i, h, w: [],
        "Matrix": lambda o, i, h, w: [min(o, i * h * w)],
        "Tucker": lambda o, i, h, w: [o, i, h, w],
        "CP": lambda o, i, h, w: [min(o, i) * h * w],
        "TensorTrain": lambda o, i, h, w: [min(o, i * h * w), min(o * i, h * w), w],
    }
    seen = set()
    for trial in trials(sweep):
        if trial["model.optimizer.lr"]["value"] != 0.01:
            continue
        layers = layers_of(bnnlight, ours(sweep, trial))
        (name,) = {layer["latent"] for layer in layers.values()}
        seen.add(name)
        for layer in layers.values():
            if name == "Holistic":  # before them stands the number of layers that share the tensor
                assert layer["ranks"][-4:] == layer["shape"], layer
            else:
                assert layer["ranks"] == full[name](*layer["shape"]), layer
    assert seen == {*full, "Holistic"}


def test_no_option_of_one_latent_is_left_to_another():
    # the config's Tucker has a factor_lr, which a latent that does not name its own would take over in silence
    for text in read("latent")["parameters"]["model.backbone.latent"]["values"]:
        value = json.loads(text)
        options = inspect.signature(getattr(bnnlight.nn, value["class_path"].split(".")[-1])).parameters
        assert set(value.get("init_args", {})) == set(options) - {"weight"}


@pytest.mark.parametrize(
    ("name", "number", "keys"),
    [("rank", 0, {"core": (4, 4, 3, 3)}), ("latent", -1, {"cores.0": (1, 16, 16), "cores.1": (16, 16, 9)})],
)
def test_a_trial_is_really_trained(bnnlight, ours, quick, draw_folder, tmp_path, name, number, keys):
    sweep = read(name)
    trial = list(trials(sweep))[number]
    root = tmp_path / "data"
    cifar = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    for split in ("train", "test"):
        draw_folder(split, cifar, num_images=4, size=(32, 32), root=root)
    code, _, err = bnnlight(
        *("fit", *ours(sweep, trial), *quick, "--trainer.max_epochs=1", "--trainer.max_steps=1"),
        *(f"--data.root={root}", "--data.batch_size=4", "--data.val_size=10", "--data.num_workers=0"),
        *("--trainer.val_check_interval=1", f"--run_dir={tmp_path / 'run'}", "--trainer.devices=1"),
    )
    assert code == 0, err
    checkpoint = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 1
    shapes = {key: tuple(value.shape) for key, value in checkpoint["state_dict"].items()}
    first = "backbone.stages.0.0.unit1.conv.latent"
    assert {key: shapes[f"{first}.{key}"] for key in keys} == keys
    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    for parameter, setting in trial.items():
        place = saved
        for part in parameter.split("."):
            # what the command line may leave out, the saved config has
            place = place[part] if part in place else place["init_args"][part]
        given = yaml.safe_load(setting["value"]) if isinstance(setting["value"], str) else setting["value"]
        assert place == given
    # choosing by the test images would make their result worthless
    assert not json.loads((tmp_path / "run/results.json").read_text())["results"].keys() & {"test/acc1"}
