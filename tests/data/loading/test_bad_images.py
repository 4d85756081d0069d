"""Pictures that cannot be read: an error, or left out of their batches, counted and named."""

import errno
import json
import shutil
from types import SimpleNamespace

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

from bnnlight.data import ImageFolderDataModule
from bnnlight.data.loading.bad_images import Checked, ImageLoader, LeaveOut, Readable, Unreadable


@pytest.fixture
def damaged(draw_folder, tmp_path):
    """A folder of 60 training and 12 validation images; two of class ant are damaged in train, one of bee in val."""
    root = tmp_path / "set"
    draw_folder("train", num_images=20, root=root)
    draw_folder("val", root=root)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    cut = root / "train/ant/003.png"
    Image.fromarray(noise).save(cut)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (root / "train/ant/007.png").write_bytes(b"")
    (root / "val/bee/001.png").write_text("no image\n")
    return root


def module(root, **options):
    data = ImageFolderDataModule(
        str(root), **{"image_size": 8, "num_workers": 0, "batch_size": 8, "on_bad_image": "skip", **options}
    )
    data.setup()
    return data


def drawn(loader, bad):
    """Labels of each batch as the sampler draws them, and how many of each are among the bad positions."""
    items, sampler = loader.dataset.items, loader.sampler
    order = [int(position) for position in sampler][: len(loader) * loader.batch_size]
    batches = [order[i : i + loader.batch_size] for i in range(0, len(order), loader.batch_size)]
    labels = [[items.items.targets[items.indices[p]] for p in batch if p not in bad] for batch in batches]
    return labels, [sum(p in bad for p in batch) for batch in batches]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_those_of_the_sampler_without_the_bad_pictures(damaged, num_workers, capfd):
    data = module(damaged, num_workers=num_workers)
    loader = data.train_dataloader()
    bad = {i for i, (file, _) in enumerate(data.train_set.items.samples) if "ant/003" in file or "ant/007" in file}
    assert len(bad) == 2
    # twice over the same workers
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        labels, missing = drawn(loader, bad)
        found = list(loader)
        assert [batch[1].tolist() for batch in found] == labels
        assert [len(batch[0]) for batch in found] == [8 - count for count in missing]
        assert list(loader.skipped) == missing
        assert len(found) == len(loader) == 7
    # the last batch is dropped: what it held is read in one of the epochs at least, and named once
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert sorted(line[: line.index(": ", 12)] for line in lines) == [
        f"left out: cannot read image {damaged / 'train/ant' / name}" for name in ("003.png", "007.png")
    ]


def test_what_else_is_drawn_stays_as_it_is(damaged, monkeypatch):
    # the last batch is dropped: with this seed neither of the two is in it
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    skipping, whole = module(damaged), damaged.parent / "whole"
    shutil.copytree(damaged, whole)
    for name in ("003.png", "007.png"):
        Image.new("RGB", (12, 12), (0, 0, 0)).save(whole / "train/ant" / name)
    pairs = zip(skipping.train_dataloader(), module(whole, on_bad_image="stop").train_dataloader(), strict=True)
    num_missing = 0
    for (images, labels), (all_images, all_labels) in pairs:
        # pictures of one colour: those that were black are the ones that are missing
        kept = all_images.flatten(1).std(1) > 0
        kept &= ~torch.isclose(all_images[:, 2].mean((1, 2)), torch.tensor(-0.406 / 0.225), atol=1e-4)
        num_missing += int((~kept).sum())
        assert torch.equal(images, all_images[kept])
        assert torch.equal(labels, all_labels[kept])
    assert num_missing == 2


def test_measured_over_what_is_left(damaged):
    loader = module(damaged).val_dataloader()
    assert [labels.tolist() for _, labels in loader] == [[0] * 4 + [1] * 3, [2] * 4]
    assert list(loader.skipped) == [1, 0]


