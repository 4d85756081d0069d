"""What to install where a package is not there: errors that Lightning's loggers raise."""

import importlib.util

import pytest
from lightning.pytorch.loggers import CometLogger, MLFlowLogger

from bnnlight.console.missing import explain_missing

LOGGERS = {"mlflow": (MLFlowLogger, "mlflow"), "comet_ml": (CometLogger, "comet-ml")}


@pytest.mark.parametrize("module", LOGGERS)
def test_a_logger_without_its_tracker(module):
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    make, package = LOGGERS[module]
    with pytest.raises(ModuleNotFoundError) as error:
        make()
    assert explain_missing(error.value) == f"{package} is needed here and is not installed; run: pip install {package}"


def test_tensorboard_whose_message_names_two():
    # Lightning's words, of 2.6.6
    error = ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available. Try `pip install`ing either.")
    assert explain_missing(error).endswith("run: pip install tensorboard")


def test_packages_of_an_extra_and_others():
    assert explain_missing(ModuleNotFoundError("x", name="onnx.helper")).endswith("pip install 'bnnlight[deploy]'")
    assert explain_missing(ModuleNotFoundError("No module named 'mine'", name="mine")) is None
    assert explain_missing(ValueError("tensorboard")) is None
