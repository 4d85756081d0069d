import pytest
import torch
from fixtures.teaching import teacher

__all__ = ["teacher"]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
