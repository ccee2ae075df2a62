"""What several test modules use."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def one_thread():
    """Let torch compute on one thread: processes that compare their bits share the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def noise_images(tmp_path_factory) -> Path:
    """A folder of ten small images to train on."""
    folder = tmp_path_factory.mktemp("images")
    chance = np.random.default_rng(0)
    for number in range(10):
        values = chance.integers(0, 256, (48, 48), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    return folder
