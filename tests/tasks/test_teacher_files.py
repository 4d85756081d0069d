"""Where a teacher comes from, when it is read, and what is said of one that does not fit."""

from types import SimpleNamespace

import lightning
import pytest
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bnnlight.backbones import ResNet
from bnnlight.imaging.skeletons import Skeleton
from bnnlight.nn import Tucker
from bnnlight.tasks import ClassificationTask, PoseTask, Teacher

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*", "ignore:.*LeafSpec.*")

OPTIONS = {"blocks": [1], "num_classes": 4, "width": 0.125, "stem": "small"}
ENTRY = {
    "class_path": "bnnlight.backbones.ResNet",
    "init_args": {**OPTIONS, "latent": {"class_path": "bnnlight.nn.Tucker", "init_args": {"rank": 0.5}}},
}
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def trainer(**options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return lightning.Trainer(accelerator="cpu", **{name: False for name in quiet} | options)


class Data(lightning.LightningDataModule):
    classes = ("ant", "bee", "cat", "dog")

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(4, 3, 8, 8), torch.arange(4)), batch_size=2)

    val_dataloader = test_dataloader = train_dataloader


def network(seed, **options):
    torch.manual_seed(seed)
    return ResNet(**{**OPTIONS, "latent": lambda weight: Tucker(weight, rank=0.5)} | options)


