"""How layers and latents compute, and what they keep for the backward pass; also the fixed-point layers.

`binary_conv.py` is the binary convolution as one function: its sums in `integer_conv.py`, over `patches.py`, rounded by
`rounding.py`; its gradients in `conv_gradients.py`. `product.py` has the products that weights are rebuilt with, and
`kernels.py` functions of torch that are not public, each beside a public way. `bits.py` keeps activations as bits where
that is wanted, with kernels for GPUs in `bits_triton.py`. `lean.py` trains in half the memory, `kept_weights.py`
rebuilds weights once for several batches. `relaxed.py` is for stages before a layer is binary, `sync_norm.py` for batch
norm over several processes, `fixed_point.py` for what stays real on an FPGA.
"""
