"""The true reason why a class of a config cannot be made, in one line."""

import os
import sys

import pytest
from fixtures.processes import run_to_end

MODULES = {
    "imports_nothing.py": "import there_is_no_such_thing\nclass Net: ...\n",
    "old_imports.py": "from bnnlight.data.loaders import ClassificationDataModule\nclass Own: ...\n",
    "own_package/__init__.py": "",
    "own_classes.py": """
import abc
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers.logger import Logger

class Net(torch.nn.Module):
    def __init__(self, num_classes: int = 10, depth: int = 2): super().__init__()
class Needy(torch.nn.Module):
    def __init__(self, width: int, depth: int): super().__init__()
class Broken(torch.nn.Module):
    def __init__(self):
        super().__init__()
        raise KeyError("depth")
class Abstract(torch.nn.Module, abc.ABC):
    @abc.abstractmethod
    def blocks(self): ...
class Half(Logger):
    name = "half"
class NoServer(Logger):
    name = version = ""
    def __init__(self): raise RuntimeError("no server at 10.0.0.1")
    def log_metrics(self, metrics, step=None): ...
    def log_hyperparams(self, params): ...
class Choosy(Callback):
    def __init__(self, every: int = 1): raise ValueError(f"every is {every}: give 2")
""",
}

REASONS = {
    # what is required
    ("--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping",): (
        "EarlyStopping needs monitor",
        "--trainer.callbacks.monitor",
    ),
    ("--model.backbone=own_classes.Needy",): ("model.backbone: own_classes.Needy needs width, depth",),
    ("--model.scheduler=torch.optim.lr_scheduler.StepLR",): ("model.scheduler", "StepLR needs step_size"),
    ("--data=bnnlight.data.ImageFolderDataModule",): ("data", "ImageFolderDataModule needs root", "--data.root"),
    # of two names that are as near
    ("--trainer.epochs=3",): ("--trainer.epochs", "did you mean max_epochs?"),
    # of the words of all lists that an option takes
    ("--trainer.precision=12",): ("trainer.precision: '12' is not one of 64, 32, 16,", "bf16-mixed", "16-true"),
    ("--trainer.precision=bf16-mxed",): ("'bf16-mxed' is not one of 64, 32, 16,", "did you mean bf16-mixed?"),
    # of words and objects
    ("--model.backbone.activation_gradient=tanh",): (
        "'tanh' is not one of identity, clipped, polynomial, swish, bnnlight.nn.Tanh, bnnlight.nn.Triangular",
    ),
    # of the classes that fit, not of any
    ("--model.mixing=true",): ("model.mixing: no class named 'true': it takes bnnlight.tasks.Mixing",),
    ("--trainer.callbacks+=bnnlight.callbacks.Stages", "--trainer.callbacks.activation_epochs=0.5x"): (
        "trainer.callbacks.activation_epochs: '0.5x' is not a number",
    ),
    # neither a word nor a class
    ("--compile=nonsense",): (
        "compile: 'nonsense' is not true, false or a set of options (network, optimizer, backend, mode, dynamic)",
    ),
    ("--compile.backend=nonsense",): ("compile.backend is nonsense, which torch does not know: it has inductor",),
    # one where a list is expected
    ("--model.backbone.weight_parts=Standardized",): (
        "'Standardized' is not a list: write [bnnlight.nn.Standardized]",
    ),
    ("--model.backbone.weight_parts={class_path: bnnlight.nn.Standardized}",): ("write [bnnlight.nn.Standardized]",),
    ("--model.backbone.weight_parts={class_path: bnnlight.nn.Standardized, init_args: {deviation: 1.0}}",): (
        "bnnlight.nn.Standardized stands alone where a list is expected: write - class_path: bnnlight.nn.Standardized",
    ),
    ("--model.backbone.weight_parts=true",): ("'true' is not a list: write one, as [A, B]",),
    # a word without its option
    ("quickstart",): ("'quickstart' does not belong to any option: write --config quickstart",),
    ("runs/a/best.ckpt",): ("'runs/a/best.ckpt' does not belong to any option: write --ckpt_path runs/a/best.ckpt",),
    ("trainer.max_epochs=1",): ("'trainer.max_epochs=1' does not belong to any option: write --trainer.max_epochs=1",),
    ("--trainer.max_epochs", "1", "2"): ("'2' does not belong to any option",),
    # a constructor that raises, whatever it raises
    ("--model.backbone=own_classes.Broken",): ("own_classes.Broken", "KeyError: 'depth'"),
    ("--trainer.callbacks+=own_classes.Choosy",): ("own_classes.Choosy", "every is 1: give 2"),
    ("--trainer.callbacks=own_classes.Choosy",): ("own_classes.Choosy", "every is 1: give 2"),
    ("--trainer.logger+=own_classes.NoServer",): ("own_classes.NoServer", "RuntimeError: no server at 10.0.0.1"),
    ("--checkpoint.save_top_k=-5",): ("ModelCheckpoint", "save_top_k=-5"),
    ("--data=bnnlight.data.lsp.LSPDataModule",): (
        "data: bnnlight.data.lsp.LSPDataModule has moved: write bnnlight.data.LSPDataModule",
    ),
    ("--model.backbone.latent=bnnlight.nn.tucker.Tucker",): (
        "model.backbone.latent: bnnlight.nn.tucker.Tucker has moved: write bnnlight.nn.Tucker",
    ),
    ("--trainer.callbacks+=bnnlight.commands.processes.SeedPerRank",): (
        "bnnlight.commands.processes.SeedPerRank has moved: write bnnlight.experiment.processes.SeedPerRank",
    ),
    # the same where one's own module imports it
    ("--data=old_imports.Own",): (
        "data: old_imports.Own cannot be imported",
        "imports 'bnnlight.data.loaders', which has moved to bnnlight.data.loading.loaders and bnnlight.data.classes",
    ),
    # imports
    ("--model.backbone=imports_nothing.Net",): ("imports_nothing.Net", "'there_is_no_such_thing'", "not installed"),
    ("--model.optimizer=imports_nothing.Net",): ("model.optimizer: imports_nothing.Net", "'there_is_no_such_thing'"),
    ("--model.backbone.latent=imports_nothing.Net",): ("model.backbone.latent: imports_nothing.Net", "not installed"),
    ("--trainer.callbacks+=imports_nothing.Net",): ("imports_nothing.Net", "'there_is_no_such_thing'"),
    ("--model.backbone=no_such_module.Net",): ("no module named 'no_such_module'", "no_such_module.Net"),
    ("--trainer.logger+=lightning.pytorch.loggers.CSVLoger",): ("'CSVLoger'", "did you mean", "CSVLogger?"),
    ("--model.backbone=own_package.gone.Net",): (
        "own_package has no module or class named 'gone', where own_package.gone.Net was looked for",
        "write its new path",
    ),
    # options
    ("--model.backbone=own_classes.Net", "--model.backbone.dpth=3"): ("own_classes.Net has no option 'dpth'", "depth?"),
    ("--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping", "--trainer.callbacks.monitr=a"): (
        "EarlyStopping has no option 'monitr'",
        "monitor?",
    ),
    ("--trainer.callbacks+=lightning.pytorch.callbacks.LearningRateMonitor", "--trainer.callbacks.logging_interval=x"):(
        "trainer.callbacks.logging_interval",
        "'x' is not one of step, epoch",
    ),
    # abstract, or another kind of class
    ("--model.backbone=own_classes.Abstract",): ("own_classes.Abstract is abstract", "blocks"),
    ("--trainer.logger+=own_classes.Half",): ("own_classes.Half is abstract", "log_metrics"),
    ("--trainer.callbacks+=own_classes.Net",): ("own_classes.Net is not a Callback",),
    ("--model.backbone.latent=own_classes.Net",): ("model.backbone.latent", "own_classes.Net is not a Latent"),
}  # fmt: skip


@pytest.mark.parametrize("options", REASONS, ids=" ".join)
def test_the_true_reason(bnnlight_error, configs, tmp_path, monkeypatch, options):
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    # no W&B
    logger = "--trainer.logger=[{class_path: bnnlight.tracking.MetricsFile}]"
    code, line = bnnlight_error("fit", "--config", configs / "quickstart.yaml", logger, *options)
    assert code == 2
    for part in REASONS[options]:
        assert part in line, line
    assert len(line) < 400 and "Namespace" not in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["random", "tensorly", "yaml"])
def test_a_file_of_ones_own_that_is_called_like_an_installed_module(tmp_path, configs, name):
    (tmp_path / f"{name}.py").write_text("class Own: ...\n")
    args = ("fit", "--config", str(configs / "quickstart.yaml"), f"--data={name}.Own")
    path = os.pathsep.join(filter(None, [str(configs.parent), os.environ.get("PYTHONPATH")]))
    done = run_to_end([sys.executable, "-m", "bnnlight", *args], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path})
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith(f"bnnlight fit: error: data: {name}.")
    assert f", and not in {tmp_path / name}.py: give that file a name of its own" in line
