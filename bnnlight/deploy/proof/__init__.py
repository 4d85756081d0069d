"""Compares a shipped model with its checkpoint, and with its real-valued twin.

`verify.py` runs model and checkpoint on the same pictures and counts where they differ; how much may differ is in
`bnnlight/deploy/check.py`, since the model card shows it too. `twin.py` makes the real-valued network that
`bnnlight bench` times a model against, and `quantized.py` puts it on 8-bit integers.
"""
