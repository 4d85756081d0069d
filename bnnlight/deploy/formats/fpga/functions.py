"""QONNX's quantizers in standard operators, as functions of an ONNX model, so that onnxruntime runs them."""

from __future__ import annotations

from onnx import FunctionProto, NodeProto, helper

from bnnlight.deploy.formats.fpga.graph import DOMAIN
from bnnlight.deploy.formats.fpga.model import OPSET


def _node(op: str, inputs: str, output: str, **attributes: object) -> NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def _number(value: float, name: str) -> NodeProto:
    return helper.make_node("Constant", [], [name], value_float=float(value))


def _flag(name: str) -> list[NodeProto]:
    """An attribute of the function as a float."""
    node = helper.make_node("Constant", [], [name + ":whole"])
    attribute = node.attribute.add()
    attribute.name, attribute.ref_attr_name, attribute.type = "value_int", name, 2
    return [node, helper.make_node("Cast", [name + ":whole"], [name], to=1)]


def _function(name: str, inputs: str, nodes: list[NodeProto], attributes: list[str]) -> FunctionProto:
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_function(DOMAIN, name, inputs.split(), ["y"], nodes, opsets, attributes)


FUNCTIONS = [
    _function(
        "BipolarQuant",
        "x scale",
        [
            *(_number(value, name) for value, name in ((0, "zero"), (1, "one"), (-1, "minus"))),
            _node("GreaterOrEqual", "x zero", "positive"),
            _node("Where", "positive one minus", "sign"),
            _node("Mul", "sign scale", "y"),
        ],
        [],
    ),
    _function(
        "Quant",
        "x scale zero_point bits",
        [
            *(_number(value, name) for value, name in ((1, "one"), (2, "two"))),
            *_flag("signed"),
            *_flag("narrow"),
            # signed: from −2^(bits−1) + narrow to 2^(bits−1) − 1; else from 0 to 2^bits − 1 − narrow
            _node("Sub", "bits signed", "magnitude"),
            _node("Pow", "two magnitude", "power"),
            _node("Sub", "narrow power", "negative"),
            _node("Mul", "signed negative", "least"),
            _node("Sub", "one signed", "unsigned"),
            _node("Mul", "unsigned narrow", "lost"),
            _node("Sub", "power one", "largest"),
            _node("Sub", "largest lost", "most"),
            _node("Div", "x scale", "scaled"),
            _node("Add", "scaled zero_point", "moved"),
            _node("Max", "moved least", "above"),
            _node("Min", "above most", "within"),
            _node("Round", "within", "whole"),
            _node("Sub", "whole zero_point", "back"),
            _node("Mul", "back scale", "y"),
        ],
        ["signed", "narrow", "rounding_mode"],
    ),
]
"""``BipolarQuant`` and ``Quant`` with ``rounding_mode`` ROUND."""
