"""From the graph of a torch network to the steps of a program, one node at a time."""

from __future__ import annotations

from torch import fx, nn

from bnnlight.deploy.freezing.functions import FUNCTIONS, METHODS, MODULES
from bnnlight.deploy.freezing.layers import LAYERS
from bnnlight.deploy.freezing.translation import Translation, Unsupported
from bnnlight.deploy.program import INPUT, Step
from bnnlight.nn.torch_internals import has_forward_hook


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
        ValueError: layers or functions that cannot be shipped; the message has the path of each.
    """
    made = Translation(model)
    wrong: dict[str, list[str]] = {}
    output = INPUT
    for node in graph.nodes:
        try:
            if node.op == "placeholder":
                made.values[node] = INPUT
            elif node.op == "output":
                output = _output(made, node)
            elif node.op != "get_attr":  # constants are looked up by the functions that can use one
                made.values[node] = _call(made, node)
        except Unsupported as error:
            wrong.setdefault(str(error), []).append(_place(node))
            made.values[node] = node.name
    if wrong:
        reasons = "; ".join(f"{', '.join(dict.fromkeys(places))}: {reason}" for reason, places in wrong.items())
        raise ValueError(f"cannot be shipped: {reasons}")
    return tuple(made.steps[: 1 + [step.name for step in made.steps].index(output)])


def _call(made: Translation, node: fx.Node) -> str:
    if node.op == "call_module":
        module = made.model.get_submodule(node.target)
        kind = type(module)
        if kind not in LAYERS and kind not in MODULES:
            raise Unsupported(f"there is no operation for {kind.__module__}.{kind.__qualname__}")
        if module.training:
            raise Unsupported("it stays in training mode when the network is in eval mode")
        if has_forward_hook(module):
            raise Unsupported("it has hooks, which may change its value: remove them")
        translated, arguments = LAYERS.get(kind) or MODULES[kind], (module,)
    else:
        known = FUNCTIONS if node.op == "call_function" else METHODS
        if node.target not in known:
            raise Unsupported("there is no operation for it")
        translated, arguments = known[node.target], ()
    return translated(made, node, *arguments)


def _output(made: Translation, node: fx.Node) -> str:
    (value,) = node.args
    if not isinstance(value, fx.Node):
        raise Unsupported("the network returns several values: ship one that returns a single tensor")
    if made.values.get(value, INPUT) == INPUT:
        raise Unsupported("the network does nothing with its input")
    return made.value(value)


def _place(node: fx.Node) -> str:
    if node.op == "call_module":
        return f"layer {node.target}"
    if node.op == "output":
        return "output"
    stack = list(node.meta.get("nn_module_stack", {}).values())
    inside = f" in layer {stack[-1][0]}" if stack and stack[-1][0] else ""
    return f"function {getattr(node.target, '__name__', node.target)}{inside}"
