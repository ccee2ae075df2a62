"""The two training stages: they learn, repeat bit by bit, and touch what they should."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from srgan_lib import training
from srgan_lib.architectures import Discriminator, Interpolation, SRResNet, VGGFeatures
from srgan_lib.crops import CropSampler
from srgan_lib.errors import ConfigurationError, SRGANError
from srgan_lib.images import Pixels
from srgan_lib.losses import GeneratorLoss, content_loss
from srgan_lib.training import History, pretrain, seed_everything, train_gan

NAMES = ("total", "content", "perceptual", "adversarial", "discriminator", "d_hr", "d_sr")


@pytest.fixture(scope="module")
def loss():
    return GeneratorLoss(
        VGGFeatures("relu1_1"), content_weight=1, perceptual_weight=0.1, adversarial_weight=0.01
    )


def sampler(seed=0, value=None):
    """Serve crops of an image of smooth waves, or of one value."""
    y, x = np.mgrid[:64, :64]
    waves = 127.5 + 60 * np.sin(x / 3) + 60 * np.cos(y / 4 + x / 9)
    values = np.full_like(waves, value) if value is not None else waves
    return CropSampler(
        [Pixels(torch.from_numpy(values.astype(np.uint8))[None], 8)], 32, 4, seed=seed
    )


def networks(seed=0):
    seed_everything(seed)
    return SRResNet(blocks=1, width=8, end_kernel=3), Discriminator(width=4, grid=1)


def state(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_stage_one_really_learns():
    generator, _ = networks()
    history = pretrain(generator, sampler(), 60, batch_size=4, learning_rate=2e-3, progress=False)
    assert list(history.losses) == ["content"] and len(history.losses["content"]) == 60
    assert history.mean("content", -10) < 0.2 * history.mean("content", 0, 5)
    lr, hr = sampler(seed=9).batch(8)
    with torch.no_grad():
        assert content_loss(generator(lr), hr) < 0.5 * hr.var()


def test_first_loss_is_that_of_the_network_before_any_update():
    generator, _ = networks()
    lr, hr = sampler().batch(4)
    expected = content_loss(copy.deepcopy(generator).train()(lr), hr).item()
    history = pretrain(generator, sampler(), 1, batch_size=4, progress=False)
    assert history.losses["content"] == [pytest.approx(expected, rel=1e-5)]


def test_stage_two_logs_every_step_of_every_loss(loss):
    generator, discriminator = networks()
    steps = 2 * training._REFRESH + 3
    history = train_gan(
        generator, discriminator, sampler(), loss, steps, batch_size=2, progress=False
    )
    assert tuple(history.losses) == NAMES
    assert {len(values) for values in history.losses.values()} == {steps}
    for total, content, perceptual, adversarial in zip(
        *(history.losses[name] for name in NAMES[:4]), strict=True
    ):
        expected = content + 0.1 * perceptual + 0.01 * adversarial
        assert total == pytest.approx(expected, rel=1e-4)
    assert all(0 < p < 1 for name in ("d_hr", "d_sr") for p in history.losses[name])


def test_discriminator_learns_to_tell(loss):
    _, discriminator = networks()
    generator = nn.Sequential(Interpolation("nearest"), nn.Conv2d(1, 1, 1))
    history = train_gan(
        generator,
        discriminator,
        sampler(),
        loss,
        40,
        batch_size=4,
        learning_rate=1e-6,
        discriminator_learning_rate=2e-3,
        progress=False,
    )
    assert history.mean("discriminator", -5) < 0.7 * history.mean("discriminator", 0, 3)
    assert history.mean("d_hr", -5) > history.mean("d_sr", -5) + 0.3


@pytest.mark.parametrize("stage", ["one", "two"])
def test_same_seeds_give_the_same_networks_bit_by_bit(loss, stage):
    def run(seed):
        generator, discriminator = networks(seed)
        if stage == "one":
            history = pretrain(generator, sampler(), 3, batch_size=2, progress=False)
        else:
            history = train_gan(
                generator, discriminator, sampler(), loss, 3, batch_size=2, progress=False
            )
        return state(generator) | state(discriminator), history

    (one, first), (two, second), (other, _) = run(1), run(1), run(2)
    assert same(one, two) and first == second
    assert not same(one, other)


def test_each_update_changes_its_own_network_only(loss, monkeypatch):
    generator, discriminator = networks()
    seen = []
    real = torch.optim.Adam.step

    def spy(optimiser, *args, **kwargs):
        before = parameters()
        real(optimiser, *args, **kwargs)
        seen.append([not same(old, new) for old, new in zip(before, parameters(), strict=True)])

    def parameters():
        return [
            {name: p.detach().clone() for name, p in network.named_parameters()}
            for network in (generator, discriminator, loss)
        ]

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    train_gan(generator, discriminator, sampler(), loss, 2, batch_size=2, progress=False)
    # generator, discriminator, VGG: first the discriminator learns, then the generator
    assert seen == [[False, True, False], [True, False, False]] * 2


def test_gradients_do_not_cross_from_one_update_to_the_other(loss, monkeypatch):
    generator, discriminator = networks()
    seen = []
    real = torch.optim.Adam.step

    def spy(optimiser, *args, **kwargs):
        own = {id(p) for group in optimiser.param_groups for p in group["params"]}
        if {id(p) for p in discriminator.parameters()} == own:
            after_d = [p.grad for p in generator.parameters()]
            seen.append(("generator", all(g is None for g in after_d)))
        else:
            assert not any(p.requires_grad for p in discriminator.parameters())
            seen.append(("discriminator", None))
        real(optimiser, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    train_gan(generator, discriminator, sampler(), loss, 1, batch_size=2, progress=False)
    assert seen == [("generator", True), ("discriminator", None)]


def test_discriminator_s_gradients_are_those_of_its_own_loss(loss, monkeypatch):
    generator, discriminator = networks()
    twin_g, twin_d = copy.deepcopy(generator).train(), copy.deepcopy(discriminator).train()
    train_gan(generator, discriminator, sampler(), loss, 1, batch_size=2, progress=False)
    lr, hr = sampler().batch(2)
    logits_hr, logits_sr = twin_d(hr), twin_d(twin_g(lr).detach())
    expected = training.discriminator_loss(logits_hr, logits_sr)
    expected.backward()
    for (name, found), twin in zip(
        discriminator.named_parameters(), twin_d.parameters(), strict=True
    ):
        torch.testing.assert_close(found.grad, twin.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_networks_are_trainable_afterwards_and_vgg_is_unchanged(loss):
    generator, discriminator = networks()
    before = state(loss)
    train_gan(generator, discriminator, sampler(), loss, 2, batch_size=2, progress=False)
    assert all(p.requires_grad for p in discriminator.parameters())
    assert all(p.requires_grad for p in generator.parameters())
    assert same(before, state(loss))
    assert not any(p.requires_grad for p in loss.parameters())
    assert generator.training and discriminator.training


def test_discriminator_has_its_own_learning_rate(loss):
    generator, discriminator = networks()
    before = {name: p.detach().clone() for name, p in discriminator.named_parameters()}
    train_gan(
        generator,
        discriminator,
        sampler(),
        loss,
        1,
        batch_size=2,
        learning_rate=1e-5,
        discriminator_learning_rate=1e-2,
        progress=False,
    )
    moves = [(p - before[n]).abs().max().item() for n, p in discriminator.named_parameters()]
    assert max(moves) == pytest.approx(1e-2, rel=0.01)  # Adam's first step is its rate


class Broken(nn.Module):
    """A generator whose output is NaN from some step on."""

    def __init__(self, good_steps):
        super().__init__()
        self.inner = nn.Sequential(Interpolation("nearest"), nn.Conv2d(1, 1, 1))
        self.left = good_steps

    def forward(self, lr):
        self.left -= 1
        return self.inner(lr) * (1 if self.left >= 0 else float("nan"))


@pytest.mark.parametrize(("good", "steps"), [(0, 1), (2, 5), (25, 100)])
def test_loss_that_is_no_longer_finite_ends_stage_one_soon(good, steps):
    generator = Broken(good)
    with pytest.raises(SRGANError, match=r"The content loss is nan after \d+ steps.*learning rate"):
        pretrain(generator, sampler(), steps, batch_size=1, progress=False)
    assert -generator.left <= training._REFRESH


def test_loss_that_is_no_longer_finite_ends_stage_two_and_unfreezes(loss):
    discriminator = networks()[1]
    with pytest.raises(SRGANError, match="loss is nan"):
        train_gan(Broken(0), discriminator, sampler(), loss, 100, batch_size=2, progress=False)
    assert all(p.requires_grad for p in discriminator.parameters())


def test_a_discriminator_that_an_interrupted_run_left_frozen_learns_again(loss):
    generator, discriminator = networks()
    discriminator.requires_grad_(False)
    before = [p.detach().clone() for p in discriminator.parameters()]
    train_gan(generator, discriminator, sampler(), loss, 1, batch_size=2, progress=False)
    after = list(discriminator.parameters())
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"steps \(0\)"),
        ({"steps": -3}, r"steps \(-3\)"),
        ({"batch_size": 0}, r"batch_size \(0\)"),
        ({"learning_rate": 0}, "not at 0"),
        ({"learning_rate": -1e-4}, "not at -0.0001"),
        ({"learning_rate": 1.5}, "not at 1.5"),
        ({"learning_rate": math.nan}, "not at nan"),
    ],
)
def test_impossible_numbers_are_refused_before_anything_happens(loss, options, message):
    generator, discriminator = networks()
    before = state(generator)
    options = {"steps": 1, "progress": False} | options
    with pytest.raises(ConfigurationError, match=message):
        pretrain(generator, sampler(), **options)
    with pytest.raises(ConfigurationError, match=message):
        train_gan(generator, discriminator, sampler(), loss, **options)
    if "learning_rate" in options:
        options["discriminator_learning_rate"] = options.pop("learning_rate")
        with pytest.raises(ConfigurationError, match=message):
            train_gan(generator, discriminator, sampler(), loss, **options)
    assert same(before, state(generator))


def test_history_s_mean_takes_a_slice_of_steps():
    history = History({"content": [1.0, 2.0, 3.0, 6.0]})
    assert history.mean("content") == 3
    assert history.mean("content", 0, 2) == 1.5
    assert history.mean("content", -1) == 6


def test_seed_decides_how_networks_are_initialised():
    assert same(state(networks(4)[0]), state(networks(4)[0]))
    assert not same(state(networks(4)[0]), state(networks(5)[0]))


def test_progress_bar_shows_only_if_wanted(capsys):
    pretrain(networks()[0], sampler(), 1, batch_size=1, progress=False)
    assert capsys.readouterr().err == ""
    pretrain(networks()[0], sampler(), 1, batch_size=1)
    assert "stage one" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_both_stages_run_on_the_gpu(loss):
    generator, discriminator = (network.cuda() for network in networks())
    crops = CropSampler([Pixels(torch.randint(256, (1, 64, 64)).byte(), 8)], 32, device="cuda")
    pretrain(generator, crops, 2, batch_size=2, progress=False)
    history = train_gan(
        generator, discriminator, crops, copy.deepcopy(loss).cuda(), 2, batch_size=2, progress=False
    )
    assert len(history.losses["total"]) == 2
