"""What every network promises, and what it takes to add one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from srgan_lib.architectures import GENERATORS, NETWORKS, SRNetwork
from srgan_lib.errors import ConfigurationError
from srgan_lib.pretrained import CARDS, PRETRAINED
from srgan_lib.tiling import upscale_tiled

ROOT = Path(__file__).resolve().parents[1]
CLASS = '''
"""A network of two convolutions."""
from torch import Tensor, nn
from torch.nn import functional

from srgan_lib.architectures.network import SRNetwork


class Toy(SRNetwork):
    receptive_radius = 2

    def __init__(self, channels: int = 1, scale: int = 4, width: int = 8) -> None:
        super().__init__(locals())
        self.read = nn.Conv2d(channels, width, 3, padding=1)
        self.write = nn.Conv2d(width, channels * scale**2, 3, padding=1)

    @property
    def working_width(self) -> int:
        return self.arguments["width"]

    def forward(self, lr: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.write(self.read(lr).relu()), self.scale)
'''
RECIPE = """
stage: content
data: {name: images, crop_size: 32}
generator: {network: Toy, width: 6}
epochs: 1
crops_per_epoch: 4
batch_size: 2
"""
CARD = """---
weights:
  toy: {title: Toy, year: 2026, family: true}
---
# Model card: toy

**Not for diagnosis.**
"""
# All in one process, since a command spends most of its time on importing torch.
COMMANDS = """
import json, shutil, sys
from pathlib import Path
from typer.testing import CliRunner
from srgan_lib.cli import app

def srgan(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (arguments, result.output)
    return result.output

for line in json.loads(sys.argv[1]):
    print(srgan(*line))
"""


def srgan(folder: Path, *lines: list[str]) -> str:
    """Run command lines with the copy of the package in a folder; return what they print."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(lines)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_new_network_is_three_files_and_nothing_else(tmp_path):
    shutil.copytree(ROOT / "srgan_lib", tmp_path / "srgan_lib", copy_function=os.symlink)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    package = tmp_path / "srgan_lib"
    # Python looks for modules beside the file that a link leads to.
    for module in package.rglob("*.py"):
        source = module.resolve()
        module.unlink()
        shutil.copyfile(source, module)
    (package / "architectures" / "toy.py").write_text(CLASS, encoding="utf-8")
    (tmp_path / "recipes" / "toy.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "images").mkdir()
    for i in range(10):
        Image.linear_gradient("L").rotate(10 * i).resize((48, 40)).save(
            tmp_path / "images" / f"{i}.png"
        )
    srgan(tmp_path, ["train", "recipes/toy.yaml", "--folder", "run", "--device", "cpu"])

    weights = package / "weights" / "toy.safetensors"
    shutil.copyfile(tmp_path / "run" / "generator.safetensors", weights)
    (package / "weights" / "toy.md").write_text(CARD, encoding="utf-8")
    with safe_open(weights, framework="pt") as file:
        assert json.loads(file.metadata()["arguments"])["width"] == 6
    printed = srgan(
        tmp_path,
        ["info"],
        ["info", "toy"],
        ["evaluate", "--model", "toy", "--data", "images", "--split", "all", "--cost"],
        ["upscale", "images/0.png", "--model", "toy", "--tile", "8", "--out", "sr"],
        ["export", "--model", "toy", "--out", "toy.onnx"],
    )
    assert "architecture: Toy" in printed and "width: 6" in printed
    assert "| toy |" in printed
    assert (tmp_path / "sr" / "0_x4.png").stat().st_size > 0
    assert (tmp_path / "toy.onnx").stat().st_size > 0
    assert printed.index("ipt") < printed.index("toy")  # in the order of the years


def test_every_file_of_weights_has_a_card_and_every_card_its_weights():
    folder = ROOT / "srgan_lib" / "weights"
    shipped = {path.stem for path in folder.glob("*.safetensors")}
    assert set(PRETRAINED) == {name for name in shipped if not name.startswith("vgg")}
    assert all(card.title for card in CARDS.values())


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_keep_the_contract(name):
    network = GENERATORS[name](**GENERATORS[name].small).eval()
    again = NETWORKS[name](**json.loads(json.dumps(network.arguments)))
    assert again.arguments == network.arguments and again.scale == network.scale
    assert network.receptive_radius >= 0 and network.working_width > 0 and network.stride > 0
    lr = torch.rand(2, network.channels, 12, 9)
    assert network(lr).shape == (2, network.channels, 12 * network.scale, 9 * network.scale)
    whole = upscale_tiled(network, lr[0], tile=12)
    torch.testing.assert_close(upscale_tiled(network, lr[0], tile=5), whole, atol=1e-5, rtol=0)


def test_what_a_network_has_to_say_is_asked_for():
    class Silent(SRNetwork, named=False):
        def __init__(self, channels: int = 1, scale: int = 4) -> None:
            super().__init__(locals())

    with pytest.raises(NotImplementedError, match="Silent must say its receptive_radius"):
        _ = Silent().receptive_radius
    with pytest.raises(NotImplementedError, match="Silent must say its working_width"):
        _ = Silent().working_width
    with pytest.raises(ConfigurationError, match="scale must be 2, 3 or 4, not 5"):
        Silent(scale=5)


def test_two_networks_of_one_name_are_refused():
    with pytest.raises(ConfigurationError, match="has a network SRCNN already; rename yours"):
        type("SRCNN", (SRNetwork,), {"__module__": "elsewhere"})
    assert NETWORKS["SRCNN"].__module__ == "srgan_lib.architectures.srcnn"
