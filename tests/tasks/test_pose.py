"""The pose task against joints that are known, with a backbone whose heat maps are the image itself."""

import json
import math
import sys
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures.processes import run_to_end
from torch import nn
from torch.utils.data import DataLoader

from bnnlight.data.keypoints.heatmaps import render
from bnnlight.imaging.skeletons import Skeleton
from bnnlight.tasks import PoseTask
from bnnlight.tasks.pose import heatmap_loss

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")

SKELETON = Skeleton(joints=("left hand", "right hand", "nose"), limbs=((0, 2), (1, 2)), torso=(0, 1), excluded=(2,))
STRIDE, SIZE = 4, 32


class Given(nn.Module):
    """Heat maps are the image's three channels, one value for each 4×4 px, in one or more stacks."""

    def __init__(self, stacks=1):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.stacks = stacks

    def forward(self, x):
        maps = F.avg_pool2d(x, STRIDE) * self.one
        # only the last stack is the answer: the others say the opposite
        return torch.stack([-maps] * (self.stacks - 1) + [maps], 1)


def sample(
    found, truth, to_image=((1, 0, 0), (0, 1, 0)), annotated=(1, 1, 1), head_px=float("nan"), torso_px=1e9, box_px=None
):
    """A sample whose image shows joints at ``found``, in heat-map pixels, on 8×8 maps."""
    maps = render(torch.tensor([found], dtype=torch.float32), SIZE // STRIDE, SIZE // STRIDE)[0]
    box = {} if box_px is None else {"box_px": torch.tensor(box_px)}
    return {
        **box,
        "image": maps.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2),
        "joints": torch.tensor(truth, dtype=torch.float32),
        "weight": torch.tensor(annotated, dtype=torch.float32),
        "truth": torch.tensor(truth, dtype=torch.float32),
        "annotated": torch.tensor(annotated, dtype=torch.bool),
        "to_image": torch.tensor(to_image, dtype=torch.float32),
        "head_px": torch.tensor(head_px),
        "torso_px": torch.tensor(torso_px),
    }


class Data(lightning.LightningDataModule):
    def __init__(self, samples, skeleton=SKELETON, batch_size=2):
        super().__init__()
        self.samples, self.batch_size = samples, batch_size
        if skeleton:
            self.skeleton = skeleton

    def to_pixels(self, images):
        return np.zeros((len(images), SIZE, SIZE, 3), np.uint8)

    def val_dataloader(self):
        return DataLoader(self.samples, batch_size=self.batch_size)

    train_dataloader = test_dataloader = val_dataloader


def trainer(**options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return lightning.Trainer(accelerator="cpu", **{name: False for name in quiet} | options)


def task(flip_test=False, **options):
    made = PoseTask(Given(options.pop("stacks", 1)), flip_test=flip_test, **options)
    made.skeleton = SKELETON
    return made


def batch_of(*samples):
    return torch.utils.data.default_collate(list(samples))


def in_input(joint):
    return [(v + 0.5) * STRIDE - 0.5 for v in joint]


FOUND = [[2.0, 3.0], [5.0, 4.0], [3.0, 6.0]]


def test_loss_of_bce_and_mse_by_hand():
    torch.manual_seed(0)
    maps = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64)
    targets = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64)
    for kind in ("bce", "mse"):
        total = 0.0
        for n in range(2):
            for j in range(3):
                if not weight[n, j]:
                    continue
                for stack in range(2):
                    values = zip(maps[n, stack, j].flatten().tolist(), targets[n, j].flatten().tolist(), strict=True)
                    if kind == "mse":
                        losses = [(m - t) ** 2 for m, t in values]
                    else:
                        losses = [t * math.log1p(math.exp(-m)) + (1 - t) * math.log1p(math.exp(m)) for m, t in values]
                    total += sum(losses) / 20
        # four joints count
        assert heatmap_loss(maps, targets, weight, kind).item() == pytest.approx(total / 4, rel=1e-9)


