import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bnnlight.metrics import flip_rate, pack_signs


@pytest.mark.parametrize("shape", [(1,), (8,), (13,), (4, 3, 3, 3), (5, 7), (64, 64)])
def test_packed_signs_equal_numpys_packed_bits(shape):
    weight = torch.randn(shape)
    expected = np.packbits(weight.numpy().ravel() >= 0, bitorder="little")
    packed = pack_signs(weight)
    assert packed.dtype == torch.uint8
    assert np.array_equal(packed.numpy(), expected)


def test_zero_counts_as_plus_one_and_the_first_entry_is_the_lowest_bit():
    assert pack_signs(torch.tensor([0.0, -1.0, -0.0, -2.0])).tolist() == [0b0101]
    assert pack_signs(torch.tensor([-1.0] * 8 + [1.0])).tolist() == [0, 1]


def test_packing_reads_entries_in_order_whatever_the_memory_layout():
    weight = torch.randn(4, 3, 3, 3)
    assert torch.equal(pack_signs(weight.to(memory_format=torch.channels_last)), pack_signs(weight))


def test_packing_takes_a_parameter_and_half_precision():
    weight = torch.nn.Parameter(torch.tensor([0.5, -0.5, 0.0], dtype=torch.bfloat16))
    assert pack_signs(weight).tolist() == [0b101]


def test_flip_rate_by_hand():
    before = torch.tensor([1.0, 1, 1, -1, -1, -1, 1, 1, -1, 1])
    after = torch.tensor([1.0, -1, 1, -1, 1, -1, 1, 1, -1, -1])
    assert flip_rate(pack_signs(before), pack_signs(after), 10) == 0.3


def test_flip_rate_of_nothing_and_everything_ignores_the_filled_up_byte():
    signs = torch.where(torch.rand(4, 3, 3, 3) < 0.5, -1.0, 1.0)[..., :2].reshape(-1)[:67]
    assert flip_rate(pack_signs(signs), pack_signs(signs), 67) == 0
    # the five bits that fill the last byte never flip
    assert flip_rate(pack_signs(signs), pack_signs(-signs), 67) == 1


def test_flip_rate_equals_a_count_over_entries():
    before, after = torch.randn(2, 30, 7)
    expected = float(np.mean((before.numpy() >= 0) != (after.numpy() >= 0)))
    assert flip_rate(pack_signs(before), pack_signs(after), 210) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("before", "after", "num_weights"), [(8, 9, 8), (9, 8, 9), (16, 16, 8), (8, 8, 9)])
def test_different_numbers_of_weights_are_an_error(before, after, num_weights):
    with pytest.raises(ValueError, match=f"{num_weights} signs"):
        flip_rate(pack_signs(torch.ones(before)), pack_signs(torch.ones(after)), num_weights)


def test_only_packed_bits_leave_the_device_of_the_weight():
    copies = []

    class Copies(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function is torch.ops.aten._to_copy.default and (kwargs or {}).get("device") == torch.device("cpu"):
                copies.append((args[0].device.type, args[0].dtype, args[0].numel()))
            return function(*args, **(kwargs or {}))

    # tensors without values, on a GPU that need not be there
    with FakeTensorMode(allow_non_fake_inputs=True), Copies():
        packed = pack_signs(torch.empty(5, 20, device="cuda"))
    assert packed.device.type == "cpu"
    assert copies == [("cuda", torch.uint8, 13)]
