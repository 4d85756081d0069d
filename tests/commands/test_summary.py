"""`bnnlight summary` of ResNet-18 against a count by hand."""

import json


def test_resnet18_with_1000_classes(bnnlight, configs):
    code, out, err = bnnlight("summary", "--config", configs / "resnet18_imagenet.yaml", "--json")
    assert code == 0, err
    report = json.loads(out)
    total = report["total"]
    # 3×3 convolutions of He et al. 2016, table 1: four at 64 channels; one doubling and three at 128, 256, 512
    binary = 4 * 64 * 64 * 9 + sum((n // 2) * n * 9 + 3 * n * n * 9 for n in (128, 256, 512))
    assert total["num_binary"] == binary == 10_985_472
    # real: 7×7 stem, three 1×1 shortcuts, classifier
    real = 3 * 64 * 49 + 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1000 + 1000
    # one α and one PReLU slope for each output channel of the 16 convolutions
    real += 2 * 4 * (64 + 128 + 256 + 512)
    # batch norms, four numbers a channel: stem, before each convolution, on shortcuts, before the pool
    before = 4 * 64 + sum(n // 2 + 3 * n for n in (128, 256, 512))
    real += 4 * (64 + before + (128 + 256 + 512) + 512)
    assert total["num_real"] == real
    assert total["num_bytes"] == binary // 8 + 4 * real
    assert total["num_binary_bytes"] == binary // 8
    assert total["binary_share"] == binary / (binary + real)
    # full-rank Tucker: a core as large as the weight and square factors for its four modes
    shapes = [(64, 64)] * 4 + [s for n in (128, 256, 512) for s in [(n, n // 2)] + [(n, n)] * 3]
    assert total["num_factors"] == sum(o * i * 9 + o * o + i * i + 9 + 9 for o, i in shapes)
    # multiply-adds at 224 px: stages at 56, 28, 14 and 7 px; the first convolution of a stage is its doubling one
    macs = 4 * 64 * 64 * 9 * 56**2
    macs += sum(((n // 2) * n * 9 + 3 * n * n * 9) * s * s for n, s in ((128, 28), (256, 14), (512, 7)))
    assert total["num_binary_macs"] == macs
    stem = 3 * 64 * 49 * 112**2
    shortcuts = 64 * 128 * 28**2 + 128 * 256 * 14**2 + 256 * 512 * 7**2
    assert total["num_real_macs"] == stem + shortcuts + 512 * 1000


def test_table_lists_every_binary_layer(bnnlight, configs):
    code, out, err = bnnlight("summary", "--config", configs / "quickstart.yaml", "--model.backbone.latent.rank=0.5")
    assert code == 0, err
    for stage in (0, 1):
        for unit in (1, 2):
            assert f"stages.{stage}.0.unit{unit}.conv" in out
    assert "Tucker (16, 16, 3, 3)" in out
    assert "Shipped:" in out


def test_input_size_that_does_not_fit(bnnlight_error, configs):
    code, line = bnnlight_error("summary", "--config", configs / "quickstart.yaml", "--image_size=0")
    assert code == 2
    assert "--image_size" in line


def test_what_cannot_be_exported_is_told_before_the_training(bnnlight, tmp_path, monkeypatch):
    (tmp_path / "wavy.py").write_text(
        "import torch\nfrom torch import nn\nfrom bnnlight.nn import BinaryConv2d\n\n\n"
        "class Wavy(nn.Module):\n"
        "    def __init__(self, wavy: bool = True):\n"
        "        super().__init__()\n"
        "        self.wavy, self.first, self.norm = wavy, nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)\n"
        "        self.conv, self.last = BinaryConv2d(4, 4, 3), nn.Linear(64, 10)\n\n"
        "    def forward(self, x):\n"
        "        x = self.conv(self.norm(self.first(x)))\n"
        "        return self.last((torch.sin(x) if self.wavy else x).flatten(1))\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["summary", "--model=bnnlight.tasks.ClassificationTask", "--model.backbone=wavy.Wavy"]
    words += ["--data=bnnlight.data.DigitsDataModule"]
    for wavy, lines in ((True, 1), (False, 0)):
        code, out, err = bnnlight(*words, f"--model.backbone.wavy={wavy}")
        assert code == 0, err
        told = [line for line in out.splitlines() if line.startswith("Cannot be exported: ")]
        assert len(told) == lines
        assert not told or "function sin" in told[0]