def test_joints_without_weight_have_no_gradient_and_none_at_all_is_no_error():
    maps = torch.randn(1, 1, 2, 3, 3, requires_grad=True)
    targets = torch.rand(1, 2, 3, 3)
    heatmap_loss(maps, targets, torch.tensor([[1.0, 0.0]]), "bce").backward()
    assert maps.grad[0, 0, 0].abs().sum() > 0
    assert maps.grad[0, 0, 1].abs().sum() == 0
    assert heatmap_loss(maps, targets, torch.zeros(1, 2), "mse").item() == 0


@pytest.mark.parametrize("loss", ["mse", "awing"])
def test_targets_lie_at_the_joints(loss):
    # the image shows the joints where the truth has them: nothing is left
    truth = [in_input(joint) for joint in FOUND]
    made = task(loss=loss)
    made.log = lambda *args, **kwargs: None
    assert made.training_step(batch_of(sample(FOUND, truth)), 0).item() == pytest.approx(0, abs=1e-12)
    moved = [[x + STRIDE, y] for x, y in truth]
    assert made.training_step(batch_of(sample(FOUND, moved)), 0).item() > 1e-3


@pytest.mark.parametrize("loss", ["bce", "mse", "awing"])
def test_prediction_is_in_pixels_of_the_stored_picture(loss):
    # the crop is a quarter turn of the picture, twice as large, and moved
    to_image = ((0, -2, 100), (2, 0, 10))
    found = task(loss=loss, stacks=2).predict_step(batch_of(sample(FOUND, FOUND, to_image)), 0)
    for joint, (x, y) in zip(FOUND, found["joints"][0].tolist(), strict=True):
        u, v = in_input(joint)
        assert (x, y) == pytest.approx((-2 * v + 100, 2 * u + 10))
    peak = 1 / (1 + math.exp(-1)) if loss == "bce" else 1.0
    assert found["confidence"][0].tolist() == pytest.approx([peak] * 3)


def test_flip_test_averages_the_mirror_image():
    class OneSided(nn.Module):
        """Sees only the left half of a picture."""

        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(()))

        def forward(self, x):
            maps = F.avg_pool2d(x, STRIDE) * self.one
            return torch.cat((maps[..., :4], torch.zeros_like(maps[..., 4:])), -1).unsqueeze(1)

    # both hands in the right half; for its mirror image the backbone answers with left and right exchanged
    joints = [[6.0, 2.0], [5.0, 6.0], [5.0, 4.0]]
    batch = batch_of(sample(joints, joints))
    batch["image"][:, [0, 1]] = batch["image"][:, [1, 0]]
    made = PoseTask(OneSided(), loss="mse")
    made.skeleton = SKELETON
    found = made.predict_step(batch, 0)
    expected = [in_input(joint) for joint in joints]
    np.testing.assert_allclose(found["joints"][0].detach(), expected, atol=1e-5)
    assert found["confidence"][0].tolist() == pytest.approx([0.5] * 3, abs=0.01)
    made.flip_test = False
    assert (made.predict_step(batch, 0)["joints"][0, 2] - torch.tensor(expected[2])).abs().max() > STRIDE


def metrics_by_hand(samples, split):
    """Loops over people and joints: what must be logged."""
    logged = {}
    measures = (("pckh", "head_px", 0.5), ("pckh01", "head_px", 0.1), ("pck", "torso_px", 0.2))
    if "box_px" in samples[0][1]:
        measures += (("pck_box", "box_px", 0.2),)
    for name, reference, threshold in measures:
        right, count = [0] * 3, [0] * 3
        for found, item in samples:
            length = item[reference].item()
            for j in range(3):
                if not item["annotated"][j] or math.isnan(length):
                    continue
                distance = math.dist(in_input(found[j]), item["truth"][j].tolist())
                count[j] += 1
                right[j] += distance <= threshold * length
        # the nose is excluded from the means
        logged[f"{split}/{name}"] = sum(right[:2]) / sum(count[:2])
        logged[f"{split}/{name}_mean"] = (right[0] / count[0] + right[1] / count[1]) / 2
        logged[f"{split}/{name}_hand"] = logged[f"{split}/{name}_mean"]
        logged[f"{split}/{name}_nose"] = right[2] / count[2]
    return logged


