"""What leaves a loader's workers: the same batch, of which only large tensors lie in shared memory."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from bnnlight.data import DigitsDataModule
from bnnlight.data.loading.bad_images import Checked
from bnnlight.data.loading.by_value import MAX_BYTES, ByValue, SmallByValue

LARGE = MAX_BYTES // 4 // 4 + 1
"""Numbers of a float32 vector of which four do not fit."""


class Mixed(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"large": torch.full((LARGE,), float(index)), "small": torch.tensor([index, -index])}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_those_of_a_plain_loader(num_workers):
    options = {"batch_size": 4, "num_workers": num_workers}
    plain = DataLoader(Mixed(), **options)
    sent = DataLoader(Mixed(), collate_fn=SmallByValue(plain.collate_fn), **options)
    for a, b in zip(plain, sent, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert type(b[key]) is torch.Tensor
            assert b[key].dtype == a[key].dtype
            assert torch.equal(a[key], b[key])


def test_only_large_tensors_come_as_shared_memory():
    loader = DataLoader(Mixed(), batch_size=4, num_workers=1)
    loader.collate_fn = SmallByValue(loader.collate_fn)
    for batch in loader:
        assert batch["large"].is_shared()
        assert not batch["small"].is_shared()
        batch["small"] += 1  # as with any other batch


def test_a_data_modules_labels_are_not_shared():
    data = DigitsDataModule(batch_size=16, num_workers=1)
    data.setup("fit")
    images, labels = next(iter(data.train_dataloader()))
    assert images.nbytes <= MAX_BYTES
    assert not images.is_shared()
    assert not labels.is_shared()


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_a_tensor_survives_its_bytes(shape, dtype):
    tensor = torch.ones(shape, dtype=dtype)
    found = pickle.loads(pickle.dumps(ByValue(tensor)))
    assert found.dtype == dtype
    assert found.shape == tensor.shape
    assert torch.equal(found, tensor)


def test_reasons_beside_a_batch_stay(monkeypatch):
    monkeypatch.setattr("bnnlight.data.loading.by_value.get_worker_info", object)
    sent = SmallByValue(lambda samples: Checked(torch.tensor(samples), ["no.png"]))([1, 2])
    found = pickle.loads(pickle.dumps(sent))
    assert isinstance(found, Checked)
    assert found.batch.tolist() == [1, 2]
    assert found.reasons == ["no.png"]
