"""What ``model.qonnx`` is made of, a network of whole numbers for FPGA compilers.

Its operators are in `graph.py`, which whole numbers its values can be in `whole.py`, its quantizers for onnxruntime in
`functions.py`.
"""
