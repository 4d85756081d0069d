"""From the graph of a torch network to the steps of a program, one node at a time."""

from __future__ import annotations

from torch import fx, nn

from bnnlight.deploy.functions import FUNCTIONS, METHODS, MODULES
from bnnlight.deploy.layers import LAYERS
from bnnlight.deploy.program import INPUT, Step
from bnnlight.deploy.translation import Translation, Unsupported


def translate(graph: fx.Graph, model: nn.Module) -> tuple[Step, ...]:
    """The steps of a traced network, one or a few for each node, nothing folded yet.

    A binary layer PATH becomes ``PATH.sign``, ``PATH.sum`` and PATH itself, its scaled output.

    Args:
        graph: of :func:`bnnlight.deploy.trace.trace`.
        model: that it was traced from, in eval mode, on the CPU, float32.

    Returns:
        Steps, the last of which gives the network's output.

    Raises:
        ValueError: layers or functions that cannot be shipped; the message has the path of each.
    """
    made = Translation(model)
    wrong = []
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
            wrong.append(f"{_place(node)}: {error}")
            made.values[node] = node.name
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"cannot be shipped: {'; '.join(wrong[:5])}{more}")
    return tuple(made.steps[: 1 + [step.name for step in made.steps].index(output)])


def _call(made: Translation, node: fx.Node) -> str:
    if node.op == "call_module":
        module = made.model.get_submodule(node.target)
        kind = type(module)
        if kind in LAYERS or kind in MODULES:
            return (LAYERS.get(kind) or MODULES[kind])(made, node, module)
        raise Unsupported(f"there is no operation for {kind.__module__}.{kind.__qualname__}")
    known = FUNCTIONS if node.op == "call_function" else METHODS
    if node.target not in known:
        raise Unsupported("there is no operation for it")
    return known[node.target](made, node)


def _output(made: Translation, node: fx.Node) -> str:
    (value,) = node.args
    if not isinstance(value, fx.Node):
        raise Unsupported("the network returns several values: ship one that returns a single tensor")
    if made.values.get(value, INPUT) == INPUT:
        raise Unsupported("the network does nothing with its input")
    return made.values[value]


def _place(node: fx.Node) -> str:
    if node.op == "call_module":
        return f"layer {node.target}"
    if node.op == "output":
        return "output"
    stack = list(node.meta.get("nn_module_stack", {}).values())
    inside = f" in layer {stack[-1][0]}" if stack and stack[-1][0] else ""
    return f"function {getattr(node.target, '__name__', node.target)}{inside}"
