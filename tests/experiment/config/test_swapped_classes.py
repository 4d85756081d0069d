"""An optimizer or schedule in another one's place has its own defaults, however it is named."""

import inspect
from pathlib import Path

import pytest
import yaml

import bnnlight.optim
from bnnlight.console.known_names import find_object
from bnnlight.experiment.experiment import Experiment
from bnnlight.tasks import ClassificationTask

CONFIGS = Path(__file__).parents[3] / "configs"
ADAMW = "{class_path: torch.optim.AdamW, init_args: {lr: 0.07, weight_decay: 0.02, betas: [0.5, 0.6]}}"
SOAP = "bnnlight.optim.SOAP"
STEPS = '{"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 3, "gamma": 0.25}}'


class Read(Exception):
    """Ends a run once its config is read."""


class Reader(Experiment):
    def before_instantiate_classes(self):
        raise Read(self.config)


@pytest.fixture
def read(monkeypatch, tmp_path):
    """Options of the optimizer (or another option of the model) behind a config with an AdamW of odd numbers."""
    monkeypatch.chdir(tmp_path)
    first = f"optimizer: {{class_path: {SOAP}, init_args: {{weight_decay: 0.25}}}}"
    for name, optimizer in (("adamw", f"optimizer: {ADAMW}"), ("silent", "warmup: 0.1"), ("first", first)):
        (tmp_path / f"{name}.yaml").write_text(
            "model: {class_path: bnnlight.tasks.ClassificationTask, init_args: {backbone: "
            f"{{class_path: bnnlight.backbones.ResNet, init_args: {{blocks: [1], num_classes: 10}}}}, {optimizer}}}}}\n"
            "data: {class_path: bnnlight.data.DigitsDataModule}\n"
        )
    (tmp_path / "soap.yaml").write_text(
        "model: {init_args: {optimizer: {class_path: bnnlight.optim.SOAP, init_args: {weight_decay: 0.5}}}}\n"
    )
    (tmp_path / "rate.yaml").write_text("model: {init_args: {optimizer: {init_args: {lr: 0.9}}}}\n")
    (tmp_path / "short.yaml").write_text("model: {optimizer: {lr: 0.8}}\n")

    dotted = {
        "dots": "model.init_args.optimizer: {class_path: bnnlight.optim.SOAP, init_args: {weight_decay: 0.5}}",
        "inner": "model: {init_args.optimizer: {class_path: bnnlight.optim.SOAP, init_args: {weight_decay: 0.5}}}",
        "ends": "model: {init_args: {optimizer.class_path: bnnlight.optim.SOAP, "
        "optimizer.init_args.weight_decay: 0.5}}",
    }
    for name, text in dotted.items():
        (tmp_path / f"{name}.yaml").write_text(text + "\n")

    def run(*args, option="optimizer"):
        with pytest.raises(Read) as end:
            Reader("summary", "", list(args))
        node = end.value.args[0].model.init_args[option]
        return node.class_path, vars(node.init_args)

    return run


# what stands on the command line behind `--config adamw.yaml`, and what differs from SOAP's own defaults
SWAPS = {
    ("--model.optimizer=bnnlight.optim.SOAP",): {},
    ("--model.optimizer", SOAP): {},
    ("--model.optimizer.class_path=bnnlight.optim.SOAP",): {},
    ("--model.init_args.optimizer.class_path", SOAP, "--model.init_args.optimizer.init_args.eps=1e-3"): {"eps": 1e-3},
    (f'--model.optimizer={{"class_path": "{SOAP}", "init_args": {{"lr": 0.2}}}}',): {"lr": 0.2},
    ("--model.optimizer", SOAP, "--model.optimizer.lr", "0.2"): {"lr": 0.2},
    ("--model.optimizer.lr=0.2", "--model.optimizer", SOAP): {"lr": 0.2},
    ("--config", "soap.yaml"): {"weight_decay": 0.5},
    ("--config=soap.yaml", "--config", "rate.yaml"): {"weight_decay": 0.5, "lr": 0.9},
    ("--config=rate.yaml", "--config", "soap.yaml"): {"weight_decay": 0.5},
    ("--config=soap.yaml", "--config", "short.yaml", "--model.optimizer.interval=3"): {
        **{"weight_decay": 0.5, "lr": 0.8},
        "interval": 3,
    },
    ("--model.optimizer=torch.optim.SGD", "--config", "soap.yaml"): {"weight_decay": 0.5},
    ("--config", "soap.yaml", "--model.optimizer=torch.optim.SGD", f"--model.optimizer={SOAP}"): {},
}
OWN = {
    name: inspect.signature(bnnlight.optim.SOAP).parameters[name].default
    for name in ("lr", "betas", "eps", "weight_decay", "interval")
}


def test_the_config_has_other_numbers_than_soap_by_itself():
    assert OWN.keys() >= {"lr", "betas", "weight_decay"} and OWN["betas"] != (0.5, 0.6)
    assert OWN["lr"] != 0.07 and OWN["weight_decay"] != 0.02


@pytest.mark.parametrize("args", SWAPS)
def test_nothing_of_the_other_class_stays(read, args):
    name, options = read("--config", "adamw.yaml", *args)
    assert name == SOAP
    assert {key: options[key] for key in OWN} == OWN | SWAPS[args]


def test_nor_of_the_class_that_a_task_has_unless_told(read):
    name, options = read("--config", "silent.yaml", "--config", "rate.yaml", "--model.optimizer", SOAP)
    assert name == SOAP and {key: options[key] for key in OWN} == OWN


