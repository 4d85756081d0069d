"""The engine of packed files: batches of pictures, and threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bnnlight.deploy.formats.packed import PackedEngine, packed_signs


def test_an_engine_takes_batches_of_any_size(packed, images):
    file, _ = packed
    engine = PackedEngine(file)
    assert engine.input_shape == (3, 16, 16)
    assert engine.manifest.classes == tuple("abcde")
    whole = engine(images)
    assert whole.shape == (3, 5)
    single = np.concatenate([engine(images[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(single, whole, atol=1e-5)
    assert engine(images[:0]).shape == (0, 5)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda x: x.astype(np.float64), ("float64", "float32")),
        (lambda x: (255 * x).astype(np.uint8), ("uint8", "float32")),
        (lambda x: x.astype(">f4"), (">f4", "float32")),
        (lambda x: x[0], ("(3, 16, 16)", "(N, 3, 16, 16)")),
        (lambda x: x[:, :1], ("(3, 1, 16, 16)", "(N, 3, 16, 16)")),
        (lambda x: x[..., :8], ("(3, 3, 16, 8)", "(N, 3, 16, 16)")),
        (lambda x: x[None], ("(1, 3, 3, 16, 16)", "(N, 3, 16, 16)")),
        (lambda x: x.tolist(), ("list", "float32")),
    ],
)
def test_wrong_images_are_refused(packed, images, check_one_line, change, parts):
    for run in (PackedEngine(packed[0]), packed_signs(packed[0])):
        with pytest.raises(ValueError) as error:
            run(change(images))
        check_one_line(error, *parts)


def test_images_are_left_as_they_are_and_may_be_read_only(packed, images):
    engine = PackedEngine(packed[0])
    view = images[::-1, :, ::-1].copy()[::-1, :, ::-1]
    view.flags.writeable = False
    np.testing.assert_array_equal(engine(view), engine(images))
    assert view.tobytes() == images.tobytes()


@pytest.mark.parametrize(("asked", "wanted"), [(3, 3), (None, 1)])
def test_the_number_of_threads_holds_where_the_engine_computes_and_nowhere_else(packed, images, asked, wanted):
    before, seen = torch.get_num_threads(), []
    engine = PackedEngine(packed[0], num_threads=asked)
    network = engine._network._network
    hook = network.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    engine(images)
    hook.remove()
    assert set(seen) == {wanted}
    network.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine(images)
    # neither here nor in a thread that is still to come
    with ThreadPoolExecutor(1) as new:
        assert torch.get_num_threads() == new.submit(torch.get_num_threads).result() == before


@pytest.mark.parametrize("count", [0, -1])
def test_a_number_of_threads_below_one_is_refused(packed, count, check_one_line):
    with pytest.raises(ValueError) as error:
        PackedEngine(packed[0], num_threads=count)
    check_one_line(error, f"num_threads is {count}")