def people(num=7, boxes=False):
    rng = np.random.default_rng(0)
    made = []
    for index in range(num):
        found = rng.integers(1, 7, (3, 2)).astype(float).tolist()
        truth = (np.array(list(map(in_input, found))) + rng.normal(0, 3, (3, 2))).tolist()
        annotated = (rng.random(3) < 0.8).tolist() if index else [1, 1, 1]
        head = float("nan") if index == 1 else rng.uniform(4, 12)
        made.append((found, sample(found, truth, annotated=annotated, head_px=head, torso_px=rng.uniform(10, 30))))
        if boxes:
            made[-1][1]["box_px"] = torch.tensor(float("nan") if index == 2 else 8.0 + 2 * index)
    return made


@pytest.mark.parametrize("boxes", [False, True])
@pytest.mark.parametrize("split", ["val", "test"])
def test_logged_figures_against_loops(split, boxes):
    samples = people(boxes=boxes)
    run = trainer()
    measure = run.validate if split == "val" else run.test
    (logged,) = measure(task(), Data([item for _, item in samples]), verbose=False)
    expected = metrics_by_hand(samples, split)
    assert set(logged) == {*expected, f"{split}/loss"}
    for name, value in expected.items():
        assert logged[name] == pytest.approx(value, abs=1e-6), name
    # something is right and something wrong, or little would be told
    assert 0 < expected[f"{split}/pckh"] < 1
    assert expected[f"{split}/pckh"] != expected[f"{split}/pckh_mean"]


def test_figures_without_a_reference_are_not_logged():
    samples = [sample(FOUND, FOUND) for _ in range(2)]
    (logged,) = trainer().validate(task(), Data(samples), verbose=False)
    assert "val/pck" in logged
    assert not any(name.startswith("val/pckh") for name in logged)


def test_figures_begin_anew_each_time():
    made, data = task(), Data([item for _, item in people()])
    first, second = (trainer().validate(made, data, verbose=False)[0] for _ in range(2))
    assert first == second


def test_figures_of_an_epoch_do_not_count_the_one_before():
    made = task()
    made.trainer = SimpleNamespace(datamodule=Data([]))
    made.setup("validate")
    logged = {}
    made.log = lambda name, value, **options: logged.update({name: value})
    away = [[x + 20, y] for x, y in map(in_input, FOUND)]
    for truth, expected in ((away, 0.0), (list(map(in_input, FOUND)), 1.0)):
        made.validation_step(batch_of(sample(FOUND, truth, torso_px=50.0)), 0)
        made.on_validation_epoch_end()
        assert logged["val/pck"] == expected


RANKS = """
import lightning, json, sys, torch
sys.path[:0] = {folders!r}
from test_pose import Data, people, task, trainer
run = trainer(devices=2, strategy="ddp", use_distributed_sampler=True)
(logged,) = run.validate(task(), Data([item for _, item in people(8)], batch_size=1), verbose=False)
torch.distributed.destroy_process_group()
if run.is_global_zero:
    print("LOGGED", json.dumps(logged))
"""