@pytest.mark.parametrize("args", [(), ("--config=rate.yaml",), ("--model.optimizer.lr=0.9",)])
def test_nor_of_it_where_the_first_config_names_another(read, args):
    name, options = read("--config", "first.yaml", *args)
    own = OWN | {"weight_decay": 0.25, "lr": 0.9 if args else OWN["lr"]}
    assert name == SOAP and {key: options[key] for key in OWN} == own


@pytest.mark.parametrize("file", ["dots", "inner", "ends"])
def test_names_with_dots_in_a_config(read, file):
    name, options = read("--config", "adamw.yaml", "--config", f"{file}.yaml")
    assert name == SOAP and {key: options[key] for key in OWN} == OWN | {"weight_decay": 0.5}


def test_the_models_own_file_within_a_config(read, tmp_path):
    whole = yaml.safe_load((tmp_path / "first.yaml").read_text())
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "model.yaml").write_text(yaml.safe_dump(whole["model"]))
    (tmp_path / "parts" / "all.yaml").write_text(yaml.safe_dump(whole | {"model": "model.yaml"}))
    name, options = read("--config", "parts/all.yaml")
    assert name == SOAP and {key: options[key] for key in OWN} == OWN | {"weight_decay": 0.25}


class Own(ClassificationTask):
    """A task with an option of its own that hands the others on."""

    def __init__(self, extra: float = 1.0, **kwargs):
        super().__init__(**kwargs)


@pytest.mark.parametrize("args", [(), ("--model.optimizer", SOAP)])
def test_a_task_of_ones_own_that_hands_options_on(read, tmp_path, args):
    own = f"{Own.__module__}.Own"
    text = (tmp_path / ("adamw.yaml" if args else "first.yaml")).read_text()
    (tmp_path / "own.yaml").write_text(text.replace("bnnlight.tasks.ClassificationTask", own))
    name, options = read("--config", "own.yaml", *args)
    assert name == SOAP and {key: options[key] for key in OWN} == (OWN if args else OWN | {"weight_decay": 0.25})


@pytest.mark.parametrize("flag", ["--print_config", "--print_config=skip_null"])
def test_print_config_prints_what_is_trained(read, capsys, flag):
    args = ("--config", "first.yaml", "--model.optimizer.lr=0.3")
    _, trained = read(*args)
    with pytest.raises(SystemExit) as end:
        Reader("summary", "", [*args, flag])
    printed = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["optimizer"]
    assert end.value.code == 0 and printed["class_path"] == SOAP
    assert printed["init_args"] == {
        key: list(v) if isinstance(v, tuple) else v
        for key, v in trained.items()
        if v is not None or "skip_null" not in flag
    }
    assert printed["init_args"]["lr"] == 0.3 and printed["init_args"]["betas"] == list(OWN["betas"])


def test_shipped_configs_change_what_they_name_and_nothing_else(read):
    """Every config of an experiment: its optimizer's other options are those of its class."""
    named = 0
    for config in sorted(CONFIGS.glob("*.yaml")):
        task = yaml.safe_load(config.read_text())["model"]["init_args"]
        if "optimizer" not in task:
            continue
        named += 1
        name, options = read("--config", str(config))
        kind = find_object(name)
        own = {key: parameter.default for key, parameter in inspect.signature(kind).parameters.items()}
        own |= task["optimizer"].get("init_args", {})
        assert options == {key: own[key] for key in options}, config.name
    assert named > 3


@pytest.mark.parametrize("name", ["torch.optim.AdamW", "torch.optim.adamw.AdamW"])
def test_the_same_class_by_any_of_its_names_keeps_what_it_has(read, name):
    _, options = read("--config", "adamw.yaml", f"--model.optimizer={name}", "--model.optimizer.eps=1e-3")
    found = {key: options[key] for key in ("lr", "weight_decay", "betas", "eps")}
    assert found == {"lr": 0.07, "weight_decay": 0.02, "betas": (0.5, 0.6), "eps": 1e-3}


def test_latents_keep_options_of_the_same_name(read):
    """Sweeps and the command line rely on it: a rank stays where another decomposition is tried."""
    tucker = '--model.backbone.latent={"class_path": "bnnlight.nn.Tucker", "init_args": {"rank": 0.5}}'
    _, options = read("--config", "adamw.yaml", tucker, "--model.backbone.latent=bnnlight.nn.CP", option="backbone")
    assert options["latent"].class_path == "bnnlight.nn.CP" and options["latent"].init_args.rank == 0.5


def test_a_schedule_has_its_own_defaults_too(read):
    several = "torch.optim.lr_scheduler.MultiStepLR"
    args = (f"--model.scheduler={STEPS}", f"--model.scheduler={several}", "--model.scheduler.milestones=[4]")
    name, options = read("--config", "adamw.yaml", *args, option="scheduler")
    assert name == several and (options["milestones"], options["gamma"]) == ([4], 0.1)


def test_an_option_that_has_no_default_is_asked_for(bnnlight_error, read, tmp_path):
    decay = "--model.scheduler=torch.optim.lr_scheduler.ExponentialLR"
    code, line = bnnlight_error("summary", "--config", tmp_path / "adamw.yaml", f"--model.scheduler={STEPS}", decay)
    assert code == 2 and "model.scheduler: torch.optim.lr_scheduler.ExponentialLR needs gamma: pass --model" in line
