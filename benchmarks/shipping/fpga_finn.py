"""Part of fpga.py, run by the Python of finn-plus: the file streamlined, and made of hardware layers."""

import json
import sys
from collections import Counter
from importlib.metadata import version

import numpy as np
from finn.util.settings import initialize_dummy_settings
from fpga_qonnx import agreement, executed

initialize_dummy_settings()  # before anything else of finn is imported

from finn.transformation.fpgadataflow.convert_to_hw.conv_inp_gen import InferConvInpGen  # noqa: E402
from finn.transformation.fpgadataflow.convert_to_hw.duplicate_streams import InferDuplicateStreamsLayer  # noqa: E402
from finn.transformation.fpgadataflow.convert_to_hw.elementwise_binary_operation import (  # noqa: E402
    InferElementwiseBinaryOperation,
)
from finn.transformation.fpgadataflow.convert_to_hw.quantized_matrix_vector_activation import (  # noqa: E402
    InferQuantizedMatrixVectorActivation,
)
from finn.transformation.fpgadataflow.convert_to_hw.thresholding import InferThresholdingLayer  # noqa: E402
from finn.transformation.qonnx.convert_qonnx_to_finn import ConvertQONNXtoFINN  # noqa: E402
from finn.transformation.streamline import Streamline, absorb, reorder  # noqa: E402
from finn.transformation.streamline.collapse_repeated import (  # noqa: E402
    CollapseRepeatedAdd,
    CollapseRepeatedMul,
    CollapseRepeatedTranspose,
)
from finn.transformation.streamline.remove import RemoveIdentityTranspose  # noqa: E402
from finn.transformation.streamline.round_thresholds import RoundAndClipThresholds  # noqa: E402
from qonnx.core.datatype import DataType  # noqa: E402
from qonnx.core.modelwrapper import ModelWrapper  # noqa: E402
from qonnx.transformation.batchnorm_to_affine import BatchNormToAffine  # noqa: E402
from qonnx.transformation.fold_constants import FoldConstants  # noqa: E402
from qonnx.transformation.general import GiveReadableTensorNames, GiveUniqueNodeNames, SortGraph  # noqa: E402
from qonnx.transformation.infer_data_layouts import InferDataLayouts  # noqa: E402
from qonnx.transformation.infer_datatypes import InferDataTypes  # noqa: E402
from qonnx.transformation.infer_shapes import InferShapes  # noqa: E402
from qonnx.transformation.lower_convs_to_matmul import LowerConvsToMatMul  # noqa: E402
from qonnx.util.cleanup import cleanup_model  # noqa: E402

LINEAR = (
    absorb.AbsorbScalarBiasIntoMultiThreshold(),
    BatchNormToAffine(),
    reorder.MoveMulPastFork(),
    reorder.MoveScalarLinearPastInvariants(),
    reorder.MoveAddPastMul(),
    reorder.MoveScalarMulPastConv(),
    reorder.MoveScalarMulPastMatMul(),
    reorder.MoveScalesPastIm2Col(),
    CollapseRepeatedAdd(),
    CollapseRepeatedMul(),
    absorb.AbsorbAddIntoMultiThreshold(),
    absorb.FactorOutMulSignMagnitude(),
    absorb.AbsorbMulIntoMultiThreshold(),
    absorb.Absorb1BitMulIntoConv(),
    # MoveLinearPastEltwiseAdd would lose values that are used twice
    reorder.MoveMulPastJoinAdd(),
)
LAYOUT = (
    absorb.AbsorbTransposeIntoMultiThreshold(),
    reorder.MoveTransposePastFork(),
    reorder.MoveTransposePastEltwise(),
    reorder.MoveTransposePastJoinAdd(),
    absorb.AbsorbConsecutiveTransposes(),
    CollapseRepeatedTranspose(),
    RemoveIdentityTranspose(),
)
NAMES = (InferShapes(), GiveUniqueNodeNames(), GiveReadableTensorNames(), InferDataTypes(), InferDataLayouts())
HARDWARE = (
    InferThresholdingLayer(),
    InferQuantizedMatrixVectorActivation(),
    InferConvInpGen(),
    InferElementwiseBinaryOperation(),
    InferDuplicateStreamsLayer(),
)


def transformed(model, *steps):
    for step in steps:
        model = model.transform(step).transform(SortGraph())
    return model


def repeated(model, *steps):
    """Until nothing changes any more, but at most ten times."""
    for _ in range(10):
        before = operators(model)
        model = transformed(model, *steps, InferDataTypes())
        if operators(model) == before:
            break
    return transformed(model, *NAMES)


def operators(model):
    return dict(Counter(node.op_type for node in model.graph.node))


def real_values(model):
    """Values between nodes that are no whole numbers, by the node that gives them."""
    types = [(node.op_type, model.get_tensor_datatype(node.output[0])) for node in model.graph.node]
    return [op for op, kind in types if not kind.is_integer()]


def main(file, settings, pictures, found):
    given = np.load(pictures)

    def measured(model):
        record = agreement(executed(model, given["pixels"]), given)
        return {**record, "operators": operators(model), "real_values_behind": real_values(model)}

    model = cleanup_model(ModelWrapper(file))
    model.set_tensor_datatype(model.graph.input[0].name, DataType["UINT8"])
    model = transformed(model, ConvertQONNXtoFINN(), FoldConstants(), *NAMES)
    record = {"versions": {name: version(name) for name in ("finn-plus", "qonnx")}}
    plain = transformed(model, absorb.AbsorbScalarBiasIntoMultiThreshold(), Streamline())
    record["streamlined"] = measured(plain)
    model = repeated(repeated(model, *LINEAR).transform(LowerConvsToMatMul()), *LAYOUT, *LINEAR)
    model = transformed(model, RoundAndClipThresholds(), *NAMES)
    record["streamlined_with_shortcuts"] = measured(model)
    record["hardware_layers"] = measured(transformed(model, *HARDWARE, *NAMES))
    with open(found, "w") as stream:
        json.dump(record, stream)


if __name__ == "__main__":
    main(*sys.argv[1:])
