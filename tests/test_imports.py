"""Who may import whom: read from the source, so that a cycle cannot creep in unseen."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bnnlight
from bnnlight import cli

ROOT = Path(bnnlight.__file__).parent
# part of the package → what of the house it may import besides itself; a part that is not here, such as imaging,
# may import none. A folder inside a part that is here has a rule of its own, and is then not its part's.
ALLOWED = {
    # besides, it hands on from optim, when they are asked for, names that earlier versions had here
    "nn": {"nn.latents", "nn.compute", "nn.parts"},
    "nn.latents": {"nn.compute", "nn.torch_internals"},
    "nn.parts": {"nn.torch_internals"},
    "nn.compute": {"nn.binarize", "nn.scale", "nn.torch_internals"},
    "backbones": {"nn"},
    "data": {"data.classes", "data.keypoints"},
    "data.classes": {"data.loading", "imaging"},
    "data.keypoints": {"data.loading", "imaging"},
    "data.loading": {"imaging"},
    # besides, the runtime imports the module of a format by its name, when a file asks for it
    "deploy": {"deploy.program", "imaging"},
    "deploy.program": set(),
    "deploy.freezing": {"deploy.program", "nn"},
    "deploy.formats": {"deploy.program", "deploy.manifest", "deploy.seal"},
    "deploy.proof": {"deploy.program", "deploy.formats", "deploy.check", "nn.inspect"},
    # data.loading.sampling has the seeds that random numbers follow from
    "tasks": {
        "metrics",
        "nn.inspect",
        "nn.running",
        "nn.compute.kept_weights",
        "optim",
        "data.keypoints.heatmaps",
        "data.loading.sampling",
        "imaging",
    },
    # looking through nn.inspect changes nothing; nn.running leaves compiled code out; nn.binarize, nn.parts and
    # nn.stages have what a callback may change;
    # guards.lightning_internals is the place for what is private to Lightning
    "callbacks": {
        "metrics",
        "tracking.trackers",
        "nn.inspect",
        "nn.running",
        "nn.binarize",
        "nn.parts",
        "nn.stages",
        "guards.lightning_internals",
        "data.loading.sampling",
    },
    "tracking": {"tracking.stores"},
    "tracking.trackers": {"tracking.failing_loggers", "tracking.wandb_run"},
    "tracking.stores": set(),
    "optim": {"nn.compute.product", "nn.inspect", "nn.latents"},
    "guards": {
        "nn.inspect",
        "nn.running",
        "nn.compute.kernels",
        "tracking.log_book",
        "tracking.metrics_file",
        "console.lost_connection",
    },
    "matrix.plan": {"console.shipped_configs"},
    "matrix.runs": {"matrix.plan"},
    "matrix.report": {"matrix.plan", "matrix.runs"},
    "experiment.config": {"console"},
    "experiment.config.early": {"console", "experiment.config"},
    # the table names verbs by text, so that help need not wait for them; config.early answers what needs no torch
    "cli": {"console", "experiment.config.early"},
    "__main__": {"cli"},
}
BELOW = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()} - {"experiment", "commands"}
ALLOWED |= {"experiment": BELOW | {"experiment.config"}, "experiment.trained": BELOW | {"experiment"}}
ALLOWED |= {"commands": BELOW | {"experiment"}}
FILES = sorted(ROOT.rglob("*.py"))


def imported(path):
    """Full names of all that a file imports; `from a.b import c` gives `a.b.c`, which may be a module."""
    package = ("bnnlight", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)


def within(name, part):
    return name == part or name.startswith(f"{part}.")


def part_of(name):
    """The innermost part with a rule that a module, or a name in one, belongs to; else its top folder."""
    return max((part for part in {*ALLOWED, name.split(".")[0]} if within(name, part)), key=len)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_what_its_part_may(path):
    part = part_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    allowed = ALLOWED.get(part, set()) | {"__version__"}
    house = [name.removeprefix("bnnlight.") for name in imported(path) if within(name, "bnnlight")]
    others = [name for name in house if part_of(name) != part]
    assert [name for name in others if not any(within(name, a) for a in allowed)] == []


def test_each_rule_is_about_modules_that_are_there():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES}
    assert {*ALLOWED}.union(*ALLOWED.values()) - modules == set()


def test_commands_holds_verbs_and_nothing_else():
    # torchrun is what job scripts start
    verbs = {place.partition(":")[0] for place, _ in cli._VERBS.values()} | {"bnnlight.commands.torchrun"}
    assert {module_name(path) for path in FILES if path.parent.name == "commands"} == verbs | {"bnnlight.commands"}


def module_name(path):
    return ".".join(("bnnlight", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def imported_modules(path):
    """Files of the house that a file imports, by module; of `from a.b import c` it is `a.b` where c is not a module.

    Imports for type checkers alone and imports inside functions count too: they hide a circle from Python, but whoever
    reads one of the files still has to know the other.
    """
    for name in imported(path):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name and MODULES[name] != path:
            yield name


def test_no_imports_in_a_circle():
    graph = {name: set(imported_modules(path)) for name, path in MODULES.items()}
    # one of each kind: at the top, for type checkers, in a function
    assert "bnnlight.data.keypoints.person" in graph["bnnlight.data.keypoints.transforms"]
    assert "bnnlight.data.keypoints.figures.look" in graph["bnnlight.data.keypoints.figures.head"]
    assert "bnnlight.console.errors" in graph["bnnlight.cli"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("a circle of imports: " + " ← ".join(error.args[1]))


@pytest.mark.parametrize("path", sorted((ROOT / "nn").rglob("*.py")), ids=lambda p: p.name)
def test_the_method_needs_torch_and_tensorly_and_their_numpy_alone(path):
    foreign = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)
    # its kernels for GPUs, which nothing imports without one
    kernels = {"triton"} if path.stem == "bits_triton" else set()
    assert foreign <= {"torch", "tensorly", "numpy", "bnnlight"} | kernels


IMAGING = [f"bnnlight.imaging.{path.stem}" for path in FILES if path.parent.name == "imaging" and path.stem[0] != "_"]
FREE = ["bnnlight.deploy", "bnnlight.deploy.card", "bnnlight.deploy.formats", *IMAGING]


def test_using_a_shipped_model_needs_no_training_library():
    # in a fresh interpreter, since this one has them all
    code = f"import sys, {', '.join(FREE)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {*FREE, "numpy", "cv2", "PIL"} <= loaded
    assert {"torch", "lightning", "wandb", "tensorly", "jsonargparse", "matplotlib"} & loaded == set()


def test_the_rules_are_read_from_real_files():
    # an empty list of files or imports would pass everything
    names = {name for path in FILES for name in imported(path)}
    assert {"bnnlight.nn.inspect.named_binary_layers", "bnnlight.nn.BinaryConv2d", "torch"} <= names


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda path: path.name)
def test_a_folder_can_be_taken_in_at_a_glance(folder):
    assert len(list(folder.glob("*.py"))) <= 18
