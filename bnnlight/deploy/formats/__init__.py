"""Programs as files: each format has a writer, and an engine that runs the file.

`packed.py` is safetensors: `container.py` reads it as a stranger's work, `plain.py` runs it in torch, `alone.py` one
picture at a time. `openvino.py` is ``model.xml`` with ``model.bin``: its layers are in `openvino_graph.py`, ranges of
integers in `int8.py`; `openvino_precision.py` marks its nodes, so that they stay in float32 wherever the file runs;
`openvino_compiled.py` runs it in any number of threads, `openvino_floats.py` without kernels on bits, as on ARM.
`onnx.py` is ``model.onnx``: its operators are in `onnx_graph.py`, its bytes in `onnx_bytes.py`. `qonnx.py` is
``model.qonnx``, for FPGAs, made of what is in `fpga/`. `lce.py` is ``model.tflite``, which runs elsewhere, made of what
is in `larq/`. `workers.py` has the threads that all engines compute with. Nothing is imported here, since
each format needs a library of its own.
"""
