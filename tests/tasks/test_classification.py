import lightning
import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnnlight.backbones import ResNet
from bnnlight.tasks import ClassificationTask
from bnnlight.tasks.classification import topk_correct

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")


def trainer(**options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return lightning.Trainer(accelerator="cpu", **{name: False for name in quiet} | options)


class Given(nn.Module):
    """Logits are the images themselves, (N, C, 1, 1), times one."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x.flatten(1) * self.one


def batches(logits, labels, sizes):
    images = logits[:, :, None, None].split(sizes)
    return DataLoader(list(zip(images, labels.split(sizes), strict=True)), batch_size=None)


def test_topk_by_hand():
    logits = torch.tensor([[0.1, 0.9, 0.5], [3.0, 1.0, 2.0], [-1.0, -3.0, -2.0]])
    labels = torch.tensor([2, 0, 1])
    assert topk_correct(logits, labels, 1).tolist() == [0, 1, 0]
    assert topk_correct(logits, labels, 2).tolist() == [1, 1, 0]
    assert topk_correct(logits, labels, 3).tolist() == [1, 1, 1]
    # more than there are classes: all of them
    assert topk_correct(logits, labels, 5).tolist() == [1, 1, 1]


def test_topk_is_a_share_and_no_whole_number():
    # an accuracy collapses to zero where counts are divided as integers
    correct = topk_correct(torch.eye(4), torch.tensor([0, 1, 0, 0]), 1)
    assert correct.dtype == torch.float32
    assert float(correct.mean()) == 0.5


@pytest.mark.parametrize("split", ["val", "test"])
def test_results_are_plain_means_over_images_of_batches_of_unequal_size(split):
    logits, labels = torch.randn(13, 8), torch.randint(8, (13,))
    # all right in the first batch, by luck in the second, wrong in the third: a mean of batches would be another
    logits[:7] += 9 * nn.functional.one_hot(labels[:7], 8)
    logits[12:] -= 9 * nn.functional.one_hot(labels[12:], 8)
    run = trainer()
    evaluate = run.validate if split == "val" else run.test
    (results,) = evaluate(ClassificationTask(Given()), batches(logits, labels, [7, 5, 1]), verbose=False)
    scores, truth = logits.double().numpy(), labels.numpy()
    ranks = (scores > scores[np.arange(13), truth][:, None]).sum(1)
    assert results == {
        f"{split}/loss": pytest.approx(-log_softmax(scores, 1)[np.arange(13), truth].mean(), rel=1e-5),
        f"{split}/acc1": pytest.approx((ranks < 1).mean()),
        f"{split}/acc5": pytest.approx((ranks < 5).mean()),
    }


def test_a_second_validation_starts_from_nothing():
    task, run = ClassificationTask(Given()), trainer()
    right, wrong = torch.eye(3), torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    for logits, expected in ((right, 1), (wrong, 0), (right, 1)):
        (results,) = run.validate(task, batches(logits, torch.arange(3), [2, 1]), verbose=False)
        assert results["val/acc1"] == expected


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_training_loss_with_label_smoothing_by_hand(smoothing):
    task = ClassificationTask(Given(), label_smoothing=smoothing)
    run = trainer(max_epochs=1)
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    run.fit(task, batches(logits, labels, [6]))
    target = (1 - smoothing) * np.eye(4)[labels.numpy()] + smoothing / 4
    expected = -(target * log_softmax(logits.double().numpy(), 1)).sum(1).mean()
    assert float(run.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-5)
    accuracy = (logits.argmax(1) == labels).float().mean()
    assert float(run.callback_metrics["train/acc"]) == pytest.approx(float(accuracy))


def test_validation_loss_is_not_smoothed():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    task = ClassificationTask(Given(), label_smoothing=0.5)
    (results,) = trainer().validate(task, batches(logits, labels, [6]), verbose=False)
    expected = -log_softmax(logits.double().numpy(), 1)[np.arange(6), labels.numpy()].mean()
    assert results["val/loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labelled", [True, False])
def test_prediction_gives_probabilities_with_and_without_labels(labelled):
    logits = torch.randn(5, 3)
    images = logits[:, :, None, None]
    batch = (images, torch.zeros(5)) if labelled else images
    (probabilities,) = trainer().predict(ClassificationTask(Given()), DataLoader([batch], batch_size=None))
    np.testing.assert_allclose(probabilities.numpy(), softmax(logits.numpy(), 1), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_label_smoothing_out_of_range_is_an_error(smoothing):
    with pytest.raises(ValueError, match="label_smoothing is"):
        ClassificationTask(Given(), label_smoothing=smoothing)


def images():
    return DataLoader(TensorDataset(torch.randn(8, 3, 8, 8), torch.arange(8) % 4), batch_size=4)


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_binary_network_trains_and_every_parameter_moves(channels_last):
    backbone = ResNet((1, 1), num_classes=4, width=0.125, stem="small")
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    task = ClassificationTask(backbone, channels_last=channels_last)
    run = trainer(max_epochs=2)
    run.fit(task, images(), images())
    assert run.global_step == 4
    for name, parameter in backbone.named_parameters():
        assert torch.isfinite(parameter).all() and not torch.equal(parameter, before[name]), name
    assert 0 <= run.callback_metrics["val/acc1"] <= run.callback_metrics["val/acc5"] == 1  # 4 classes


def test_channels_last_changes_the_layout_and_not_the_result():
    backbone = ResNet((1, 1), num_classes=4, width=0.125, stem="small").eval()
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = backbone(x)
        task = ClassificationTask(backbone)
        torch.testing.assert_close(task(x), expected)
    assert backbone.stem[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_learning_rate_follows_warm_up_and_cosine_through_a_run():
    seen = []

    class Look(lightning.Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            seen.append(optimizer.param_groups[0]["lr"])

    task = ClassificationTask(Given(), lambda groups: torch.optim.SGD(groups, lr=1.0), warmup=0.5)
    loader = batches(torch.randn(4, 3), torch.zeros(4).long(), [1, 1, 1, 1])
    trainer(max_epochs=1, callbacks=Look()).fit(task, loader)
    assert seen == pytest.approx([1 / 3, 2 / 3, 1, 0.5])


class Named(lightning.LightningDataModule):
    classes = ("cat", "dog", "eel", "fox")

    def train_dataloader(self):
        return images()


def test_class_names_travel_in_the_checkpoint(tmp_path):
    make = lambda: ClassificationTask(ResNet((1,), num_classes=4, width=0.125, stem="small"))  # noqa: E731
    run = trainer(max_steps=1)
    run.fit(make(), datamodule=Named())
    run.save_checkpoint(tmp_path / "last.ckpt")
    task = make()
    # without a data module that knows them, as when predicting on files
    trainer().predict(task, DataLoader(torch.randn(2, 3, 8, 8)), ckpt_path=tmp_path / "last.ckpt")
    assert task.class_names == ["cat", "dog", "eel", "fox"]
