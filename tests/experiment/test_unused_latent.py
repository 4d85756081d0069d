"""A latent that a config gives is in the network, or the run says that it is not."""

import textwrap

import pytest
from jsonargparse import Namespace
from torch import nn

from bnnlight.backbones import ResNet
from bnnlight.experiment.unused_latent import unused_latent
from bnnlight.nn import BinaryConv2d, Holistic, Tucker, factorize


def config(backbone, latent):
    given = {} if latent is None else {"latent": Namespace(class_path=f"bnnlight.nn.{latent}", init_args=Namespace())}
    return Namespace(
        model=Namespace(
            init_args=Namespace(backbone=Namespace(class_path=f"mine.{backbone}", init_args=Namespace(**given)))
        )
    )


def stack():
    return nn.Sequential(*(BinaryConv2d(4, 4, 3, padding=1) for _ in range(2)))


def test_one_that_no_layer_has():
    assert unused_latent(config("Net", "Tucker"), stack()) == (
        "model.backbone.latent is Tucker, but no layer of Net has it (Dense instead): "
        "end its __init__ with bnnlight.nn.factorize(self, latent)"
    )


@pytest.mark.parametrize(
    ("latent", "network"),
    [
        ("Tucker", lambda: factorize(stack(), Tucker)),
        ("Holistic", lambda: factorize(stack(), Holistic)),
        ("Dense", stack),
        (None, stack),
        ("Tucker", lambda: nn.Linear(2, 2)),  # all real: there is nothing to factorize
        ("Tucker", lambda: ResNet(blocks=[1], num_classes=2, width=0.125, stem="small", latent=Tucker)),
    ],
)
def test_nothing_is_said_where_all_is_well(latent, network):
    assert unused_latent(config("Net", latent), network()) is None


def test_no_backbone_is_named():
    assert unused_latent(Namespace(model=Namespace(init_args=Namespace())), stack()) is None


def test_fit_says_it(bnnlight, quick, tmp_path, monkeypatch):
    code = """
        from torch import nn
        from bnnlight.nn import BinaryConv2d, LatentFactory


        class Forgetful(nn.Sequential):
            def __init__(self, latent: LatentFactory):
                body = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), BinaryConv2d(4, 4, 3)
                super().__init__(*body, nn.Flatten(), nn.Linear(64, 10))
    """
    (tmp_path / "forgetful_net.py").write_text(textwrap.dedent(code))
    monkeypatch.chdir(tmp_path)
    words = ["--model=bnnlight.tasks.ClassificationTask", "--model.backbone=forgetful_net.Forgetful"]
    words += ["--model.backbone.latent=bnnlight.nn.Tucker", "--data=bnnlight.data.DigitsDataModule"]
    words += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", f"--run_dir={tmp_path / 'run'}"]
    code, _, err = bnnlight("fit", *words, *quick)
    assert code == 0, err
    assert "bnnlight fit: model.backbone.latent is Tucker, but no layer of Forgetful has it (Dense instead)" in err
