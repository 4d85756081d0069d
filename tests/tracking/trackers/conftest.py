import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def sheet(tmp_path):
    """A picture of 6 × 4 px in a file, and its pixels (4, 6, 3)."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "sheet.png")
    return tmp_path / "sheet.png", pixels
