"""What ``model.qonnx`` is made of, a network of whole numbers for FPGA compilers.

`model.py` writes it: what each operation becomes is in `operators.py` and `layers.py`, behind the rewriting of
`directions.py`. Which whole numbers values can be is in `whole.py`, what is left real in `values.py`; the quantizers
for onnxruntime are in `functions.py`.
"""
