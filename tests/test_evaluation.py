"""Evaluating methods: the protocol's numbers, and networks left as they were."""

import math
import warnings
from statistics import stdev

import pytest
import torch
from torch import nn

from srgan_lib.architectures import Interpolation, SRResNet, VGGFeatures
from srgan_lib.calibration import MEASURES, measure_throws
from srgan_lib.degradation import degrade, quantise
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.evaluation import (
    COLUMNS,
    Evaluation,
    evaluate,
    markdown_table,
    super_resolve,
    throws,
)
from srgan_lib.metrics import detail_energy, feature_distance, lr_consistency, psnr, ssim
from srgan_lib.noise import noise_inputs
from srgan_lib.realism import lattice_ratio
from srgan_lib.tiling import upscale_tiled


class Perfect(nn.Module):
    """Know the answers: give the HR image whose LR image was asked for."""

    def __init__(self, images):
        super().__init__()
        self.answers = [(degrade(image), image) for image in images]

    def forward(self, lr):
        return next(hr for key, hr in self.answers if torch.equal(key, lr[0]))[None]


@pytest.fixture(scope="module")
def features():
    return VGGFeatures("relu1_1")


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    noise = [torch.rand(1, 12, 16, generator=generator) for _ in range(3)]
    return [quantise(Interpolation("bilinear")(x[None])[0]) for x in noise]  # (1, 48, 64)


def test_evaluation_is_what_the_metrics_say_of_each_image(images, features):
    methods = {"bicubic": Interpolation("bicubic"), "nearest": Interpolation("nearest")}
    found = evaluate(methods, iter(images), features, progress=False)
    assert [evaluation.method for evaluation in found] == ["bicubic", "nearest"]
    for evaluation, method in zip(found, methods.values(), strict=True):
        assert set(evaluation.values) == set(COLUMNS)
        for number, hr in enumerate(images):
            lr = degrade(hr)
            sr = quantise(method(lr[None])[0])
            expected = {
                "psnr": psnr(sr, hr),
                "ssim": ssim(sr, hr),
                "feature_distance": feature_distance(sr, hr, features),
                "lr_consistency": lr_consistency(sr, lr),
                "detail": detail_energy(sr) / detail_energy(hr),
                "lattice": lattice_ratio(sr, hr),
            }
            assert set(expected) == set(COLUMNS)
            for measure, value in expected.items():
                assert evaluation.values[measure][number] == pytest.approx(value), measure
    assert found[0].mean("psnr") > found[1].mean("psnr")


def test_perfect_method_reaches_the_best_values(images, features):
    (found,) = evaluate({"perfect": Perfect(images)}, images, features, progress=False)
    assert found.values["psnr"] == (math.inf,) * 3
    assert found.values["lr_consistency"] == (math.inf,) * 3
    assert found.values["feature_distance"] == (0,) * 3
    assert found.mean("ssim") == pytest.approx(1, abs=1e-6)
    assert found.mean("detail") == pytest.approx(1)
    assert found.mean("lattice") == pytest.approx(1)


def test_grey_network_enlarges_each_channel_of_a_colour_image_alone(features):
    generator = SRResNet(blocks=1, width=4, bicubic_skip=True)
    nn.init.normal_(generator.last.weight, std=0.1)
    lr = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))
    sr = super_resolve(generator, lr)
    assert sr.shape == (3, 48, 64)
    for channel in range(3):
        torch.testing.assert_close(
            sr[channel], super_resolve(generator, lr[channel][None])[0], atol=1 / 255 + 1e-6, rtol=0
        )
    tiled = quantise(upscale_tiled(generator, lr, precision="no"))
    torch.testing.assert_close(sr, tiled, atol=1 / 255 + 1e-6, rtol=0)
    (found,) = evaluate({"grey": generator}, [quantise(sr)], features, progress=False)
    assert all(math.isfinite(values[0]) for values in found.values.values())


def test_colour_network_sees_all_channels_at_once():
    generator = SRResNet(channels=3, blocks=1, width=4)
    lr = torch.rand(3, 12, 16, generator=torch.Generator().manual_seed(0))
    before = super_resolve(generator, lr)
    lr[0] = 1 - lr[0]
    assert not torch.equal(super_resolve(generator, lr)[1:], before[1:])


