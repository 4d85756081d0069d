"""Feature maps compared with a teacher's: formulas in float64, gradients, blocks, both tasks, and what is refused."""

import lightning
import numpy as np
import pytest
import torch
from fixtures.teaching import trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnnlight.backbones import ResNet, StackedHourglass
from bnnlight.imaging.skeletons import Skeleton
from bnnlight.nn import BinaryConv2d, real_valued
from bnnlight.tasks import ClassificationTask, PoseTask, Teacher
from bnnlight.tasks.feature_matching import attention_loss, blocks_of, feature_loss

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*", "ignore:.*LeafSpec.*")


def attention_by_hand(own, taught):
    own, taught = ((np.asarray(x, np.float64) ** 2).sum(1).reshape(len(x), -1) for x in (own, taught))
    own, taught = (q / np.sqrt((q**2).sum(1, keepdims=True)) for q in (own, taught))
    return np.sqrt(((own - taught) ** 2).sum(1)).mean()


def test_attention_by_hand_and_its_gradient():
    own, taught = torch.randn(3, 5, 4, 6, dtype=torch.float64), torch.randn(3, 2, 4, 6, dtype=torch.float64)
    assert attention_loss(own, taught).item() == pytest.approx(attention_by_hand(own, taught), rel=1e-12)
    # neither sizes nor numbers of channels count
    assert attention_loss(100 * own, taught.repeat(1, 3, 1, 1)).item() == pytest.approx(
        attention_by_hand(own, taught), rel=1e-12
    )
    assert torch.autograd.gradcheck(lambda x: attention_loss(x, taught), own.requires_grad_())
    # what is far from each other in half precision is not lost in squares
    assert attention_loss(own.detach().half() * 1000, taught.half()).isfinite()


def test_equal_and_empty_maps_have_finite_gradients():
    own = torch.randn(2, 3, 4, 4)
    for maps in (own, torch.zeros(2, 3, 4, 4)):
        leaf = maps.clone().requires_grad_()
        attention_loss(leaf, own).backward()
        assert leaf.grad.isfinite().all()
    assert attention_loss(own, own).item() == 0


def test_features_by_hand():
    own, taught = torch.randn(3, 5, 4, 6), torch.randn(3, 5, 4, 6)
    expected = ((own.double().numpy() - taught.double().numpy()) ** 2).mean()
    assert feature_loss(own, taught).item() == pytest.approx(expected, rel=1e-6)


def network(seed=0, blocks=(1, 2), **options):
    torch.manual_seed(seed)
    return ResNet(blocks, **{"num_classes": 4, "width": 0.125, "stem": "small"} | options)


def test_blocks_are_the_smallest_modules_of_several_binary_layers():
    assert blocks_of(network()) == ["stages.0.0", "stages.1.0", "stages.1.1"]
    hourglass = StackedHourglass(num_joints=3, features=32, stacks=2, depth=1)
    found = blocks_of(hourglass)
    assert {type(hourglass.get_submodule(path)).__name__ for path in found} == {"HierarchicalBlock"}
    assert len(found) > 8
    assert blocks_of(nn.Sequential(*(BinaryConv2d(3, 3, 3) for _ in range(4)))) == []


def pictures():
    generator = torch.Generator().manual_seed(5)
    return DataLoader(TensorDataset(torch.randn(4, 3, 8, 8, generator=generator), torch.arange(4)), batch_size=4)


def outputs(model, x, paths):
    seen = {}
    for path in paths:
        module = model.get_submodule(path)
        module.register_forward_hook(lambda m, args, y, path=path: seen.__setitem__(path, y.detach()))
    with torch.no_grad():
        model(x)
    return [seen[path] for path in paths]


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.1)


@pytest.mark.parametrize("lean", [False, True])
def test_what_a_class_task_minimizes(teacher, lean):
    real = real_valued(network(seed=1))
    made = teacher(real, weight=0.25, attention=0.5, features=0.125)
    task = ClassificationTask(network(lean=lean), sgd, teacher=made)
    assert made.keys <= task.logged(lightning.LightningDataModule())
    run = trainer(max_epochs=1)
    run.fit(task, pictures())
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    paths = ["stages.0.0", "stages.1.0", "stages.1.1"]
    (x, _) = next(iter(pictures()))
    twin = network()
    pairs = list(zip(outputs(twin, x, paths), outputs(real, x, paths), strict=True))
    attention = sum(attention_by_hand(own, taught) for own, taught in pairs)
    features = sum(((own.double() - taught.double()) ** 2).mean().item() for own, taught in pairs)
    assert logged["train/loss_attention"] == pytest.approx(attention, rel=1e-5)
    assert logged["train/loss_features"] == pytest.approx(features, rel=1e-5)
    parts = 0.75 * logged["train/loss_task"] + 0.25 * logged["train/loss_teacher"]
    assert logged["train/loss"] == pytest.approx(parts + 0.5 * attention + 0.125 * features, rel=1e-5)
    # nothing is left behind
    assert not any(module._forward_hooks for module in task.modules()) and set(made.matching._seen["own"]) == set()


