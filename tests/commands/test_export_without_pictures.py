"""A run whose pictures are gone, and which had none to test on but those of its validation."""

import json


def test_pictures_that_are_gone_need_not_be_compared(bnnlight, bnnlight_error, configs, quick, draw_folder, tmp_path):
    """Trained on class folders that are named from where the training was started, without a test set."""
    for split in ("train", "val"):
        draw_folder(split, root=tmp_path / "shapes")
    words = ["--model=bnnlight.tasks.ClassificationTask", "--model.backbone=bnnlight.backbones.ResNet"]
    words += ["--model.backbone.blocks=[1]", "--model.backbone.num_classes=3", "--model.backbone.width=0.125"]
    words += ["--model.backbone.stem=small", "--data=bnnlight.data.ImageFolderDataModule", "--data.image_size=12"]
    words += [f"--data.root={tmp_path / 'shapes'}", "--trainer.max_epochs=1", f"--run_dir={tmp_path / 'run'}", *quick]
    code, out, err = bnnlight("fit", *words)
    assert code == 0, err
    told = [line for line in out.splitlines() if line.startswith("test pictures")]
    assert len(told) == 1 and "those of the validation, which chose the best checkpoint" in told[0]
    assert json.loads((tmp_path / "run/results.json").read_text())["tested_on"] == "validation"
    (tmp_path / "shapes").rename(tmp_path / "moved")
    export = ("export", "--ckpt_path", tmp_path / "run/checkpoints/best.ckpt", "--format", "packed")
    code, line = bnnlight_error(*export)
    assert code == 2 and "no pictures to compare the model with its checkpoint" in line
    assert line.endswith("pass --num_check 0, which compares nothing")
    code, out, err = bnnlight(*export, "--num_check", "0", "--output", tmp_path / "model")
    assert code == 0, err
    card = (tmp_path / "model/README.md").read_text()
    assert "On the validation pictures, which also chose its checkpoint, of its data set:" in card
    assert "      split: validation\n" in card