def test_images_are_cut_to_a_multiple_of_scale_and_it_is_said(images, features):
    methods = {"bicubic": Interpolation("bicubic")}
    larger = nn.functional.pad(images[0], (0, 3, 0, 2), value=1.0)
    with pytest.warns(UserWarning, match="50 x 67 pixels was cut to 48 x 64, multiples of the sc"):
        cut = evaluate(methods, [larger], features, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = evaluate(methods, [images[0]], features, progress=False)
    assert cut == whole


@pytest.mark.parametrize("scale", [2, 8])
def test_other_scales_are_evaluated_too(images, features, scale):
    methods = {"bicubic": Interpolation("bicubic", scale)}
    (found,) = evaluate(methods, images, features, scale=scale, progress=False)
    assert found.mean("psnr") > 15


@pytest.mark.parametrize("training", [True, False])
def test_networks_are_evaluated_in_evaluation_mode_and_their_mode_is_restored(
    images, features, training
):
    torch.manual_seed(0)
    generator = SRResNet(blocks=1, width=4).train(training)
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    first = evaluate({"net": generator}, images, features, progress=False)
    again = evaluate({"net": generator}, images[::-1], features, progress=False)
    assert all(module.training == training for module in generator.modules())
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())
    assert first[0].values["psnr"] == again[0].values["psnr"][::-1]  # no image affects another


class Failing(nn.Module):
    def forward(self, lr):
        assert not self.training
        raise RuntimeError("no luck")


def test_mode_is_restored_also_after_an_error():
    generator = Failing().train()
    with pytest.raises(RuntimeError, match="no luck"):
        super_resolve(generator, torch.zeros(1, 8, 8))
    assert generator.training


def test_super_resolve_gives_what_a_file_would_hold():
    class Loud(nn.Module):
        def forward(self, lr):
            return Interpolation("nearest", 2)(lr) * 3 - 1

    lr = torch.rand(1, 8, 8, requires_grad=True)
    sr = super_resolve(Loud(), lr)
    assert sr.shape == (1, 16, 16) and not sr.requires_grad and sr.dtype == torch.float32
    assert sr.min() == 0 and sr.max() == 1
    assert torch.equal(sr, quantise(sr))
    fine = super_resolve(Loud(), lr, bits=16)
    assert not torch.equal(fine, quantise(fine)) and torch.equal(fine, quantise(fine, 16))


@pytest.fixture(scope="module")
def dice():
    """A small network whose noise shows."""
    torch.manual_seed(0)
    network = SRResNet(blocks=1, width=4, batch_norm=False, bicubic_skip=True, noise=True)
    for name, parameter in network.named_parameters():
        if "gain" in name or name.startswith("last"):
            nn.init.normal_(parameter, std=0.1)
    return network


def test_super_resolve_throws_the_same_dice_on_every_call(dice):
    lr = torch.rand(1, 12, 10)
    first, state = super_resolve(dice, lr), torch.get_rng_state()
    torch.manual_seed(7)
    moved = torch.get_rng_state()
    assert torch.equal(super_resolve(dice, lr), first) and torch.equal(torch.get_rng_state(), moved)
    assert not torch.equal(state, moved)
    other = super_resolve(dice, lr, seed=1)
    assert (other != first).float().mean() > 0.5
    (noise,) = noise_inputs(dice, lr[None], 1)
    with torch.no_grad():
        assert torch.equal(other, quantise(dice.eval()(lr[None], noise)[0]))


def test_seed_is_nothing_to_a_network_without_dice():
    network, lr = SRResNet(blocks=1, width=4), torch.rand(1, 8, 8)
    assert torch.equal(super_resolve(network, lr, seed=1), super_resolve(network, lr))