def test_two_processes_give_the_figures_of_one(tmp_path, request):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS.format(folders=[str(folder) for folder in request.path.parents[:2]]))
    done = run_to_end([sys.executable, script], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOGGED")]
    logged = json.loads(line.removeprefix("LOGGED "))
    (alone,) = trainer().validate(task(), Data([item for _, item in people(8)]), verbose=False)
    assert logged.keys() == alone.keys()
    for name, value in alone.items():
        assert logged[name] == pytest.approx(value, abs=1e-6), name


def test_keys_of_any_skeleton():
    def logged(joints, boxes=True, torso=(), **options):
        data = SimpleNamespace(skeleton=Skeleton(joints, (), torso, **options), has_head_sizes=False, has_boxes=boxes)
        return task().logged(data) - {"train/loss", "val/loss"}

    # left and right under one name, what cannot stand in a key as "_"
    keys = logged(("L_Eye", "R_Eye", "nose tip/end"), flip_pairs=((0, 1),))
    assert keys == {"val/nme", *(f"val/pck_box{end}" for end in ("", "_mean", "_eye", "_nose_tip_end"))}
    assert logged(("left eye", "right eye"), boxes=False, torso=(0, 1)) == {
        f"val/pck{end}" for end in ("", "_mean", "_eye")
    }
    # of very many joints the single ones are not logged
    assert logged(tuple(f"keypoint_{i}" for i in range(294))) == {*("val/pck_box", "val/pck_box_mean", "val/nme")}


def test_a_picture_is_marked_by_the_box_where_there_is_no_torso():
    made = task()
    made.trainer = SimpleNamespace(datamodule=Data([]))
    made.setup("validate")
    made.log = lambda *args, **kwargs: None
    truth = [in_input(joint) for joint in FOUND]
    moved = [[x + 5, y] for x, y in truth]
    sizes = {"torso_px": float("nan"), "box_px": 24.0}, {"torso_px": float("nan"), "box_px": 26.0}
    batch = batch_of(*[sample(FOUND, moved, **size) for size in sizes])
    # 5 px are less than 0.2 of the second box alone
    assert made.validation_step(batch, 0)["correct"].tolist() == [[False] * 3, [True] * 3]


def test_draws_truth_beside_prediction_and_marks_what_is_wrong():
    truth = [in_input(joint) for joint in FOUND]
    wrong = [truth[0], [truth[1][0] - 14, truth[1][1]], truth[2]]
    made = task()
    made.trainer = SimpleNamespace(datamodule=Data([]))
    made.setup("validate")
    made.log = lambda *args, **kwargs: None
    pictures = []
    for place in (truth, wrong):
        batch = batch_of(*[sample(FOUND, place, head_px=8.0)] * 3)
        pictures.append(made.draw(batch, made.validation_step(batch, 0), 2))
    right, one_wrong = (made[0].astype(int) for made in pictures)
    assert len(pictures[0]) == 2
    assert right.shape == (256, 512, 3)
    # pure red is the mark's alone
    red = [((p[..., 0] > 240) & (p[..., 1] < 60) & (p[..., 2] < 90)) for p in (right, one_wrong)]
    assert red[0].sum() == 0
    rows, columns = np.nonzero(red[1])
    x, y = truth[1]
    # round the predicted place, in the right half, eight times enlarged
    assert abs(columns.mean() - (256 + (x + 0.5) * 8 - 0.5)) < 2
    assert abs(rows.mean() - ((y + 0.5) * 8 - 0.5)) < 2


def test_checkpoint_carries_the_skeleton_as_plain_data():
    checkpoint = {}
    task().on_save_checkpoint(checkpoint)
    assert checkpoint["skeleton"]["joints"] == SKELETON.joints
    other = PoseTask(Given())
    other.on_load_checkpoint(checkpoint)
    assert other.skeleton == SKELETON


@pytest.mark.parametrize(
    ("options", "part"), [({"loss": "l1"}, "choose bce, mse or awing"), ({"sigma": 0.0}, "sigma is 0")]
)
def test_wrong_options(options, part):
    with pytest.raises(ValueError, match=part):
        PoseTask(Given(), **options)


def test_backbone_for_another_number_of_joints_is_told_what_to_set():
    made = task()
    made.skeleton = Skeleton(("a", "b"), (), (0, 1))
    with pytest.raises(ValueError, match=r"set model\.backbone\.num_joints to 2"):
        made.predict_step(batch_of(sample(FOUND, FOUND)), 0)


def test_data_without_skeleton():
    made = PoseTask(Given())
    with pytest.raises(ValueError, match="no skeleton"):
        trainer().validate(made, Data([sample(FOUND, FOUND)], skeleton=None), verbose=False)
