"""From a real-valued network trained by `fit` to a binary one that begins with its weights."""

import json

import pytest
import torch
import yaml

RESNET = {
    "class_path": "bnnlight.backbones.ResNet",
    "init_args": {"blocks": [1, 1], "num_classes": 10, "in_channels": 1, "width": 0.0625, "stem": "small"},
}


@pytest.fixture
def fit(tmp_path, configs, bnnlight, quick):
    """Train a backbone on digits for a moment; return exit code, errors and the run's directory."""

    def run(backbone, name, learning_rate=0.01):
        config = yaml.safe_load((configs / "quickstart.yaml").read_text())
        config["model"]["init_args"]["backbone"] = backbone
        config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = learning_rate
        config["trainer"] |= {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 2}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        run_dir = tmp_path / name
        command = ("fit", "--config", tmp_path / f"{name}.yaml", f"--run_dir={run_dir}", "--test_after_fit=false")
        code, _, err = bnnlight(*command, *quick)
        return code, err, run_dir

    return run


def test_real_then_factorized(tmp_path, fit, bnnlight):
    real = {"class_path": "bnnlight.nn.real_valued", "init_args": {"model": RESNET}}
    code, err, first = fit(real, "real")
    assert code == 0, err
    pretrained = first / "checkpoints/last.ckpt"
    tucker = {"class_path": "bnnlight.nn.Tucker", "init_args": {"rank": 1.0, "start": "hosvd"}}
    started = {
        "class_path": "bnnlight.nn.start_from",
        "init_args": {"model": RESNET, "checkpoint": str(pretrained), "latent": tucker},
    }
    # a step too small for float32 shows where the training began
    code, err, run = fit(started, "still", learning_rate=1e-30)
    assert code == 0, err
    before = torch.load(pretrained, weights_only=True)["state_dict"]
    after = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    layer = "backbone.stages.1.0.unit1.conv"
    core, *factors = after[f"{layer}.latent.core"], *(after[f"{layer}.latent.factors.{mode}"] for mode in range(4))
    weight = torch.einsum("abcd,oa,ib,hc,wd->oihw", core, *factors)
    torch.testing.assert_close(weight, before[f"{layer}.weight"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after["backbone.stem.0.weight"], before["backbone.stem.0.weight"])

    code, err, run = fit(started, "started")
    assert code == 0, err
    best, last = (run / f"checkpoints/{name}.ckpt" for name in ("best", "last"))
    trained = torch.load(last, weights_only=True)["state_dict"]
    assert not torch.equal(trained[f"{layer}.latent.core"], core)

    # the file that it was started from goes; the run's own checkpoint has all that is needed
    pretrained.rename(tmp_path / "elsewhere.ckpt")
    for args in (
        ("test", "--config", run / "config.yaml", "--ckpt_path", best),
        ("export", "--ckpt_path", best, "--format", "packed"),
    ):
        code, _, err = bnnlight(*args)
        assert code == 0, err
    code, _, err = bnnlight("summary", "--config", run / "config.yaml", "--json")
    assert code == 0, err
    # but a run that goes on needs it
    longer = (f"--run_dir={run}", "--resume", "--trainer.max_epochs=2")
    code, _, err = bnnlight("fit", "--config", run / "config.yaml", *longer)
    line = err.splitlines()[-1]
    assert code == 2 and str(pretrained) in line and "not found" in line and "go on" in line
    (tmp_path / "elsewhere.ckpt").rename(pretrained)
    code, _, err = bnnlight("fit", "--config", run / "config.yaml", *longer)
    assert code == 0, err
    assert json.loads((run / "results.json").read_text())["num_epochs"] == 2


def test_factors_go_on_under_another_head(fit):
    tucker = {"class_path": "bnnlight.nn.Tucker", "init_args": {"rank": 0.5, "start": "hosvd"}}
    network = {**RESNET, "init_args": RESNET["init_args"] | {"latent": tucker}}
    code, err, first = fit(network, "first")
    assert code == 0, err
    trained = first / "checkpoints/last.ckpt"
    options = {"model": network, "checkpoint": str(trained), "latent": None, "leave_out": ["classifier"]}
    started = {"class_path": "bnnlight.nn.start_from", "init_args": options}
    code, err, run = fit(started, "still", learning_rate=1e-30)
    assert code == 0, err
    before, after = (
        {
            name: value
            for name, value in torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"].items()
            if "running" not in name and "num_batches" not in name
        }
        for folder in (first, run)
    )
    assert before.keys() == after.keys()
    other = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert other == {"backbone.classifier.weight", "backbone.classifier.bias"}


def test_a_checkpoint_with_another_head_is_one_line_that_says_what_to_do(fit, bnnlight, quick):
    code, err, run = fit(RESNET, "ten")
    assert code == 0, err
    options = (f"--ckpt_path={run / 'checkpoints/last.ckpt'}", "--model.backbone.num_classes=5")
    code, _, err = bnnlight("test", "--config", run / "config.yaml", *options, *quick)
    line = err.splitlines()[-1]
    assert code == 2 and "leave_out" in line
    assert "2 entries with a different size (first backbone.classifier.weight: 10×8, the config's 5×8)" in line