@pytest.mark.parametrize("bits", [8, 16])
def test_throws_are_those_of_the_seeds_that_follow(dice, bits):
    lr = torch.rand(1, 9, 11)
    found = throws(dice, lr, 3, seed=5, bits=bits)
    assert found.shape == (3, 1, 36, 44)
    for k, throw in enumerate(found):
        # Several throws go through the network in one batch: to rounding, one grey level.
        alone = super_resolve(dice, lr, bits, seed=5 + k)
        torch.testing.assert_close(throw, alone, atol=1.01 / (2**bits - 1), rtol=0)
    assert not torch.equal(found[0], found[1])


def test_several_throws_need_dice(dice):
    lr = torch.rand(1, 8, 8)
    assert torch.equal(throws(Interpolation(), lr, 1)[0], super_resolve(Interpolation(), lr))
    with pytest.raises(ConfigurationError, match="This Interpolation throws no dice"):
        throws(Interpolation(), lr, 2)
    with pytest.raises(ConfigurationError, match="positive number of throws, not 0"):
        throws(dice, lr, 0)


def test_throws_are_measured_when_asked_of_methods_that_throw_dice(dice, images, features):
    methods = {"bicubic": Interpolation(), "dice": dice}
    plain = evaluate(methods, images[:2], features, progress=False)
    bicubic, found = evaluate(methods, images[:2], features, throws=4, progress=False)
    assert [plain[0].values, plain[1].values] == [bicubic.values, found.values]
    assert bicubic.throws == plain[0].throws == plain[1].throws == {}
    assert found.throws.keys() == MEASURES.keys()
    for number, hr in enumerate(images[:2]):
        several = throws(dice, degrade(hr), 4)
        assert found.values["psnr"][number] == pytest.approx(psnr(several[0], hr))
        for measure, value in measure_throws(several, hr).items():
            assert found.throws[measure][number] == pytest.approx(value), measure
    # Throws that the original knows nothing of: their mean is nearer to it than one of them.
    assert all(a > b for a, b in zip(found.throws["mean_psnr"], found.values["psnr"], strict=True))
    with pytest.raises(ConfigurationError, match="0, or 2 at least, not 1"):
        evaluate(methods, images, features, throws=1, progress=False)


def test_nothing_to_evaluate_is_refused(images, features):
    with pytest.raises(ConfigurationError, match="at least one method and one image"):
        evaluate({}, images, features, progress=False)
    with pytest.raises(ConfigurationError, match="at least one method and one image"):
        evaluate({"bicubic": Interpolation()}, [], features, progress=False)


def test_bad_images_are_refused(features):
    methods = {"bicubic": Interpolation()}
    for image in (torch.full((1, 48, 48), math.nan), torch.zeros(1, 16, 48), torch.zeros(1, 3, 3)):
        with pytest.raises(ImageError):
            evaluate(methods, [image], features, progress=False)


def test_mean_and_spread_are_those_over_the_images():
    found = Evaluation("x", {"psnr": (30.0, 31.0, 35.0), "ssim": (0.9,)})
    assert found.mean("psnr") == 32
    assert found.spread("psnr") == pytest.approx(stdev([30, 31, 35])) == pytest.approx(7**0.5)
    assert found.spread("ssim") == 0
    with pytest.raises(ConfigurationError, match="Did you mean 'psnr'"):
        found.mean("psnrr")


def test_table_has_a_row_for_each_method_with_mean_and_spread():
    table = markdown_table(
        [
            Evaluation("bicubic", {"psnr": (30.0, 31.0, 35.0), "ssim": (0.5, 0.6, 0.7)}),
            Evaluation("SRGAN", {"psnr": (28.456,), "ssim": (0.8125,)}),
        ],
        ("psnr", "ssim"),
    )
    assert table.splitlines() == [
        "| method | PSNR (dB) | SSIM |",
        "|---|---:|---:|",
        "| bicubic | 32.00 (2.65) | 0.600 (0.100) |",
        "| SRGAN | 28.46 | 0.812 |",
    ]


def test_table_shows_all_measures_unless_told(images, features):
    found = evaluate({"bicubic": Interpolation()}, images[:1], features, progress=False)
    heading = markdown_table(found).splitlines()[0]
    assert all(title in heading for title, _ in COLUMNS.values())
