"""From the graph of a torch network to the steps of a program, one node at a time."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import fx, nn

from bnnlight.deploy.freezing.functions import FUNCTIONS, METHODS, MODULES
from bnnlight.deploy.freezing.layers import LAYERS
from bnnlight.deploy.freezing.translation import Translation, Unsupported
from bnnlight.deploy.program import INPUT, Step
from bnnlight.nn.torch_internals import has_forward_hook

MOST_PATHS, MOST_KINDS = 3, 3
"""So many paths of one kind of layer, kinds for one reason, and reasons are named in a message."""
_NUMBERS = re.compile(r"\d+")


class Refused(ValueError):
    """What of a network cannot be shipped, in one line that can be read.

    Args:
        wrong: (reason, ``layer CLASS`` or ``function NAME``) → paths of layers.

    Attributes:
        wrong: all of it; the message names the first of them, and how many there are.
    """

    def __init__(self, wrong: Mapping[tuple[str, str], Sequence[str]]) -> None:
        self.wrong = {key: tuple(paths) for key, paths in wrong.items()}
        # reasons that differ in their numbers alone are one, told of the first
        reasons: dict[str, dict[str, list[str]]] = {}
        texts: dict[str, dict[str, None]] = {}
        for (reason, kind), paths in self.wrong.items():
            form = _NUMBERS.sub("#", reason)
            reasons.setdefault(form, {}).setdefault(kind, []).extend(path for path in paths if path)
            texts.setdefault(form, {}).setdefault(reason)
        lines = []
        for form, kinds in reasons.items():
            named = [_named(kind, [*dict.fromkeys(paths)]) for kind, paths in kinds.items()]
            several = "for the first, " if len(texts[form]) > 1 else ""
            lines.append(f"{_first(named, MOST_KINDS)}: {several}{next(iter(texts[form]))}")
        super().__init__(f"cannot be shipped: {_first(lines, MOST_KINDS, '; ', 'reason')}")


def _named(kind: str, paths: list[str]) -> str:
    """``layers 1, 3, 5 and 9 more (SiLU)``, ``function pad in layer 3``, or what stands in no layer."""
    if not paths:
        return kind
    what, _, name = kind.partition(" ")
    layers = f"layer{'s' if len(paths) > 1 else ''} {_first(paths, MOST_PATHS)}"
    return f"{layers} ({name})" if what == "layer" else f"{kind} in {layers}"


def _first(texts: Sequence[str], count: int, between: str = ", ", what: str = "") -> str:
    """The first few of them, and how many more there are of what."""
    if len(texts) <= count:
        return between.join(texts)
    rest = len(texts) - count
    unit = f" {what}{'s' * (rest > 1)}" if what else ""
    return f"{between.join(texts[:count])}{between if what else ' '}and {rest} more{unit}"


def translate(graph: fx.Graph, model: nn.Module) -> tuple[Step, ...]:
    """The steps of a traced network, one or a few for each node, nothing folded yet.

    A binary layer PATH becomes ``PATH.sign``, ``PATH.sum`` and PATH itself, its scaled output; one with a bias has
    ``PATH.scaled`` before it.

    Args:
        graph: of :func:`bnnlight.deploy.freezing.trace.trace`.
        model: that it was traced from, in eval mode, on the CPU, float32.

    Returns:
        Steps, the last of which gives the network's output.

    Raises:
        Refused: layers or functions that cannot be shipped. The message has each kind and reason, and the first paths.
    """
    t = Translation(model)
    wrong: dict[tuple[str, str], list[str]] = {}
    output = INPUT
    for node in graph.nodes:
        try:
            if node.op == "placeholder":
                t.values[node] = INPUT
            elif node.op == "output":
                output = _output(t, node)
            elif node.op != "get_attr":  # constants are looked up by the functions that can use one
                t.values[node] = _call(t, node)
        except Unsupported as error:
            kind, path = _place(node, model)
            paths = wrong.setdefault((str(error), kind), [])
            if path not in paths:
                paths.append(path)
            t.values[node] = node.name
    if wrong:
        raise Refused(wrong)
    return tuple(t.steps[: 1 + [step.name for step in t.steps].index(output)])


def _call(t: Translation, node: fx.Node) -> str:
    if node.op == "call_module":
        module = t.model.get_submodule(node.target)
        kind = type(module)
        if kind not in LAYERS and kind not in MODULES:
            raise Unsupported("there is no operation for it")
        if module.training:
            raise Unsupported("it stays in training mode when the network is in eval mode")
        if has_forward_hook(module):
            raise Unsupported("it has hooks, which may change its value: remove them")
        translated, arguments = LAYERS.get(kind) or MODULES[kind], (module,)
    else:
        translations = FUNCTIONS if node.op == "call_function" else METHODS
        if node.target not in translations:
            raise Unsupported("there is no operation for it")
        translated, arguments = translations[node.target], ()
    return translated(t, node, *arguments)


def _output(t: Translation, node: fx.Node) -> str:
    (value,) = node.args
    if not isinstance(value, fx.Node):
        raise Unsupported("the network returns several values: ship one that returns a single tensor")
    if t.values.get(value, INPUT) == INPUT:
        raise Unsupported("the network does nothing with its input")
    return t.value(value)


def _place(node: fx.Node, model: nn.Module) -> tuple[str, str]:
    """The kind of a layer or function, and the path of the layer that it is or stands in; no path for the network."""
    if node.op == "call_module":
        return f"layer {type(model.get_submodule(node.target)).__name__}", node.target
    if node.op == "output":
        return "output", ""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return f"function {getattr(node.target, '__name__', node.target)}", stack[-1][0] if stack else ""
