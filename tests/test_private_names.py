"""What is private to other packages is touched in adapters alone: another version breaks one file, and its test."""

import ast
import functools
import importlib
import inspect
import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOUSE = {"bnnlight", *(path.stem for path in (ROOT / "benchmarks").rglob("*.py"))}
ADAPTERS = {
    "benchmarks/training/shared_step.py": "torch's dispatch and storages; tests/test_train_benchmarks.py",
    "bnnlight/callbacks/averages.py": "Lightning's callbacks that average weights; tests/callbacks/test_averages.py",
    "bnnlight/data/loading/worker_signals.py": "torch's loader processes; tests/data/loading/test_worker_signals.py",
    "bnnlight/guards/lightning_figures.py": "Lightning's figures; tests/guards/test_lightning_internals.py",
    "bnnlight/guards/lightning_internals.py": "Lightning; tests/guards/test_lightning_internals.py",
    "bnnlight/guards/metric_copies.py": "torchmetrics; tests/guards/test_metric_copies.py",
    "bnnlight/nn/compute/kernels.py": "torch's kernels; tests/nn/compute/test_kernels.py",
    "bnnlight/nn/torch_internals.py": "torch's modules, hooks and transforms; tests/nn/test_torch_internals.py",
}
NOT_PRIVATE = {
    "_ARGCOMPLETE": "no name of Python: the variable by which argcomplete's scripts ask from the shell",
    "os._exit": "ends a process at once, without what Python does at its end",
    "_mean": "no name of Python: the end of a log key",
    "_netrc": "no name of Python: the file .netrc, as Windows has it",
    "_step": "W&B's count of rows, by which its API and its charts know it",
}
PRIVATE = re.compile(r"_(?!_)\w*[^\W_]\w*")


def is_private(name):
    return bool(PRIVATE.fullmatch(name))


def of_house(module):
    return module.split(".")[0] in HOUSE


@functools.cache
def private_to(kind):
    """Private names of a class, as its source has them: methods, attributes, what it looks up on itself."""
    names = set(vars(kind))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError):  # written in C
        tree = ast.Module([], [])
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and named(node.value) == "self"}
    return {name for name in names if is_private(name)}


def named(node):
    return node.id if isinstance(node, ast.Name) else None


class Reader(ast.NodeVisitor):
    """Finds what one file touches that is private to others, as ``(line, name)``.

    Of ``self`` and ``super()`` the classes that it inherits from are asked. Anything else of a private name is the
    house's own where the file defines that name, and foreign where it does not, or comes out of a foreign import.
    """

    def __init__(self, source, package=""):
        self.tree, self.found = ast.parse(source), []
        self.imports, self.foreign, self.defined, self.kinds, self.within = {}, set(), set(), {}, []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.take_import(node, package)
            elif isinstance(node, ast.ClassDef):
                self.kinds[node.name] = node
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                self.defined.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self.defined.add(node.id)
            elif isinstance(node, ast.arg):
                self.defined.add(node.arg)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and named(node.value) == "self":
                self.defined.add(node.attr)

    def take_import(self, node, package):
        base = getattr(node, "module", None) or ""
        if getattr(node, "level", 0):
            base = importlib.util.resolve_name("." * node.level + base, package)
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            if isinstance(node, ast.Import):
                self.imports[name] = (alias.name if alias.asname else name, None)
            else:
                self.imports[name] = (base, alias.name)
            if base.startswith("bnnlight"):
                # a benchmark may look into a class of the package
                kind = getattr(importlib.import_module(base), alias.name, None)
                self.defined |= private_to(kind) if isinstance(kind, type) else set()
            elif not of_house(base or alias.name):
                self.foreign.add(name)
                full = f"{base}.{alias.name}".strip(".")
                if any(map(is_private, full.split("."))):
                    self.report(node, full)

    def bases(self, node):
        """Classes of other packages that a class of this file inherits from."""
        for base in node.bases:
            root = base
            while isinstance(root, ast.Attribute | ast.Subscript):
                root = root.value
            if named(base) in self.kinds:
                yield from self.bases(self.kinds[base.id])
            elif named(root) in self.imports:
                module, name = self.imports[root.id]
                if of_house(module) and not module.startswith("bnnlight"):
                    continue  # of another benchmark, which finds its neighbours only as a script
                thing = importlib.import_module(module)
                if name:
                    thing = getattr(thing, name, None) or importlib.import_module(f"{module}.{name}")
                text = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
                kind = eval(text, {root.id: thing})
                if isinstance(kind, type):  # typing.NamedTuple is a function
                    yield from (k for k in kind.__mro__ if k is not object and not of_house(k.__module__))

    def report(self, node, name):
        if name not in NOT_PRIVATE:
            self.found.append((node.lineno, name))

    def inherited(self, name):
        return any(name in private_to(kind) for kinds in self.within[-1:] for kind in kinds)

    def visit_ClassDef(self, node):
        self.within.append(list(self.bases(node)))
        for part in node.body:
            targets = [part] if isinstance(part, ast.FunctionDef) else getattr(part, "targets", [])
            targets = [part.target] if isinstance(part, ast.AnnAssign) else targets
            for name in (getattr(target, "name", None) or named(target) or "" for target in targets):
                if is_private(name) and self.inherited(name):
                    self.report(part, f"{node.name}.{name}")
        self.generic_visit(node)
        self.within.pop()

    def visit_Attribute(self, node):
        self.generic_visit(node)
        if not is_private(node.attr):
            return
        root = node.value
        while isinstance(root, ast.Attribute | ast.Call | ast.Subscript):
            root = root.func if isinstance(root, ast.Call) else root.value
        if self.within and ast.unparse(node.value) in ("self", "cls", "super()"):
            is_foreign = self.inherited(node.attr)
        else:
            is_foreign = named(root) in self.foreign or node.attr not in self.defined
        if is_foreign:
            self.report(node, ast.unparse(node))

    def visit_Constant(self, node):
        # what getattr, vars, __dict__ and their like are asked for
        if isinstance(node.value, str) and re.fullmatch(r"\w+|[^\W_]\w*(\.\w+)+", node.value):
            hidden = [name for name in node.value.split(".") if is_private(name)]
            if any(name not in self.defined or self.inherited(name) for name in hidden):
                self.report(node, node.value)

    def visit_keyword(self, node):
        if node.arg and is_private(node.arg) and node.arg not in self.defined:
            self.report(node.value, node.arg)
        self.generic_visit(node)

    def visit_JoinedStr(self, node):
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                self.visit(value)


