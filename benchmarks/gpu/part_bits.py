"""Activations as bits: the kernels' results against plain code on the CPU, and their time against what they replace."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from part import Findings, options

from bnnlight.nn.binarize import decode_sign, encode_sign, sign_backward
from bnnlight.nn.compute.bits import Layout, gated, normalize_and_pack, pack, unpack_sign


def main() -> int:
    """Runs it."""
    asked = options(__doc__)
    findings = Findings(asked.output)
    torch.manual_seed(0)
    shape = (2, 8, 16, 16) if asked.small else (64, 256, 56, 56)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(3, 33, 9, 7).to(dtype).to(memory_format=memory_format)
            scale, shift = torch.randn(2, 33)
            there = x.to(asked.device)
            layout = Layout.of(x)
            plain = [*pack(x, "clipped"), *normalize_and_pack(x, scale, shift, "clipped")]
            moved = scale.to(asked.device), shift.to(asked.device)
            found = [*pack(there, "clipped"), *normalize_and_pack(there, *moved, "clipped")]
            plain += [unpack_sign(plain[0], layout, dtype), gated(x, plain[1], layout)]
            found += [unpack_sign(found[0], layout, dtype), gated(there, found[1], layout)]
            same = all(torch.equal(a, b.cpu()) for a, b in zip(plain, found, strict=True))
            title = f"bits: {dtype}, {memory_format}".replace("torch.", "")
            findings.check(title, "plain code's, bit for bit", "equal" if same else "differ", same)
    x = torch.randn(shape, device=asked.device).to(torch.bfloat16).to(memory_format=torch.channels_last)
    grad, channels = torch.randn_like(x), shape[1]
    mean, var, gamma, beta = (torch.rand(channels, device=asked.device) for _ in range(4))
    layout, code = Layout.of(x), encode_sign(x, "clipped")
    negative, passes = pack(x, "clipped")
    scale = gamma * (var + 1e-5).rsqrt()
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "sign and gate, kept": (lambda: encode_sign(x, "clipped"), lambda: pack(x, "clipped")),
        "norm, sign and gate, kept": (
            lambda: encode_sign(F.batch_norm(x, mean, var, gamma, beta), "clipped"),
            lambda: normalize_and_pack(x, scale, beta - mean * scale, "clipped"),
        ),
        "signs back": (lambda: decode_sign(code, x.dtype), lambda: unpack_sign(negative, layout, x.dtype)),
        "gradient through": (lambda: sign_backward(grad, code, "clipped"), lambda: gated(grad, passes, layout)),
    }
    for name, (bytes_kept, bits_kept) in pairs.items():
        times = {"a byte": [], "bits": []}
        for _ in range(3 if asked.small else 30):
            for key, function in (("a byte", bytes_kept), ("bits", bits_kept)):
                times[key].append(_seconds(function, asked.device))
        before, after = (1e3 * statistics.median(times[key][1:]) for key in times)
        findings.figure(name, {"a byte, ms": before, "bits, ms": after, "ratio": after / before})
    size = negative.numel() * 4 + passes.numel() * 4
    findings.figure("bits kept an activation", 8 * size / x.numel())
    return 0


def _seconds(function: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
