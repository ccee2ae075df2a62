"""Enlarging in tiles: equal to the whole image, in memory that the image doesn't set."""

import subprocess
import sys

import pytest
import torch

from srgan_lib import tiling
from srgan_lib.architectures import Discriminator, Interpolation, SRNetwork, SRResNet
from srgan_lib.degradation import KERNELS, resize_matrix
from srgan_lib.errors import ConfigurationError, ImageError, SRGANError
from srgan_lib.images import to_pixels
from srgan_lib.noise import noise_inputs
from srgan_lib.tiling import best_tile, choose_precision, receptive_radius, upscale_tiled


def lively(**arguments):
    """Return an SRResNet in which each pixel within reach has a clear influence."""
    torch.manual_seed(0)
    network = SRResNet(**arguments).eval()
    for name, parameter in network.named_parameters():
        if name.startswith("last") or "gain" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network


def measured_radius(network, size):
    """Return how far from the centre's output the gradient reaches, by a positive network."""
    network = network.double().eval()
    for parameter in network.parameters():
        parameter.data.abs_().add_(0.01)  # all influences add up, so that none can cancel
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.zero_()
    lr = torch.rand(1, 1, size, size, dtype=torch.float64, requires_grad=True)
    sr, centre = network(lr), size // 2
    block = slice(network.scale * centre, network.scale * (centre + 1))
    (gradient,) = torch.autograd.grad(sr[..., block, block].sum(), lr)
    rows, columns = gradient[0, 0].nonzero().T
    reach = [centre - rows.min(), rows.max() - centre, centre - columns.min()]
    assert rows.min() > 0 and rows.max() < size - 1, "the image is too small to tell"
    return max(int(side) for side in reach)


@pytest.mark.parametrize(
    "arguments",
    [
        {"blocks": 1, "scale": 2},
        {"blocks": 1, "scale": 4},
        {"blocks": 2, "scale": 8},
        {"blocks": 3, "scale": 4, "end_kernel": 3, "batch_norm": False},
        {"blocks": 1, "scale": 4, "end_kernel": 1},
        {"blocks": 1, "scale": 8, "end_kernel": 13},
        {"blocks": 1, "scale": 4, "end_kernel": 3, "bicubic_skip": True},
    ],
)
def test_radius_is_the_measured_one(arguments):
    network = SRResNet(**arguments, width=2)
    radius = receptive_radius(network)
    assert measured_radius(network, 2 * radius + 9) == radius


def test_radius_of_the_paper_s_network_is_the_measured_one():
    assert receptive_radius(SRResNet()) == receptive_radius(SRResNet(width=1)) == 40
    assert measured_radius(SRResNet(width=1), 89) == 40


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_radius_of_an_interpolation_is_the_measured_one(kernel, scale):
    network = Interpolation(kernel, scale)
    assert receptive_radius(network) == measured_radius(network, 15)


@pytest.mark.parametrize("network", [Discriminator(width=2), torch.nn.Conv2d(1, 1, 3)])
def test_radius_of_other_networks_is_not_guessed(network):
    with pytest.raises(ConfigurationError, match=f"{type(network).__name__} isn't known"):
        receptive_radius(network)
    with pytest.raises(ConfigurationError, match="can't enlarge in tiles"):
        upscale_tiled(network, torch.rand(1, 8, 8))


def test_network_without_parameters_is_enlarged_in_tiles():
    """Neighbour embedding has none, and isn't faster in bfloat16."""

    class Repeat(SRNetwork, named=False):
        receptive_radius, working_width = 0, 1

        def __init__(self, channels=1, scale=2):
            super().__init__(locals())

        def forward(self, lr):
            return lr.repeat_interleave(2, -1).repeat_interleave(2, -2)

    lr = torch.rand(1, 9, 7)
    assert torch.equal(upscale_tiled(Repeat(), lr, tile=4), Repeat()(lr))
    assert choose_precision(Repeat()) == "no"


@pytest.mark.parametrize("beyond", [0, 1, 2, 3, 4, 5, 12])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("kernel", KERNELS)
def test_reach_of_an_interpolation_for_what_reads_further_is_that_of_its_matrix(
    kernel, scale, beyond
):
    matrix, centre = resize_matrix(31, 31 * scale, kernel), 15
    rows = matrix[scale * centre - beyond : scale * (centre + 1) + beyond]
    columns = rows.abs().sum(0).nonzero().flatten()
    assert Interpolation(kernel, scale).reach(beyond) == centre - columns.min()
    assert Interpolation(kernel, scale).reach(beyond) == columns.max() - centre


