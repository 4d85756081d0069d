from pathlib import Path

from torch.utils.data import ConcatDataset, Subset

from bnnlight.data.classes.data_module import View
from bnnlight.data.loading.files import file_of


class Listed:
    """As torchvision's ``ImageFolder``."""

    def __init__(self, *names):
        self.samples = [(name, 0) for name in names]

    def __len__(self):
        return len(self.samples)


class Own:
    def file(self, index):
        return f"own{index}"

    def __len__(self):
        return 2


def test_through_views_subsets_and_sets_in_a_row():
    both = ConcatDataset([Listed("a", "b", "c"), Own(), Listed("d")])
    assert [str(file_of(both, i)) for i in range(6)] == ["a", "b", "c", "own0", "own1", "d"]
    view = View(both, None, [5, 0, 4])
    assert [str(file_of(view, i)) for i in range(3)] == ["d", "a", "own1"]
    assert file_of(Subset(view, [2, 0]), 1) == Path("d")


def test_items_without_files():
    assert file_of([1, 2], 0) is None
    assert file_of(View([(1, 2)], None), 0) is None
    # a set that keeps the file of its labels has none for each item
    labelled = type("Labelled", (list,), {"file": "labels.csv"})([1])
    assert file_of(labelled, 0) is None
