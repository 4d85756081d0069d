import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def scramble():
    """Give a module values of which none is neutral, so that a part left out is seen."""

    def change(module):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_()
            for part in module.modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.running_mean.normal_()
                    part.running_var.uniform_(0.5, 2)
        return module.double()

    return change
