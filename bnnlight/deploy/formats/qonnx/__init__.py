"""``model.qonnx``, networks of whole numbers for FPGA compilers.

`file.py` writes it, with the precision settings that hls4ml needs, and runs it. Its operators are in `graph.py`, which
whole numbers its values can be in `whole.py`, its quantizers for onnxruntime in `functions.py`.
"""
