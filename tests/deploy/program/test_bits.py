import numpy as np
import pytest

from bnnlight.deploy.program.bits import pack_signs, unpack_signs


def test_bits_by_hand():
    # lowest bit first: + - - + is 1001, read from the right; the ninth weight begins a byte
    weight = np.array([[1, -1, -1], [1, -1, -1], [-1, 1, 1]])
    packed = pack_signs(weight)
    assert packed.dtype == np.uint8
    assert packed.tolist() == [0b10001001, 0b1]
    assert unpack_signs(packed, (3, 3)).tolist() == weight.tolist()


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (64,), (65,), (3, 5, 1, 1), (10, 7, 3, 3)])
def test_unpacking_undoes_packing(shape):
    weight = np.random.default_rng(0).choice(np.float32([-1, 1]), shape)
    packed = pack_signs(weight)
    assert packed.shape == (-(-weight.size // 8),)
    back = unpack_signs(packed, shape)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, weight)


def test_unused_bits_are_zero_and_are_not_read():
    packed = pack_signs(np.ones(11))
    assert packed.tolist() == [255, 0b111]
    assert unpack_signs(np.uint8([255, 255]), (11,)).tolist() == [1.0] * 11


@pytest.mark.parametrize("wrong", [0.0, 0.5, np.nan, -2.0])
def test_only_signs_can_be_packed(wrong, check_one_line):
    with pytest.raises(ValueError) as error:
        pack_signs(np.array([1.0, -1.0, wrong]))
    check_one_line(error, "-1 and +1")
