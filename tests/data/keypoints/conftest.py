"""What the tests of several pose data sets check in the same way."""

import pytest
import torch

from bnnlight.data.keypoints.heatmaps import decode, render
from bnnlight.imaging.heatmaps import to_heatmap


@pytest.fixture
def check_samples():
    """Check of samples that joints, truth and `to_image` agree, and that heat maps tell where the joints are."""

    def check(samples, stride=4):
        num_joints = 0
        for sample in samples:
            back = sample["joints"] @ sample["to_image"][:, :2].T + sample["to_image"][:, 2]
            torch.testing.assert_close(back, sample["truth"], atol=1e-2, rtol=0)
            used = sample["weight"] == 1
            assert sample["annotated"][used].all()
            size = sample["image"].shape[-1] // stride
            joints = to_heatmap(sample["joints"], stride)
            found, _ = decode(render(joints[None], size, size))
            error = (found[0] - joints)[used]
            # a joint in the map's outermost half pixel is found at the middle of that pixel
            assert (error.abs() <= 0.5 + 1e-4).all()
            far_inside = ((joints > 0.5) & (joints < size - 1.5)).all(1)[used]
            assert (error[far_inside].norm(dim=1) <= 0.5).all()
            num_joints += int(used.sum())
        return num_joints

    return check


@pytest.fixture
def told(monkeypatch):
    """Collect what the readers tell on rank zero: whether loggers pass it on depends on what ran before."""
    lines = []
    for module in ("mpii", "mpii_json", "mpii_release", "coco_files.reading", "coco_files.skeleton"):
        monkeypatch.setattr(f"bnnlight.data.keypoints.{module}.rank_zero_info", lines.append)
    return lines
