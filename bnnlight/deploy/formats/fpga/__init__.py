"""What ``model.qonnx`` is made of, a network of whole numbers for FPGA compilers.

Its operators are in `graph.py`, behind the rewriting of `directions.py`; which whole numbers its values can be is in
`whole.py`, and its quantizers for onnxruntime are in `functions.py`.
"""
