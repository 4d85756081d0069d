"""Options of this package's classes, read from their source: to import them would take torch, and seconds."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).parents[3]


@dataclass(frozen=True)
class Signature:
    """What a class or a function can be given.

    Attributes:
        options: name → its type as the source writes it, ``""`` where it has none.
        is_open: it takes options besides, whose names are not known.
        module: where it is defined.
    """

    options: dict[str, str] = field(default_factory=dict)
    is_open: bool = False
    module: str = ""


@cache
def signature(class_path: str) -> Signature | None:
    """Of a class or a function of ``bnnlight``; None where it is another's, or the source does not tell for certain.

    Args:
        class_path: as a config names it, such as ``bnnlight.nn.Tucker``.
    """
    found = _find(*_split(class_path))
    if found is None:
        return None
    module, node = found
    if isinstance(node, ast.FunctionDef):
        return None if node.decorator_list else _of_function(module, node, skip=0)
    if not isinstance(node, ast.ClassDef) or node.decorator_list or node.keywords:
        return None
    makers = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name in ("__init__", "__new__")]
    parent = _parent(module, node)
    if not makers:
        return parent
    if len(makers) > 1 or makers[0].name != "__init__" or makers[0].decorator_list:
        return None
    own = _of_function(module, makers[0], skip=1)
    if not own.is_open:
        return own
    # **options are the parent's, where they are handed on to it
    if parent is None or not _hands_on(makers[0]):
        return own
    return Signature({**parent.options, **own.options}, parent.is_open, module)


@cache
def names_in(module: str) -> tuple[str, ...] | None:
    """Public classes that a module of ``bnnlight`` names; None where there is none, or it makes names when asked."""
    tree = _tree(module)
    if tree is None or any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body):
        return None
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            try:
                return tuple(name for name in ast.literal_eval(node.value) if name[:1].isupper())
            except ValueError:
                return None
    return None


@cache
def words(kind: str, module: str) -> tuple[str, ...] | None:
    """The words that a type takes; None where it is not a list of words.

    Args:
        kind: the type as the source writes it: ``Literal[…]``, or the name of one.
        module: where it is written.
    """
    try:
        node: ast.AST = ast.parse(kind, mode="eval").body
    except SyntaxError:
        return None
    if isinstance(node, ast.Name):
        found = _find(module, node.id)
        if found is None or not isinstance(found[1], ast.Assign):
            return None
        node = found[1].value
    if not isinstance(node, ast.Subscript) or ast.unparse(node.value) != "Literal":
        return None
    try:
        value = ast.literal_eval(node.slice)
    except ValueError:
        return None
    choices = value if isinstance(value, tuple) else (value,)
    return choices if all(isinstance(choice, str) for choice in choices) else None


def _split(name: str) -> tuple[str, str]:
    module, _, last = name.rpartition(".")
    return module, last


@cache
def _tree(module: str) -> ast.Module | None:
    first, *rest = module.split(".")
    if first != "bnnlight" or not all(part.isidentifier() for part in rest):
        return None
    place = _PACKAGE.joinpath(*rest)
    for file in (place / "__init__.py", place.with_suffix(".py")):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None


def _find(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Module and statement that a name is defined by; None where it is not found, or defined more than once."""
    tree = _tree(module)
    places = []
    for node in tree.body if tree else ():
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names = [node.name]
        else:
            names = [ast.unparse(target) for target in node.targets] if isinstance(node, ast.Assign) else []
        if name in names:
            places.append((module, node))
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    places.append(_find(node.module or "", alias.name))
    return places[0] if len(places) == 1 else None


def _parent(module: str, node: ast.ClassDef) -> Signature | None:
    if len(node.bases) != 1 or not isinstance(node.bases[0], ast.Name):
        return None
    found = _find(module, node.bases[0].id)
    return signature(f"{found[0]}.{found[1].name}") if found and isinstance(found[1], ast.ClassDef) else None


def _of_function(module: str, node: ast.FunctionDef, skip: int) -> Signature:
    given = node.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs][skip:]
    options = {one.arg: ast.unparse(one.annotation) if one.annotation else "" for one in arguments}
    return Signature(options, given.kwarg is not None or given.vararg is not None, module)


def _hands_on(node: ast.FunctionDef) -> bool:
    """Whether ``**options`` go to ``super().__init__`` and nowhere else."""
    name = node.args.kwarg.arg if node.args.kwarg else ""
    uses = [part for part in ast.walk(node) if isinstance(part, ast.Name) and part.id == name]
    calls = [
        part
        for part in ast.walk(node)
        if isinstance(part, ast.Call)
        and ast.unparse(part.func) == "super().__init__"
        and any(word.arg is None and ast.unparse(word.value) == name for word in part.keywords)
    ]
    return len(uses) == len(calls) == 1