@pytest.fixture
def run_dir(tmp_path):
    """A run's directory with a config and the checkpoint of a trained network, and that network."""
    task = ClassificationTask(network(seed=5))
    run = trainer(max_epochs=1)
    run.fit(task, datamodule=Data())
    run.save_checkpoint(tmp_path / "RUN/checkpoints/best.ckpt")
    (tmp_path / "RUN/config.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"backbone": ENTRY}}}))
    return tmp_path / "RUN", task.backbone.eval()


@pytest.fixture
def best(run_dir):
    return run_dir[0] / "checkpoints/best.ckpt"


def answer(network):
    with torch.no_grad():
        return network(X)


def test_from_the_checkpoint_and_the_config_of_its_run(run_dir, best):
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    made = Teacher(str(best))
    made.load()
    # built without a trace in the run's random numbers
    assert torch.equal(torch.rand(3), expected)
    torch.testing.assert_close(made(X), answer(run_dir[1]))


def test_from_a_checkpoint_of_a_run_without_config(run_dir, best):
    (run_dir[0] / "config.yaml").unlink()
    torch.testing.assert_close(Teacher(str(best), network(seed=1))(X), answer(run_dir[1]))
    with pytest.raises(FileNotFoundError, match=r"teacher: .*RUN/config\.yaml; name the network as teacher\.backbone"):
        Teacher(str(best)).load()


def test_from_plain_weights(run_dir, tmp_path):
    torch.save(run_dir[1].state_dict(), tmp_path / "plain.pt")
    torch.testing.assert_close(Teacher(str(tmp_path / "plain.pt"), network(seed=1))(X), answer(run_dir[1]))


def test_is_read_once_and_only_to_train(best):
    made = Teacher(str(best))
    kept = best.rename(best.with_name("kept.ckpt"))

    def run(verb, **options):
        # a metric that was reset while measuring cannot be trained with: Lightning's inference mode
        task = ClassificationTask(network(seed=0), teacher=made)
        getattr(trainer(**options), verb)(task, datamodule=Data())

    run("validate")
    run("test")
    with pytest.raises(FileNotFoundError, match="teacher: checkpoint not found: "):
        run("fit", max_steps=1)
    kept.rename(best)
    run("fit", max_steps=1)
    best.unlink()
    run("fit", max_steps=1)


def spoil(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def lose(name):
    return lambda content: content["state_dict"].pop(f"backbone.{name}")


def of_nan(content):
    content["state_dict"]["backbone.classifier.weight"][0, 0] = float("nan")


def other(**names):
    return lambda content: content.update(names)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lose("classifier.weight"), ("holds a different network", "lacks 1 entry (first classifier.weight)")),
        (other(state_dict={"net.w": torch.zeros(1)}), ("holds a different network", "(first stem.0.weight)")),
        (of_nan, ("weights that are not finite",)),
        (other(class_names=["ant", "bee", "dog", "cat"]), ("its number 2 is 'dog', the data's is 'cat'",)),
        (other(class_names=["ant"]), ("it knows 1 classes or joints, the data have 4",)),
    ],
)
def test_checkpoints_that_do_not_fit(best, check_one_line, change, parts):
    spoil(best, change)
    task = ClassificationTask(network(seed=0), teacher=Teacher(str(best)))
    with pytest.raises(ValueError) as error:
        trainer(max_steps=1).fit(task, datamodule=Data())
    check_one_line(error, "teacher: ", best, *parts)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_damaged_checkpoint(best, check_one_line, content):
    best.write_bytes(best.read_bytes()[:-300] if content is None else content)
    with pytest.raises(ValueError) as error:
        Teacher(str(best)).load()
    check_one_line(error, f"teacher: {best} is not a checkpoint of bnnlight fit, or is damaged")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("model: [", "while parsing"),
        ("model: 3", "not subscriptable"),
        ("model: {init_args: {}}", "'backbone'"),
        ("model: {init_args: {backbone: {class_path: bnnlight.backbones.ResNot}}}", "no attribute 'ResNot'"),
        ("model: {init_args: {backbone: {class_path: torch.nn.Flatten, init_args: {dim: 1}}}}", "Option 'dim'"),
        (b"\xff\xfe\x00", "teacher: "),
    ],
)
def test_config_that_names_no_network(run_dir, best, check_one_line, text, part):
    (run_dir[0] / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as error:
        Teacher(str(best)).load()
    check_one_line(error, run_dir[0] / "config.yaml", "names no network that can be built", part)


def test_answers_of_another_shape(tmp_path, check_one_line):
    torch.save(network(seed=0, num_classes=7).state_dict(), tmp_path / "w.pt")
    made = Teacher(str(tmp_path / "w.pt"), network(seed=0, num_classes=7))
    with pytest.raises(ValueError) as error:
        trainer(max_steps=1).fit(ClassificationTask(network(seed=0), teacher=made), datamodule=Data())
    check_one_line(error, "teacher: ", "answers (2, 7) where the network answers (2, 4)")


class Maps(nn.Module):
    """Heat maps of nothing, in some shape."""

    def __init__(self, *shape):
        super().__init__()
        self.shape, self.one = shape, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.one.expand(len(x), *self.shape)


@pytest.mark.parametrize(("shape", "fits"), [((3, 2, 4, 4), True), ((1, 2, 8, 8), False), ((2,), False)])
def test_heat_maps_of_another_shape(tmp_path, check_one_line, shape, fits):
    torch.save(Maps().state_dict(), tmp_path / "w.pt")
    task = PoseTask(Maps(2, 2, 4, 4), teacher=Teacher(str(tmp_path / "w.pt"), Maps(*shape)))
    task.skeleton = Skeleton(joints=("head", "foot"), limbs=(), torso=(0, 1))
    task.log = task.log_dict = lambda *args, **options: None
    batch = {"image": torch.zeros(5, 3, 16, 16), "joints": torch.zeros(5, 2, 2), "weight": torch.ones(5, 2)}
    if fits:
        assert task.training_step(batch, 0).isfinite()
        return
    with pytest.raises(ValueError) as error:
        task.training_step(batch, 0)
    check_one_line(error, f"answers {(5, *shape)} where the network answers (5, 2, 2, 4, 4)")


def test_joints_in_another_order(tmp_path):
    torch.save(
        {"state_dict": {"backbone.one": torch.ones(())}, "skeleton": {"joints": ("foot", "head")}}, tmp_path / "w"
    )
    task = PoseTask(Maps(2, 2, 4, 4), teacher=Teacher(str(tmp_path / "w"), Maps(1, 2, 4, 4)))
    skeleton = Skeleton(joints=("head", "foot"), limbs=(), torso=(0, 1))
    task.trainer = SimpleNamespace(datamodule=SimpleNamespace(skeleton=skeleton))
    task.setup("validate")
    with pytest.raises(ValueError, match="its number 0 is 'foot', the data's is 'head'"):
        task.setup("fit")


def test_pictures_that_the_teacher_does_not_take(tmp_path, check_one_line):
    torch.save(network(seed=0, in_channels=1).state_dict(), tmp_path / "w.pt")
    made = Teacher(str(tmp_path / "w.pt"), network(seed=0, in_channels=1))
    with pytest.raises(ValueError) as error:
        made(X)
    check_one_line(error, f"teacher: {tmp_path / 'w.pt'} does not take pictures of 3×8×8: ", "1 channels")


def test_memory_that_runs_out_is_not_said_of_the_pictures(tmp_path):
    class Hungry(nn.Identity):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    torch.save({}, tmp_path / "w.pt")
    with pytest.raises(torch.OutOfMemoryError, match=r"^CUDA out of memory$"):
        Teacher(str(tmp_path / "w.pt"), Hungry())(X)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"weight": -0.1}, "weight is -0.1"),
        ({"weight": 1.1}, "weight is 1.1"),
        ({"weight": float("nan")}, "weight is nan"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("inf")}, "temperature is inf"),
    ],
)
def test_wrong_options(options, part):
    with pytest.raises(ValueError, match=part):
        Teacher("w.pt", **options)


def test_heat_maps_have_no_temperature():
    with pytest.raises(ValueError, match="softens classes, and heat maps have none"):
        PoseTask(Maps(2, 2, 4, 4), teacher=Teacher("w.pt", temperature=4))