def test_lean_training_steps_alike(teacher):
    states = []
    for lean in (False, True):
        task = ClassificationTask(network(lean=lean), sgd, teacher=teacher(real_valued(network(seed=1)), attention=1.0))
        trainer(max_epochs=3).fit(task, pictures())
        states.append(task.backbone.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_attention_alone_is_learned(teacher):
    made = teacher(real_valued(network(seed=1)), weight=0.0, attention=1.0)
    seen = []

    class Look(lightning.Callback):
        def on_train_batch_end(self, trainer, *args):
            seen.append(float(trainer.callback_metrics["train/loss_attention"]))

    task = ClassificationTask(network(), lambda groups: torch.optim.Adam(groups, lr=0.01), teacher=made)
    trainer(max_epochs=40, callbacks=Look()).fit(task, pictures())
    assert seen[-1] < 0.8 * seen[0]


SKELETON = Skeleton(joints=("left hand", "right hand", "nose"), limbs=((0, 2), (1, 2)), torso=(0, 1))


def test_pose_task(teacher):
    def hourglass(seed):
        torch.manual_seed(seed)
        return StackedHourglass(num_joints=3, features=32, depth=1)

    class People(lightning.LightningDataModule):
        skeleton = SKELETON

        def train_dataloader(self):
            torch.manual_seed(9)
            batch = {"image": torch.randn(2, 3, 32, 32), "joints": 32 * torch.rand(2, 3, 2), "weight": torch.ones(2, 3)}
            return DataLoader([batch], batch_size=None)

    real = real_valued(hourglass(1))
    made = teacher(real, weight=0.5, attention=2.0)
    task = PoseTask(hourglass(0), optimizer=sgd, teacher=made)
    run = trainer(max_epochs=1)
    run.fit(task, datamodule=People())
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    paths = blocks_of(hourglass(0))
    x = next(iter(People().train_dataloader()))["image"]
    pairs = zip(outputs(hourglass(0), x, paths), outputs(real, x, paths), strict=True)
    attention = sum(attention_by_hand(own, taught) for own, taught in pairs)
    assert logged["train/loss_attention"] == pytest.approx(attention, rel=1e-4)
    parts = (logged["train/loss_task"] + logged["train/loss_teacher"]) / 2
    assert logged["train/loss"] == pytest.approx(parts + 2 * attention, rel=1e-4)


def test_named_blocks_of_another_network(teacher):
    wider = real_valued(network(seed=1, blocks=(2, 2), width=0.25))
    blocks = {"stages.0": "stages.0.1", "stages.1.1": "stages.1"}
    task = ClassificationTask(network(), sgd, teacher=teacher(wider, attention=1.0, blocks=blocks))
    run = trainer(max_epochs=1)
    run.fit(task, pictures())
    (x, _) = next(iter(pictures()))
    pairs = zip(outputs(network(), x, blocks), outputs(wider, x, blocks.values()), strict=True)
    expected = sum(attention_by_hand(own, taught) for own, taught in pairs)
    assert float(run.callback_metrics["train/loss_attention"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("other", "options", "parts"),
    [
        ({"blocks": (1, 1)}, {"attention": 1.0}, ("the teacher has no module stages.1.1", "teacher.blocks")),
        ({}, {"attention": 1.0, "blocks": {"stages.7": "stages.0"}}, ("the network has no module stages.7",)),
        ({"stem": "half"}, {"attention": 1.0}, ("feature maps of stages.0.0", "(4, 8, 8, 8) and (4, 8, 4, 4)")),
        ({"width": 0.25}, {"features": 1.0}, ("feature maps of stages.0.0", "of the same shape", "teacher.blocks")),
        ({}, {"features": 1.0, "blocks": {"pool": "classifier"}}, ("feature maps of pool", "of the same shape")),
    ],
)
def test_blocks_that_cannot_be_compared_are_one_line(teacher, other, options, parts, check_one_line):
    task = ClassificationTask(network(), sgd, teacher=teacher(real_valued(network(**other)), **options))
    with pytest.raises(ValueError) as caught:
        trainer(max_epochs=1).fit(task, pictures())
    check_one_line(caught, "teacher: ", *parts)


def test_before_the_first_step_where_the_data_are_known(teacher, check_one_line):
    class Data(lightning.LightningDataModule):
        classes, num_channels, image_size = tuple("abcd"), 3, 8

    made = teacher(real_valued(network(stem="half")), attention=1.0)
    with pytest.raises(ValueError) as caught:
        ClassificationTask(network(), sgd, teacher=made).check_data(Data(), "fit")
    check_one_line(caught, "feature maps of stages.0.0", "(1, 8, 8, 8) and (1, 8, 4, 4)")
    made = teacher(real_valued(network()), attention=1.0)
    ClassificationTask(network(), sgd, teacher=made).check_data(Data(), "fit")


@pytest.mark.parametrize("options", [{"attention": -1.0}, {"features": float("nan")}])
def test_weights_out_of_range_are_one_line(options, check_one_line):
    with pytest.raises(ValueError) as caught:
        Teacher("x.ckpt", **options)
    ((name, value),) = options.items()
    check_one_line(caught, f"{name} is {value}", "at least 0")
