#!/usr/bin/env bash
# Casts to bfloat16 in a kernel that Triton 3.8.0 interprets on a CPU (TRITON_INTERPRET=1).
#
# Triton: the interpreter stores an integer's lowest 16 bits as they are, so that 1 becomes 9e-41. It cuts a float32 off in
# place of rounding it to the nearest, also where the cast asks for that (fp_downcast_rounding="rtne"), as compiled kernels
# do without being asked: 1.005 becomes 1.0 in place of 1.0078. Casts to float16 are right. So a test of kernels by the
# interpreter fails in bfloat16 where they are right, and passes where they are wrong by a rounding.
#
# Exits 0 while this is so. Usage: findings/triton_interpreter_bfloat16.sh
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 triton==3.8.0 numpy==2.4.0
cd "$folder"
cat > casts.py <<'PYTHON'
import torch
import triton
import triton.language as tl


@triton.jit
def casts(x_ptr, plain_ptr, nearest_ptr, half_ptr, whole_ptr, N: tl.constexpr):
    places = tl.arange(0, N)
    x = tl.load(x_ptr + places)
    tl.store(plain_ptr + places, x.to(tl.bfloat16))
    tl.store(nearest_ptr + places, x.to(tl.bfloat16, fp_downcast_rounding="rtne"))
    tl.store(half_ptr + places, x.to(tl.float16))
    tl.store(whole_ptr + places, places.to(tl.bfloat16))


x = torch.tensor([1.005, 1.003, -0.3, 7.99])
plain, nearest, whole = (torch.empty(4, dtype=torch.bfloat16) for _ in range(3))
half = torch.empty(4, dtype=torch.float16)
casts[(1,)](x, plain, nearest, half, whole, N=4)
print("triton", triton.__version__)
print("float32, rounded by torch ", x.bfloat16().tolist())
print("float32, plain cast       ", plain.tolist())
print("float32, cast to nearest  ", nearest.tolist())
print("0, 1, 2, 3                ", whole.tolist())
cut = (x.view(torch.int32) >> 16 << 16).view(torch.float32).bfloat16()
assert torch.equal(plain, cut) and torch.equal(nearest, cut) and not torch.equal(cut, x.bfloat16())
assert torch.equal(whole.view(torch.int16), torch.arange(4, dtype=torch.int16))
assert torch.equal(half, x.half())
PYTHON
TRITON_INTERPRET=1 "$folder/venv/bin/python" -W ignore casts.py