def test_a_short_last_batch_may_be_empty_and_a_full_one_may_not(damaged, check_one_line):
    (damaged / "val/bee/001.png").unlink()
    (damaged / "val/cat/003.png").write_bytes(b"")
    # 11 pictures in batches of 10: the last one is alone
    batches = list(module(damaged, batch_size=10).val_dataloader())
    assert [len(labels) for _, labels in batches] == [10, 0]
    assert batches[1][0].shape == (0, 3, 8, 8)
    assert (batches[1][0].dtype, batches[1][1].dtype) == (torch.float32, torch.int64)
    for file in (damaged / "val").rglob("*.png"):
        file.write_bytes(b"")
    for batch_size, num in ((10, 10), (50, 11)):
        with pytest.raises(OSError) as error:
            list(module(damaged, batch_size=batch_size).val_dataloader())
        check_one_line(error, f"none of the {num} images", damaged / "val/ant/000.png", "is the data folder still")


def test_a_training_batch_without_pictures_is_an_error(damaged, check_one_line):
    for file in (damaged / "train").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(OSError) as error:
        next(iter(module(damaged).train_dataloader()))
    check_one_line(error, "none of the 8 images of a batch can be read", damaged / "train", "is the data folder still")


@pytest.mark.parametrize("on_bad_image", ["stop", "skip"])
@pytest.mark.parametrize("what", ["train", ""])
def test_a_folder_that_is_gone_is_named_whatever_is_skipped(damaged, check_one_line, on_bad_image, what):
    for name in ("003.png", "007.png"):
        (damaged / "train/ant" / name).unlink()
    batches = iter(module(damaged, on_bad_image=on_bad_image, batch_size=2).train_dataloader())
    next(batches)
    (damaged / what).rename(damaged.parent / "elsewhere")
    with pytest.raises(OSError) as error:
        list(batches)
    gone = str(damaged / what)
    check_one_line(error, "cannot read image", f"no such file; the folder {gone} is gone, mount it again and resume")


def test_a_file_that_is_gone_alone_is_left_out(damaged, capfd):
    data = module(damaged)
    (damaged / "val/ant/000.png").unlink()
    assert sum(len(labels) for _, labels in data.val_dataloader()) == 10
    line = f"left out: cannot read image {damaged / 'val/ant/000.png'}: no such file; put it back"
    assert line in capfd.readouterr().err.splitlines()


def test_what_is_no_fault_of_the_picture_stays_an_error():
    class Items:
        def __init__(self, error):
            self.error = error

        def __getitem__(self, position):
            raise self.error

    assert Readable(Items(OSError("cut off")))[0] == Unreadable("cut off")
    for error in (OSError(errno.EMFILE, "Too many open files"), MemoryError(), ValueError("8 bits")):
        with pytest.raises(type(error)):
            Readable(Items(error))[0]


def test_another_choice(check_one_line):
    with pytest.raises(ValueError) as error:
        ImageFolderDataModule("anywhere", on_bad_image="ignore")
    check_one_line(error, "'ignore'", "stop or skip")


def test_a_batch_whose_memory_was_pinned_is_taken_apart(monkeypatch):
    loader = ImageLoader(Readable([1, 2]), collate_fn=LeaveOut(list, 2))
    # what pinning makes of a tuple in some versions of torch
    for pair in (Checked("batch", ["x"]), ["batch", []]):
        monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", lambda self, pair=pair: iter([pair]))
        assert list(loader) == ["batch"]
        assert list(loader.skipped) == [len(pair[1])]


def test_what_cannot_be_read_is_left_out_of_batches_to_overfit_too(damaged):

    class Counts(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight, self.sizes = torch.nn.Parameter(torch.zeros(1)), []

        def training_step(self, batch, batch_idx):
            self.sizes.append(len(batch[1]))
            return self.weight.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    task = Counts()
    options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, overfit_batches=2, limit_val_batches=0, **options
    )
    data = module(damaged)
    trainer.fit(task, data)
    # in order, without shuffling: the two bad ones are the fourth and eighth picture
    assert task.sizes == [6, 8]


SMALL = (
    *("--model.backbone=bnnlight.backbones.ResNet", "--model.backbone.blocks=[1,1]", "--model.backbone.width=0.0625"),
    "--model.backbone.latent=bnnlight.nn.Dense",
)