NETWORKS = {
    "paper": {"blocks": 1, "width": 4},
    "x2": {"blocks": 1, "width": 4, "scale": 2},
    "x8": {"blocks": 1, "width": 4, "scale": 8, "end_kernel": 5},
    "skip": {"blocks": 2, "width": 4, "batch_norm": False, "bicubic_skip": True, "end_kernel": 3},
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("tile", [1, 7, 16, 100])
def test_tiled_is_whole(name, tile):
    network = lively(**NETWORKS[name])
    height, width = (9, 14) if tile == 1 else (45, 58)
    lr = torch.rand(1, height, width)
    with torch.no_grad():
        whole = network(lr[None])[0]
    found = upscale_tiled(network, lr, tile=tile, precision="no")
    assert found.shape == whole.shape and found.dtype == torch.float32
    scale = whole.abs().max().clamp(min=1)
    assert whole.std() > 0.01 and (found - whole).abs().max() < 2e-6 * scale


@pytest.mark.parametrize("tile", [1, 7, 16, 100])
def test_tiled_throw_is_the_whole_one(tile):
    network = lively(**NETWORKS["skip"], noise=True)
    lr = torch.rand(1, 9, 14) if tile == 1 else torch.rand(1, 45, 58)
    with torch.no_grad():
        whole, other = (
            network(lr[None], *noise_inputs(network, lr[None], seed=s))[0] for s in (3, 4)
        )
    torch.manual_seed(tile)
    state = torch.get_rng_state()
    found = upscale_tiled(network, lr, tile=tile, precision="no", seed=3)
    assert (found - whole).abs().max() < 1e-5 < 0.1 < (found - other).abs().max()
    assert torch.equal(torch.get_rng_state(), state)


def test_throw_is_that_of_seed_0_unless_asked_otherwise():
    network, lr = lively(**NETWORKS["skip"], noise=True), torch.rand(1, 12, 10)
    expected, other = (upscale_tiled(network, lr, precision="no", seed=seed) for seed in (0, 1))
    assert torch.equal(upscale_tiled(network, lr, precision="no"), expected)
    assert not torch.equal(other, expected)


def test_progress_is_shown_only_where_asked_for(capsys):
    for progress in (False, True):
        upscale_tiled(Interpolation(), torch.rand(1, 8, 8), progress=progress)
        assert bool(capsys.readouterr().err) == progress


def test_throw_of_a_grey_image_stays_grey_in_three_channels():
    network, lr = lively(**NETWORKS["skip"], noise=True), torch.rand(1, 12, 10)
    red, green, blue = upscale_tiled(network, lr.expand(3, -1, -1), tile=5, precision="no")
    assert torch.equal(red, green) and torch.equal(red, blue)


@pytest.mark.parametrize("kernel", KERNELS)
def test_tiled_interpolation_is_whole(kernel):
    lr = torch.rand(3, 21, 17)
    network = Interpolation(kernel, 4)
    found = upscale_tiled(network, lr, tile=5)
    assert (found - network(lr[None])[0]).abs().max() < 1e-6


def test_less_overlap_would_show(monkeypatch):
    network, lr = lively(blocks=1, width=4), torch.rand(1, 40, 40)
    whole = upscale_tiled(network, lr, tile=40)
    right = receptive_radius(network)
    for radius, seams in ((right, False), (right - 3, True)):
        monkeypatch.setattr(tiling, "receptive_radius", lambda network, radius=radius: radius)
        difference = (upscale_tiled(network, lr, tile=10) - whole).abs().max()
        assert (difference > 1e-5) == seams


@pytest.mark.parametrize("bits", [8, 16])
def test_integers_are_the_rounded_floats(bits):
    network, lr = lively(**NETWORKS["skip"]), 2 * torch.rand(1, 20, 33) - 0.5
    whole = upscale_tiled(network, lr, tile=64, precision="no")
    assert whole.min() < 0 and whole.max() > 1  # clamping has work to do
    found = upscale_tiled(network, lr, bits=bits, tile=64, precision="no")
    assert found.dtype == (torch.uint8 if bits == 8 else torch.uint16)
    assert torch.equal(found, to_pixels(whole, bits).values)
    tiled = upscale_tiled(network, lr, bits=bits, tile=8, precision="no")
    assert (tiled.int() - found.int()).abs().max() <= 1


def test_grey_network_enlarges_each_channel_of_a_colour_image():
    network, lr = lively(blocks=1, width=4), torch.rand(3, 12, 10)
    found = upscale_tiled(network, lr, tile=8)
    for channel in range(3):
        alone = upscale_tiled(network, lr[channel : channel + 1], tile=8)
        assert torch.equal(found[channel : channel + 1], alone)


def test_colour_network_takes_colour_only():
    network, lr = lively(channels=3, blocks=1, width=4), torch.rand(3, 24, 20)
    with torch.no_grad():
        torch.testing.assert_close(upscale_tiled(network, lr, tile=9), network(lr[None])[0])
    with pytest.raises(ImageError, match="takes 3 channels, and the image has 1"):
        upscale_tiled(network, torch.rand(1, 8, 8))


def test_mode_of_each_part_is_restored_also_after_an_error():
    network = lively(blocks=2, width=4).train()
    network.tail.eval()
    modes = [module.training for module in network.modules()]
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    upscale_tiled(network, torch.rand(1, 8, 8))
    with pytest.raises(ImageError, match="NaN"):
        upscale_tiled(network, torch.full((1, 8, 8), torch.nan), bits=8)
    assert [module.training for module in network.modules()] == modes
    for name, value in network.named_buffers():
        assert torch.equal(value, buffers[name])  # batch norm has seen nothing


def test_result_needs_no_gradient():
    lr = torch.rand(1, 8, 8, requires_grad=True)
    assert not upscale_tiled(lively(blocks=1, width=4), lr).requires_grad


def test_bfloat16_is_near_and_leaves_the_bicubic_image_in_float32():
    network, lr = lively(**NETWORKS["skip"]), torch.rand(1, 20, 24)
    exact = upscale_tiled(network, lr, precision="no")
    found = upscale_tiled(network, lr, precision="bf16")
    assert 0 < (found - exact).abs().max() < 0.05
    torch.nn.init.zeros_(network.last.weight)
    torch.nn.init.zeros_(network.last.bias)  # what remains is the bicubic image
    bicubic = Interpolation("bicubic", 4)(lr[None])[0]
    assert (upscale_tiled(network, lr, precision="bf16") - bicubic).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("fast", "arguments", "asked", "chosen"),
    [
        ("bf16", {"bicubic_skip": True}, "auto", "bf16"),
        ("bf16", {"bicubic_skip": True}, "no", "no"),
        ("bf16", {}, "auto", "no"),
        ("bf16", {}, "bf16", "bf16"),
        ("no", {"bicubic_skip": True}, "auto", "no"),
        ("fp16", {"bicubic_skip": True}, "auto", "no"),
    ],
)
def test_precision_is_bfloat16_where_that_is_fast_and_safe(
    monkeypatch, fast, arguments, asked, chosen
):
    monkeypatch.setattr(tiling, "best_precision", lambda device: fast)
    network = SRResNet(blocks=1, width=2, **arguments)
    assert choose_precision(network, asked) == chosen
    assert choose_precision(Interpolation(), asked) == "no"


