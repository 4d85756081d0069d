"""Marks in an OpenVINO file that keep its layers on float32 wherever it runs.

OpenVINO computes in bfloat16 on processors that have AVX512_BF16 or AMX, in float16 on some others, unless whoever
compiles the model asks for float32. Rounded that far, sums lie on the other side of their thresholds. A file cannot
carry the request for the whole model, but each node can carry the attribute ``DisablePrecisionConversion``, which
OpenVINO's own passes give to what must not be rounded. It has been read from files, and kept through the plug-in's
rewriting, since OpenVINO 2026.4, with two conditions:

- No node may be replaced by another when the model is compiled, since the attribute is not copied. So operations are
  written in the version that the plug-in runs as it is: :mod:`bnnlight.deploy.formats.openvino_graph` takes the pools
  of the first operation set and the interpolation of the fourth.
- Products are kept apart from a bias, and 8-bit products from all that is behind them.
"""

from __future__ import annotations

import re

import openvino as ov

_LAYER = re.compile(rb'<layer(?: [\w.:]+="[^"]*")+>')
_UNMARKED = re.compile(rb' type="(?:Parameter|Result|Const)"')
_MARK = b'<rt_info><attribute name="DisablePrecisionConversion" version="0" value="dynamic:f16"/></rt_info>'
"""From any type to float16; the plug-in takes it for every type that is narrower than float32."""


def keep_float32(xml: bytes) -> bytes:
    """The same OpenVINO IR, with a mark on every node that computes.

    Args:
        xml: as OpenVINO has written it, of a model whose nodes have no ``rt_info`` of their own.
    """
    return _LAYER.sub(lambda tag: tag[0] if _UNMARKED.search(tag[0]) else tag[0] + _MARK, xml)


def narrow_nodes(compiled: ov.CompiledModel) -> dict[str, str]:
    """What a compiled model computes in fewer bits than float32 has, and was not asked to: no answer may rest on it.

    Returns:
        Names of the file's nodes that were joined in a node of the compiled model, with commas between → its type, as
        ``bf16``.
    """
    types = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = node.get_rt_info()
        kind = str(info["runtimePrecision"].value)
        if kind in ("bf16", "f16"):
            types[str(info["originalLayersNames"].value) or node.get_friendly_name()] = kind
    return types