def fit(bnnlight, quick, configs, root, *options):
    return bnnlight(
        *("fit", "--config", configs / "resnet18_imagenet.yaml", f"--data.root={root}", "--run_dir=run", *quick),
        *("--data.image_size=64", "--data.batch_size=4", "--data.num_workers=2", "--trainer.devices=1", *SMALL),
        *("--model.backbone.num_classes=3", "--trainer.max_epochs=1", *options),
    )


HOW = {
    "truncated": lambda content: content[: len(content) // 2],
    "zero bytes": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"not an image\n",
}


@pytest.mark.parametrize("how", HOW)
def test_one_step_of_fit_with_a_damaged_jpeg(bnnlight, quick, configs, draw_folder, tmp_path, how):
    draw_folder("train", num_images=3)
    root = draw_folder("val", num_images=1)
    for split in ("train", "val"):
        bad = root / split / "ant" / "000.jpg"
        (root / split / "ant" / "000.png").unlink()
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 60, 3), dtype=np.uint8)).save(bad)
        bad.write_bytes(HOW[how](bad.read_bytes()))
    # one batch holds all nine pictures
    options = ["--data.batch_size=9", "--trainer.logger=bnnlight.tracking.MetricsFile"]
    code, _, err = fit(bnnlight, quick, configs, root, *options, "--trainer.limit_val_batches=0")
    assert code == 1
    assert err.splitlines()[-1].startswith(f"bnnlight fit: error: cannot read image {root / 'train/ant/000.jpg'}: ")
    assert err.splitlines()[-1].endswith("replace or remove the file")
    shutil.rmtree(tmp_path / "run")
    code, _, err = fit(bnnlight, quick, configs, root, *options, "--data.on_bad_image=skip")
    assert code == 0, err
    named = [line for line in err.splitlines() if line.startswith("left out: cannot read image")]
    assert sorted(line.split(": ")[1].split()[-1] for line in named) == [
        str(root / split / "ant" / "000.jpg") for split in ("train", "val")
    ]
    assert "validation: 1 picture was left out, unreadable" in err.splitlines()
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    counts = [(row["step"], row["data/bad_images"]) for row in rows if "data/bad_images" in row]
    assert counts == [(1, 1.0)]


@pytest.mark.parametrize(("kind", "damage"), [("mpii", b""), ("lsp", b"\xff\xd8\xff\xe0 no header")])
def test_pose_pictures_whose_headers_are_damaged(
    bnnlight, quick, configs, write_mpii, write_lsp, tmp_path, kind, damage
):
    if kind == "mpii":
        root = write_mpii()
        bad, config, options = root / "images/train002.jpg", "hg_mpii.yaml", [f"--data.root={root}"]
    else:
        lsp, lspet = write_lsp()
        bad, config = lsp / "images/im0002.jpg", "hg_lsp.yaml"
        options = [f"--data.lsp_root={lsp}", f"--data.lspet_root={lspet}", "--data.val_size=2", "--data.train_on=lsp"]
    bad.write_bytes(damage)
    command = (
        *("fit", "--config", configs / config, *options, *quick, "--trainer.max_epochs=1", "--data.batch_size=6"),
        *("--data.image_size=64", "--data.num_workers=0", "--model.backbone.features=16", "--model.backbone.depth=1"),
        *("--trainer.devices=1", "--model.backbone.latent=bnnlight.nn.Dense"),
    )
    code, _, err = bnnlight(*command, "--run_dir=stop")
    assert code == 1
    assert err.splitlines()[-1].startswith(f"bnnlight fit: error: cannot read image {bad}: ")
    code, _, err = bnnlight(*command, "--run_dir=skip", "--data.on_bad_image=skip")
    assert code == 0, err
    assert [bad.name in line for line in err.splitlines() if line.startswith("left out: ")] == [True]


def test_each_process_leaves_out_its_own(damaged):
    totals = []
    for rank in range(2):
        data = module(damaged)
        strategy = SimpleNamespace(broadcast=lambda seed: seed)
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank, strategy=strategy)
        loader = data.val_dataloader()
        totals.append((sum(len(labels) for _, labels in loader), sum(loader.skipped)))
    assert sum(found for found, _ in totals) == 11
    assert sorted(missing for _, missing in totals) == [0, 1]
