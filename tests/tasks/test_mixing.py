"""Mixed pictures and labels, against the formulas; what they are drawn from; the loss of soft labels."""

import lightning
import numpy as np
import pytest
import torch
from fixtures.teaching import Scaled, trainer
from scipy.special import log_softmax
from torch.utils.data import DataLoader

from bnnlight.tasks import ClassificationTask, Mixing
from bnnlight.tasks.classification import topk_correct

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*", "ignore:.*LeafSpec.*")
LABELS = torch.tensor([0, 2, 1, 2, 0])


@pytest.fixture
def seed(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "3")


def images(size=12):
    return torch.randn(5, 3, size, size)


def share(soft):
    """λ, as the labels have it; the second picture's label is not the first one's."""
    return soft[1, 2].item()


def test_mixup_by_hand(seed):
    x = images()
    shares = []
    for batch in range(200):
        mixed, soft = Mixing(mixup=0.4)(x, LABELS, 4, 0, batch)
        lam = share(soft)
        shares.append(lam)
        before = np.roll(np.arange(5), 1)
        expected = lam * x.double().numpy() + (1 - lam) * x.double().numpy()[before]
        np.testing.assert_allclose(mixed.numpy(), expected, atol=1e-5)
        hot = np.eye(4)[LABELS.numpy()]
        np.testing.assert_allclose(soft.numpy(), lam * hot + (1 - lam) * hot[before], atol=1e-6)
    # of Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.08)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.8), rel=0.2)


def test_cutmix_is_a_box_of_the_picture_before(seed):
    x = images()
    seen = set()
    for batch in range(40):
        mixed, soft = Mixing(cutmix=1.0)(x, LABELS, 4, 0, batch)
        foreign = (mixed != x).all(1)
        assert torch.equal(torch.where(foreign.unsqueeze(1), x.roll(1, 0), x), mixed)
        assert all(torch.equal(foreign[0], other) for other in foreign)
        rows, columns = foreign[0].any(1), foreign[0].any(0)
        assert torch.equal(foreign[0], rows[:, None] & columns)
        for line in (rows, columns):
            places = line.nonzero().flatten()
            assert len(places) == 0 or int(places[-1] - places[0]) == len(places) - 1
        assert share(soft) == pytest.approx(1 - foreign[0].float().mean().item(), abs=1e-6)
        seen.add(round(share(soft), 3))
    assert len(seen) > 10


def test_either_of_the_two_where_both_are_asked_for(seed):
    x, both = images(), Mixing(mixup=1.0, cutmix=1.0)
    kinds = []
    for batch in range(100):
        mixed, _ = both(x, LABELS, 4, 0, batch)
        kinds.append(bool(((mixed == x) | (mixed == x.roll(1, 0))).all()))
    assert 30 < sum(kinds) < 70


def test_it_follows_from_seed_epoch_and_batch_alone(seed, monkeypatch):
    x, mixing = images(), Mixing(mixup=1.0)
    torch.manual_seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = share(mixing(x, LABELS, 4, 1, 7)[1])
    assert torch.equal(torch.get_rng_state(), states[0]) and (np.random.get_state()[1] == states[1]).all()
    torch.rand(3)
    assert share(Mixing(mixup=1.0)(x, LABELS, 4, 1, 7)[1]) == first
    others = [share(mixing(x, LABELS, 4, *place)[1]) for place in ((1, 8), (2, 7), (7, 1))]
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    assert len({first, *others, share(mixing(x, LABELS, 4, 1, 7)[1])}) == 5


def test_step_and_accuracy_of_soft_labels_by_hand(seed, teacher):
    logits = 2 * torch.randn(5, 4)

    class Data(lightning.LightningDataModule):
        classes = tuple("abcd")

        def train_dataloader(self):
            return DataLoader([(logits[:, :, None, None], LABELS)], batch_size=None)

    made = teacher(Scaled([2.0, -1.0, 0.5, 3.0]), weight=0.25)
    task = ClassificationTask(
        Scaled([1.0] * 4),
        lambda groups: torch.optim.SGD(groups, lr=0.1),
        warmup=0.0,
        label_smoothing=0.1,
        mixing=Mixing(mixup=1.0),
        teacher=made,
    )
    run = trainer(max_epochs=1)
    run.fit(task, datamodule=Data())
    mixed, soft = (part.double().numpy() for part in Mixing(mixup=1.0)(logits[:, :, None, None], LABELS, 4, 0, 0))
    x = mixed[:, :, 0, 0]
    target = 0.9 * soft + 0.1 / 4
    plain = -(target * log_softmax(x, 1)).sum(1).mean()
    theirs, own = (log_softmax(z, 1) for z in (x * np.array([2.0, -1.0, 0.5, 3.0]), x))
    imitation = (np.exp(theirs) * (theirs - own)).sum(1).mean()
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert logged["train/loss_task"] == pytest.approx(plain, rel=1e-5)
    assert logged["train/loss_teacher"] == pytest.approx(imitation, rel=1e-5)
    assert logged["train/acc"] == pytest.approx(soft[np.arange(5), x.argmax(1)].mean(), rel=1e-5)
    assert 0 < logged["train/acc"] < 1


def test_soft_labels_that_are_hard_count_as_such():
    logits, labels = torch.randn(50, 6), torch.randint(6, (50,))
    hot = torch.nn.functional.one_hot(labels, 6).float()
    for k in (1, 5, 9):
        assert torch.equal(topk_correct(logits, hot, k), topk_correct(logits, labels, k))


@pytest.mark.parametrize(
    ("options", "text"),
    [({}, "both 0"), ({"mixup": -1.0}, "mixup is -1.0"), ({"cutmix": float("inf")}, "cutmix is inf")],
)
def test_options_out_of_range_are_one_line(options, text, check_one_line):
    with pytest.raises(ValueError) as caught:
        Mixing(**options)
    check_one_line(caught, "mixing", text, "give")


def test_data_without_classes_are_one_line(check_one_line):
    task = ClassificationTask(Scaled([1.0] * 4), mixing=Mixing(mixup=1.0))
    with pytest.raises(ValueError) as caught:
        trainer(max_epochs=1).fit(task, DataLoader([(torch.zeros(5, 4, 1, 1), LABELS)], batch_size=None))
    check_one_line(caught, "mixing", "how many classes", "`classes`")
