"""Average precision while training: the library's own of the very predictions, in one process and in two."""

import json
import sys

import lightning
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fixtures.coco_files import coco_content, ready, write_coco
from fixtures.coco_results import agree, by_library, completed, noisy, real_set
from fixtures.processes import run_to_end
from torch import nn
from torch.utils.data import DataLoader, Subset

from bnnlight.backbones import StackedHourglass
from bnnlight.data.keypoints.coco_files.truth import coco_truth
from bnnlight.data.keypoints.heatmaps import render
from bnnlight.experiment.trained.shipping import Shown
from bnnlight.experiment.trained.shipping import tested as figures_of
from bnnlight.imaging.skeletons import Skeleton
from bnnlight.metrics.oks import STATS
from bnnlight.tasks import PoseTask
from bnnlight.tasks.oks import EpochOKS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:.*GPU.*")
SIGMAS = (0.05, 0.07, 0.1)
NUM, SIZE, STRIDE = 7, 32, 4


class Given(nn.Module):
    """Heat maps are the picture itself, one value for each 4×4 px."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return F.avg_pool2d(x, STRIDE).unsqueeze(1) * self.one


def content(rng):
    """Seven people in three pictures, all with joints, and a crowd."""
    annotations = []
    for number in range(NUM + 1):
        points = np.column_stack((rng.uniform(6, 26, (3, 2)), [2, 2, 2 * (number % 3 > 0)])).ravel().tolist()
        base = {"id": 50 + number, "image_id": number % 3, "category_id": 1, "bbox": [4, 4, 24, 24], "area": 400.0}
        annotations.append(base | {"keypoints": points, "num_keypoints": 3, "iscrowd": int(number == NUM)})
    return {"images": [{"id": i, "file_name": f"{i}"} for i in range(3)], "annotations": annotations,
            "categories": [{"id": 1, "name": "thing"}]}  # fmt: skip


class Data(lightning.LightningDataModule):
    """Pictures that show each person's joints a little off; ``entry`` counts from 1, as in a file."""

    def __init__(self, batch_size, sigmas=SIGMAS):
        super().__init__()
        rng = np.random.default_rng(0)
        self.content, self.batch_size = content(rng), batch_size
        self.skeleton = Skeleton(("a", "b", "c"), (), (), sigmas=sigmas)
        self.samples = []
        for number, annotation in enumerate(self.content["annotations"][:NUM], 1):
            points = torch.tensor(annotation["keypoints"]).view(3, 3)
            shown = points[:, :2] + torch.from_numpy(rng.normal(0, 2, (3, 2))).float()
            maps = render(((shown + 0.5) / STRIDE - 0.5)[None], SIZE // STRIDE, SIZE // STRIDE)[0]
            maps = maps * rng.uniform(0.1, 1)
            nan = torch.tensor(float("nan"))
            self.samples.append({
                "image": maps.repeat_interleave(STRIDE, 1).repeat_interleave(STRIDE, 2),
                "joints": points[:, :2], "truth": points[:, :2], "weight": (points[:, 2] > 0).float(),
                "annotated": points[:, 2] > 0, "to_image": torch.eye(3)[:2], "head_px": nan, "torso_px": nan,
                "box_px": torch.tensor(24.0), "nme_px": torch.tensor(12.0 + number), "entry": torch.tensor(number),
            })  # fmt: skip

    def oks_truth(self, split):
        numbered = [entry | {"id": number} for number, entry in enumerate(self.content["annotations"], 1)]
        return self.content | {"annotations": numbered}

    def val_dataloader(self):
        return DataLoader(self.samples, batch_size=self.batch_size)

    test_dataloader = val_dataloader


def trainer(**options):
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return lightning.Trainer(accelerator="cpu", **{name: False for name in quiet} | options)


def task():
    return PoseTask(Given(), loss="mse", flip_test=False)


def results_of(data):
    """What the network predicts, in COCO's form; scores by hand."""
    made, results = task(), []
    made.skeleton = data.skeleton
    for sample, annotation in zip(data.samples, data.content["annotations"], strict=False):
        found = made.predict_step(torch.utils.data.default_collate([sample]), 0)
        points = torch.cat((found["joints"][0].detach(), torch.ones(3, 1)), 1)
        sure = [value for value in found["confidence"][0].tolist() if value > 0.2]
        one = {name: annotation[name] for name in ("image_id", "category_id")}
        score = sum(sure) / len(sure) if sure else 0.0
        results.append(one | {"keypoints": points.flatten().tolist(), "score": score})
    return results


def nme_by_hand(data, results):
    errors = []
    for sample, result in zip(data.samples, results, strict=True):
        found = np.array(result["keypoints"]).reshape(3, 3)[:, :2]
        distances = np.linalg.norm(found - sample["truth"].numpy(), axis=1) / sample["nme_px"].item()
        errors += distances[sample["annotated"].numpy()].tolist()
    return np.mean(errors)


RANKS = """
import json, sys
sys.path[:0] = {folders!r}
from test_pose_oks import Data, task, torch, trainer
run = trainer(devices=2, strategy="ddp")
(logged,) = run.validate(task(), Data(3), verbose=False)
torch.distributed.destroy_process_group()
if run.is_global_zero:
    print("LOGGED", json.dumps(logged))
"""


def test_logged_figures_are_the_librarys_in_one_process_and_in_two(tmp_path, request):
    data = Data(3)
    results = results_of(data)
    stats = by_library(data.content, results, SIGMAS)
    assert 0 < stats[0] < 1
    (logged,) = trainer().validate(task(), data, verbose=False)
    # nobody of 400 px² is medium or large, and what is not measured is not logged
    names = [name for name in STATS if f"val/{name}" in logged]
    assert names == ["ap", "ap50", "ap75", "ar", "ar50", "ar75"]
    expected = [stats[list(STATS).index(name)] for name in names]
    assert agree([logged[f"val/{name}"] for name in names], expected)
    assert logged["val/nme"] == pytest.approx(nme_by_hand(data, results), rel=1e-5)
    # seven people for two processes: one is shown to both, and the last batches hold one person each
    script = tmp_path / "ranks.py"
    script.write_text(RANKS.format(folders=[str(folder) for folder in request.path.parents[:2]]))
    done = run_to_end([sys.executable, script], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOGGED")]
    both = json.loads(line.removeprefix("LOGGED "))
    assert both.keys() == logged.keys()
    assert agree([both[f"val/{name}"] for name in names], expected)


@pytest.mark.parametrize("name", ["coco", "horse10", "animalpose", "onehand10k"])
def test_real_sets_shared_out_between_two_processes(real_data, name, monkeypatch):
    path, content = real_set(real_data, name)
    truth, num_joints = coco_truth(path, ""), len(content["annotations"][0]["keypoints"]) // 3
    skeleton = Skeleton(tuple(map(str, range(num_joints))), (), (), sigmas=(0.06,) * num_joints)
    rng, results, people = np.random.default_rng(1), [], []
    for entry, annotation in enumerate(content["annotations"], 1):
        if not any(annotation["keypoints"][2::3]):
            continue
        (found,) = (
            noisy({"annotations": [annotation]}, 3 * entry, 8.0)[:1] or noisy({"annotations": [annotation]}, 1)[:1]
        )
        found["score"] = float(np.float32(rng.uniform(0.3, 1)))
        results.append(found)
        joints = torch.tensor(found["keypoints"], dtype=torch.float64).view(-1, 3)[:, :2]
        people.append((torch.tensor(entry), joints, torch.full((num_joints,), found["score"])))
    shares = people[1::2] + people[:1], people[::2]  # the first is shown to both
    measures = [EpochOKS(), EpochOKS()]
    for measure, share in zip(measures, shares, strict=True):
        for start in range(0, len(share), 2):
            measure.update(*(torch.stack(column) for column in zip(*share[start : start + 2], strict=True)))
    gathered = []
    monkeypatch.setattr("bnnlight.tasks.oks._of_all_processes", lambda share: gathered.append(share) or [])
    assert measures[0].compute(truth, skeleton) == {}
    monkeypatch.setattr("bnnlight.tasks.oks._of_all_processes", lambda share: [*gathered, share])
    figures = measures[1].compute(truth, skeleton)
    assert agree(figures.values(), by_library(completed(content), results, skeleton.sigmas))
    # and begins anew
    monkeypatch.undo()
    assert measures[1].compute(truth, skeleton) == {}


def test_images_of_which_nobody_was_shown_are_not_measured_on():
    data = Data(1)
    # people 1, 4 and 7 are those of the first picture
    data.samples = [data.samples[index] for index in (0, 3, 6)]
    (logged,) = trainer().validate(task(), data, verbose=False)
    alone = {**data.content, "images": data.content["images"][:1]}
    alone["annotations"] = [entry for entry in data.content["annotations"] if entry["image_id"] == 0]
    results = [result for result in results_of(Data(1)) if result["image_id"] == 0]
    assert logged["val/ap"] == pytest.approx(by_library(alone, results, SIGMAS)[0], abs=1e-6)


@pytest.mark.parametrize("chosen", [range(NUM), (0, 1, 4, 5)])
def test_what_is_shipped_is_compared_by_it_too(chosen):
    data = Data(2)
    people = Subset(data.samples, list(chosen)) if len(chosen) < NUM else data.samples
    figures = figures_of(task(), Shown(data, DataLoader(people, batch_size=2)), quiet=True)
    # people who are not shown are left out, and not missed; the crowd stays
    left = [entry for index, entry in enumerate(data.content["annotations"]) if index in chosen or entry["iscrowd"]]
    images = [image for image in data.content["images"] if any(i % 3 == image["id"] for i in chosen)]
    truth = data.content | {"annotations": left, "images": images}
    results = [result for index, result in enumerate(results_of(data)) if index in chosen]
    assert figures["test/ap"] == pytest.approx(by_library(truth, results, SIGMAS)[0], abs=1e-6)
    assert figures["test/pck_box"] > 0


def test_without_sigmas_it_is_said_once_how_to_give_them(monkeypatch):
    lines = []
    monkeypatch.setattr("bnnlight.tasks.oks.rank_zero_info", lines.append)
    data = Data(3, sigmas=())
    (logged,) = trainer().validate(task(), data, verbose=False)
    assert "val/ap" not in logged
    assert "val/ap" not in task().logged(data)
    (line,) = lines
    assert "set data.sigmas to 3 numbers" in line
    lines.clear()
    with_sigmas = Data(3)
    trainer().validate(task(), with_sigmas, verbose=False)
    assert lines == []
    assert {f"val/{name}" for name in STATS} <= task().logged(with_sigmas)


def test_a_file_through_network_and_data_module(tmp_path):
    # an untrained network is right nowhere: with large sigmas more or less so
    torch.manual_seed(0)
    truth = coco_content(9)
    truth["annotations"][2] |= {"iscrowd": 1}
    truth["annotations"][4] |= {"keypoints": [0] * 15, "num_keypoints": 0}
    data = ready(write_coco(tmp_path, truth), origin=1.0, sigmas=[0.3, 0.2, 0.4, 0.2, 0.5], batch_size=2)
    made = PoseTask(StackedHourglass(5, 16, 1, depth=1))
    (logged,) = trainer().validate(made, data, verbose=False)
    results, left = [], [entry for entry in truth["annotations"] if entry["num_keypoints"] and not entry["iscrowd"]]
    made.eval()
    for sample, annotation in zip(data.val_set, left, strict=True):
        found = made.predict_step(torch.utils.data.default_collate([sample]), 0)
        points = torch.cat((found["joints"][0].detach() + 1, torch.ones(5, 1)), 1)
        confidence = found["confidence"][0].detach()
        one = {"image_id": annotation["image_id"], "category_id": 1, "keypoints": points.flatten().tolist()}
        results.append(one | {"score": float(confidence[confidence > 0.2].mean().nan_to_num())})
    stats = by_library(truth, results, data.skeleton.sigmas)
    assert 0 < stats[0] < 1
    assert logged["val/ap"] == pytest.approx(stats[0], abs=1e-6)
    assert logged["val/ap_m"] == pytest.approx(stats[3], abs=1e-6)
    assert logged["val/ar"] == pytest.approx(stats[5], abs=1e-6)
    assert {f"val/{name}" for name in ("ap75", "nme", "pck_box")} <= logged.keys()
