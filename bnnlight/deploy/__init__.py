"""Shipping a trained network: frozen, written as a file, run without the code that trains.

The map of this folder:

=================== =========================================================================
``program/``        what is shipped of a network: a list of steps, each an operation with numbers
``freezing/``       a trained network to a program
``formats/``        a program as a file, packed, OpenVINO or ONNX, and the engines that run it; or
                    for Larq Compute Engine, which runs elsewhere
``proof/``          a shipped model beside its checkpoint, and beside its real-valued twin
``runtime.py``      `Runtime`: a shipped model in use, from pictures to answers
``shipped.py``      the models that come with the package
``hub.py``          models on the Hugging Face Hub, downloaded and uploaded
``answers.py``      what lies before and behind the network: pictures in, classes or joints out
``manifest.py``     what a shipped model says of itself
``seal.py``         the checksum inside a file
``card.py``         the model card, README.md beside the model
``check.py``        how far a model agrees with its checkpoint, and what must be equal: the card
                    shows it, ``proof/verify.py`` counts it
=================== =========================================================================

``program`` imports nothing of these, ``freezing`` and ``formats`` import ``program``, formats the manifest and the seal
too, and ``proof`` imports ``formats``. The runtime knows a format by name and imports it when a file asks for it.

Importing this package, a manifest or the engines of OpenVINO and ONNX brings neither torch nor Lightning in; what
freezes a network does.
"""

from bnnlight.deploy.runtime import Runtime

__all__ = ["Runtime"]