def touched(source, package=""):
    reader = Reader(source, package)
    reader.visit(reader.tree)
    return sorted(reader.found)


FILES = {
    str(path.relative_to(ROOT)): path for folder in ("bnnlight", "benchmarks") for path in (ROOT / folder).rglob("*.py")
}


@functools.cache
def touched_in(file):
    return touched(FILES[file].read_text(encoding="utf-8"), ".".join(Path(file).parent.parts))


def test_private_names_of_other_packages_are_left_to_adapters():
    files = sorted(FILES.keys() - ADAPTERS.keys())
    found = [f"{file}:{line}: {name}" for file in files for line, name in touched_in(file)]
    assert not found, "use a public way, or an adapter:\n" + "\n".join(found)


@pytest.mark.parametrize("file", sorted(ADAPTERS))
def test_each_adapter_is_one_and_has_a_test(file):
    assert touched_in(file)
    assert (ROOT / ADAPTERS[file].split("; ")[1]).is_file()


FOREIGN = """
import threading
import torch
from torch import nn
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn.modules.batchnorm import _BatchNorm
import torch._dynamo
_results = torch._foreach_add_
class Own(nn.Module):
    _kept = None
    def _apply(self, fn):
        super()._apply(fn)
        return self._modules, self._kept, self.other._flat
    def _hidden(self): ...
class Deeper(Own):
    def __init__(self, net): self._parameters = self._hidden() or net._hidden
class Named(threading.Thread):
    _target = 1
getattr(net, "_backward_hooks")
vars(net)["_buffers"], net.__dict__["_kept"], patch("torch.optim._functional"), f"{net}_best"
Own(_flat=1), Own(net._kept), cast(net).x[0]._version
ModelCheckpoint().__init__.__func__
"""
EXPECTED = [
    (6, "torch.nn.modules.batchnorm._BatchNorm"),
    (7, "torch._dynamo"),
    (8, "torch._foreach_add_"),
    (11, "Own._apply"),
    (12, "super()._apply"),
    (13, "self._modules"),
    (13, "self.other._flat"),
    (16, "self._parameters"),
    (18, "Named._target"),
    (19, "_backward_hooks"),
    (20, "_buffers"),
    (20, "torch.optim._functional"),
    (21, "_flat"),
    (21, "cast(net).x[0]._version"),
]


def test_each_way_to_a_private_name_is_found_and_ones_own_is_not():
    assert touched(FOREIGN) == EXPECTED
