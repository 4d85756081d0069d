"""Programs as TensorFlow Lite files with Larq Compute Engine's operators, written without TensorFlow.

`tflite_file.py` writes such files: tensors, constants, operators. `operators.py` says what each operation of a program
becomes, `convolutions.py` what those with weights do, `activations.py` what functions of each number do, `windows.py`
what padding does; `graph.py` is what they write into. `limits.py` tells what the engine cannot take, before anything is
written.

LceQuantize makes bits of real numbers, LceBconv2d convolves bits with bits, LceBMaxPool2d pools them, and LceDequantize
makes real numbers of them. All between is TensorFlow Lite's own operators.
"""