def test_best_tile_keeps_to_the_memory_and_is_larger_for_small_networks():
    tiles = [best_tile(SRResNet(width=width)) for width in (256, 64, 8)]
    assert tiles == sorted(tiles) and 32 <= tiles[0] < tiles[1] < tiles[2] <= 1024
    side = 4 * (tiles[1] + 2 * 40)
    assert 0.9 * 2**31 < 4 * 64 * 4 * side**2 <= 2**31
    assert best_tile(SRResNet(), "bf16") > best_tile(SRResNet(), "no")


@pytest.mark.parametrize(("more", "pieces"), [(0, 1), (1, 4)])
def test_image_that_takes_no_more_than_a_tile_with_its_overlap_is_not_cut(
    monkeypatch, more, pieces
):
    network = lively(blocks=1, width=2)
    monkeypatch.setattr(tiling, "_MEMORY", 4 * 2 * 4 * (4 * 60) ** 2)  # 60 LR pixels a side
    side = best_tile(network) + 2 * receptive_radius(network)
    assert side == 60
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    upscale_tiled(network, torch.rand(1, side + more, side + more), precision="no")
    assert len(calls) == pieces


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tile": 0}, ConfigurationError, "tile must be a positive number of pixels, not 0"),
        ({"precision": "bf61"}, ConfigurationError, "Did you mean 'bf16'"),
        ({"bits": 12}, ImageError, "bits must be 8 or 16, not 12"),
    ],
)
def test_impossible_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        upscale_tiled(Interpolation(), torch.rand(1, 8, 8), **options)


@pytest.mark.parametrize(
    "image", [torch.rand(8, 8), torch.rand(1, 0, 8), torch.zeros(1, 8, 8, dtype=torch.uint8)]
)
def test_what_is_no_float_image_is_refused(image):
    with pytest.raises(ImageError, match=r"float tensor \(C, h, w\)"):
        upscale_tiled(Interpolation(), image)


def test_full_gpu_names_a_tile_to_try(monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    network = Interpolation().train()
    monkeypatch.setattr(network, "forward", full)
    with pytest.raises(SRGANError, match=r"tiles of 50 pixels. Try a tile of 25"):
        upscale_tiled(network, torch.rand(1, 8, 8), tile=50)
    assert network.training


MEMORY = """
import torch
from srgan_lib.architectures import SRNetwork, SRResNet
from srgan_lib.tiling import upscale_tiled

def peak():
    # Not resource.getrusage: its peak begins at that of the process that started this one.
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

torch.set_num_threads(1)
network = SRResNet(blocks=1, width=4)
upscale_tiled(network, torch.rand(1, 64, 64), bits=16, tile=64, precision="no")
before = peak()
sr = upscale_tiled(network, torch.rand(1, 900, 900), bits=16, tile=64, precision="no")
print((peak() - before) / (sr.numel() * 2))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_grows_by_the_integers_of_the_output_only():
    run = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=300, check=True
    )
    # The input takes 1/8 of the output of 16 bits. Float32 instead of integers would take 2; the
    # feature maps of the whole image, 8 for each copy.
    assert 0.9 < float(run.stdout) < 1.5
