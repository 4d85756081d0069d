"""A trained network as a shipped one: frozen, written down in three formats, run without the code that trains.

The map of this folder:

=================== =========================================================================
``runtime.py``      `Runtime`: a shipped model in use, from pictures to answers
``workers.py``      the threads that engines compute with
``shipped.py``      the models that come with the package
``answers.py``      what lies before and behind the network: pictures in, classes or joints out
``manifest.py``     what a shipped model says of itself
``seal.py``         the checksum inside a file
``card.py``         the model card, README.md beside the model
``check.py``        how far a model agrees with its checkpoint, and what must be equal;
                    ``verify.py`` compares them
``twin.py``         the real-valued twin that a model is timed against
``program.py``      what is shipped of a network: a list of steps
``operations.py``   the operations that a step may be, and what is checked of them; their
                    shapes are in ``shapes.py``
``bits.py``         signs as bits, eight to a byte
``freeze.py``       a trained network to a program, in these stages:
``trace.py``        the network's layers and functions, in the order in which they run; their
                    arguments put in order by ``arguments.py``
``translate.py``    each as a step; those of ``layers.py``, ``functions.py`` and
                    ``constants.py`` are known, in the terms of ``translation.py``
``fold.py``         batch norm, α and PReLU in front of a sign gone into its threshold
``thresholds.py``   where a sign changes behind them, in the ``arithmetic.py`` of torch
``plain.py``        a program as an ordinary torch module
``packed.py``       a program as ``model.safetensors``, run by torch; ``container.py`` and
                    ``untrusted.py`` read what may be a stranger's work
``openvino.py``     a program as ``model.xml`` and ``model.bin``, run by OpenVINO; its layers
                    are in ``openvino_graph.py``; ``int8.py`` finds ranges for integers,
                    ``signal_stack.py`` mends what it does to signals
``onnx.py``         a program as ``model.onnx``, run by ONNX Runtime; its operators are in
                    ``onnx_graph.py``, its bytes in ``onnx_bytes.py``
=================== =========================================================================

Importing this package, a manifest or the engines of OpenVINO and ONNX brings neither torch nor Lightning in; what
freezes a network does.
"""

from bnnlight.deploy.runtime import Runtime

__all__ = ["Runtime"]
