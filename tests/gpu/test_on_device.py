"""What must hold on a GPU: the same layers, gradients, steps and exports as on a CPU.

    pytest -m gpu tests/gpu

Where there is no GPU the device is the CPU: then the tests say that they themselves are right, and no more.
"""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnnlight.backbones import ResNet, StackedHourglass
from bnnlight.cli import main
from bnnlight.nn import CP, BinaryLinear, Dense, Holistic, Matrix, Rotated, TensorTrain, Tucker
from bnnlight.nn.compute.binary_conv import binary_conv2d
from bnnlight.nn.compute.bits import packed_activations
from bnnlight.nn.compute.patches import ConvShape
from bnnlight.nn.compute.sync_norm import synchronize
from bnnlight.optim import SOAP, Muon, parameter_groups

pytestmark = pytest.mark.gpu
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LATENTS = [Dense, Matrix, Tucker, Holistic, CP, TensorTrain, Rotated]


@pytest.fixture(autouse=True)
def exact():
    """Float32 products as exact as the CPU's, and the same at each run."""
    torch.manual_seed(0)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before


def small(latent=Tucker, **options):
    return ResNet([1, 1], 4, width=0.125, stem="small", latent=latent, **options)


def pictures(number=8, dtype=torch.float32):
    return torch.randn(number, 3, 12, 12, dtype=dtype), torch.arange(number) % 4


def gradients(network, images, labels):
    """Logits, and the gradient of each parameter."""
    network.zero_grad()
    logits = network(images)
    F.cross_entropy(logits.float() if logits.dtype == torch.bfloat16 else logits, labels).backward()
    return [logits, *(p.grad for p in network.parameters())]


@pytest.mark.parametrize("scale", ["none", "analytic", "channel", "spatial"])
@pytest.mark.parametrize("latent", LATENTS)
def test_layers_are_the_cpus_in_double_precision(latent, scale):
    images, labels = pictures(dtype=torch.float64)
    network = small(latent, scale=scale, image_size=12).double()
    expected = gradients(network, images, labels)
    found = gradients(copy.deepcopy(network).to(DEVICE), images.to(DEVICE), labels.to(DEVICE))
    for there, here in zip(found, expected, strict=True):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_of_signs_are_exact(groups, dtype):
    x, weight = torch.randn(2, 128, 9, 8).to(dtype), torch.randn(6, 128 // groups, 3, 3)
    shape = ConvShape((2, 1), (1, 1), (1, 1), groups, 0)
    found = binary_conv2d(x.to(DEVICE), weight.to(DEVICE), None, shape)
    signs = [torch.tensor(np.where(part.double().numpy() >= 0, 1.0, -1.0)) for part in (x, weight)]
    # sums of up to 1152 signs, each rounded once to the dtype
    assert torch.equal(found.cpu(), F.conv2d(*signs, None, (2, 1), (1, 1), 1, groups).to(dtype))


def test_a_linear_layer():
    layer = BinaryLinear(40, 7, latent=Matrix).double()
    x = torch.randn(5, 40, dtype=torch.float64)
    torch.testing.assert_close(copy.deepcopy(layer).to(DEVICE)(x.to(DEVICE)).cpu(), layer(x))


def test_channels_last_gives_the_same():
    images, labels = (part.to(DEVICE) for part in pictures(dtype=torch.float64))
    network = small().double().to(DEVICE)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    rows = gradients(network, images, labels)
    for one, other in zip(gradients(last, images.to(memory_format=torch.channels_last), labels), rows, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lean_gives_the_same(dtype):
    images, labels = (part.to(DEVICE) for part in pictures())
    plain, lean = small().to(DEVICE), small(lean=True).to(DEVICE)
    lean.load_state_dict(plain.state_dict())
    with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
        expected, found = gradients(plain, images, labels), gradients(lean, images, labels)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_activations_as_bits_give_the_same():
    images, labels = (part.to(DEVICE) for part in pictures(dtype=torch.float64))
    network = small().double().to(DEVICE)
    expected = gradients(network, images, labels)
    with packed_activations():
        found = gradients(network, images, labels)
    for one, other in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_learns(dtype):
    images, labels = (part.to(DEVICE) for part in pictures(16))
    network = small(Dense).to(DEVICE)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler(DEVICE, enabled=dtype == torch.float16)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        with torch.autocast(DEVICE, dtype):
            loss = F.cross_entropy(network(images).float(), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(loss.detach()))
    assert all(torch.isfinite(p).all() for p in network.parameters())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", [SOAP, Muon])
def test_steps_are_the_cpus(kind):
    images, labels = pictures(dtype=torch.float64)
    here = small(Dense).double()
    there = copy.deepcopy(here).to(DEVICE)
    for network, device in ((here, "cpu"), (there, DEVICE)):
        groups = [{"params": list(group.parameters), "name": group.name} for group in parameter_groups(network)]
        optimizer = kind(groups, lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(network(images.to(device)), labels.to(device)).backward()
            optimizer.step()
    for (name, one), other in zip(there.named_parameters(), here.parameters(), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-5, atol=1e-7, msg=lambda text, name=name: name + text)


def test_an_hourglass():
    network = StackedHourglass(num_joints=3, features=16, stacks=1, depth=1, image_size=32).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    here, there = network(x), copy.deepcopy(network).to(DEVICE)(x.to(DEVICE))
    for one, other in zip(torch.utils._pytree.tree_leaves(there), torch.utils._pytree.tree_leaves(here), strict=True):
        torch.testing.assert_close(one.cpu(), other)


def test_a_run_with_its_callbacks_is_shipped(tmp_path):
    run_dir = tmp_path / "run"
    accelerator = "gpu" if DEVICE == "cuda" else "cpu"
    code = main(
        [
            *(
                "fit",
                "--config",
                "quickstart",
                "--run_dir",
                str(run_dir),
                "--trainer.logger=bnnlight.tracking.MetricsFile",
            ),
            *("--trainer.max_epochs=1", f"--trainer.accelerator={accelerator}", "--trainer.devices=1"),
            *("--model.backbone.width=0.125", "--trainer.enable_progress_bar=false", "--flip_rates.interval=5"),
        ]
    )
    assert code == 0
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    keys = {key for row in rows for key in row}
    assert {"bnn/flip_rate_mean", "test/acc1"} <= keys
    assert all(np.isfinite(value) for row in rows for value in row.values())
    # `export` compares the model with the checkpoint that the device trained
    best = str(run_dir / "checkpoints/best.ckpt")
    assert main(["export", "--ckpt_path", best, "--format", "packed", "--output", str(tmp_path / "model")]) == 0


def test_sync_batch_norm_alone_is_batch_norm(tmp_path):
    torch.distributed.init_process_group(
        "nccl" if DEVICE == "cuda" else "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    try:
        images, labels = (part.to(DEVICE) for part in pictures(dtype=torch.float64))
        plain = small().double().to(DEVICE)
        synced = copy.deepcopy(plain)
        synced = nn.SyncBatchNorm.convert_sync_batchnorm(synced) if DEVICE == "cuda" else synchronize(synced)
        for one, other in zip(gradients(synced, images, labels), gradients(plain, images, labels), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    finally:
        torch.distributed.destroy_process_group()
