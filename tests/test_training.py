"""The two training stages: they learn, repeat bit by bit, and touch what they should."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nested import assert_equal
from torch import nn

from srgan_lib import training
from srgan_lib.architectures import DRCN, Discriminator, Interpolation, SRResNet, VGGFeatures
from srgan_lib.crops import CropSampler
from srgan_lib.errors import ConfigurationError, SRGANError
from srgan_lib.hardware import make_accelerator
from srgan_lib.images import Pixels
from srgan_lib.losses import (
    GeneratorLoss,
    PerceptualLoss,
    content_loss,
    relativistic_adversarial_loss,
    relativistic_discriminator_loss,
)
from srgan_lib.training import (
    AdversarialStage,
    ContentStage,
    History,
    RecursiveStage,
    constant,
    cosine,
    pretrain,
    seed_everything,
    train_gan,
)

NAMES = (
    *("total", "content", "perceptual", "adversarial", "texture", "lattice"),
    *("discriminator", "d_hr", "d_sr"),
)


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


# The stages


def make_stage(kind, loss, precision="no", seed=0, **options):
    generator, discriminator = networks(seed)
    options["accelerator"] = make_accelerator(precision, torch.device("cpu"))
    if kind == "content":
        return ContentStage(generator, **options)
    return AdversarialStage(generator, discriminator, loss, **options)


KINDS = pytest.mark.parametrize("kind", ["content", "adversarial"])


@KINDS
def test_generator_and_discriminator_are_called_no_more_than_needed(loss, kind):
    stage = make_stage(kind, loss)
    calls = []
    players = [stage.generator] + ([stage.discriminator] if kind == "adversarial" else [])
    for player in players:
        player.plain.register_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    stage.step(*sampler().batch(2))
    # HR and SR for the discriminator's update, then SR for the generator's
    assert calls == ["SRResNet"] + ["Discriminator"] * 3 * (kind == "adversarial")


def test_features_of_hr_hold_no_graph_and_are_computed_once(loss, monkeypatch):
    stage = make_stage("adversarial", loss)
    seen = []
    real = VGGFeatures.activations

    def spy(network, image, layers):
        found = real(network, image, layers)
        seen.append((image, [value.requires_grad for value in found.values()]))
        return found

    monkeypatch.setattr(VGGFeatures, "activations", spy)
    lr, hr = sampler().batch(2)
    stage.step(lr, hr)
    assert [graphs for _, graphs in seen] == [[False], [True]]
    assert seen[0][0] is hr


def test_generator_s_update_leaves_the_discriminator_and_its_gradients_alone(loss, monkeypatch):
    stage = make_stage("adversarial", loss, learning_rate=1e-3)
    critic = stage.discriminator.plain
    kept = []
    real = training._Player.update

    def spy(player, value, scaler):
        if player is stage.generator:
            assert not any(p.requires_grad for p in critic.parameters())
            kept.append([(p.detach().clone(), p.grad.clone()) for p in critic.parameters()])
        real(player, value, scaler)

    monkeypatch.setattr(training._Player, "update", spy)
    stage.step(*sampler().batch(2))
    assert len(kept) == 1
    for parameter, (value, gradient) in zip(critic.parameters(), kept[0], strict=True):
        assert torch.equal(parameter, value) and torch.equal(parameter.grad, gradient)
        assert parameter.requires_grad


def test_adversarial_step_is_the_one_written_out_by_hand(loss):
    stage = make_stage("adversarial", loss, learning_rate=1e-3, discriminator_learning_rate=2e-3)
    generator, critic = networks()
    adam_g = torch.optim.Adam(generator.parameters(), lr=1e-3)
    adam_d = torch.optim.Adam(critic.parameters(), lr=2e-3)
    crops, twin_crops = sampler(), sampler()
    for _ in range(3):
        losses = stage.step(*crops.batch(2))
        lr, hr = twin_crops.batch(2)
        sr = generator(lr)
        logits = critic(hr), critic(sr.detach())
        d_loss = training.discriminator_loss(*logits)
        adam_d.zero_grad()
        d_loss.backward()
        adam_d.step()
        total = loss(sr, hr, critic(sr)).total
        adam_g.zero_grad()
        total.backward()
        adam_g.step()
        expected = {"discriminator": d_loss, "total": total}
        expected |= {"d_hr": logits[0].sigmoid().mean(), "d_sr": logits[1].sigmoid().mean()}
        for name, value in expected.items():
            torch.testing.assert_close(losses[name], value.detach(), rtol=2e-3, atol=1e-5, msg=name)
    for network, twin in [(stage.generator.plain, generator), (stage.discriminator.plain, critic)]:
        pairs = zip(network.named_parameters(), twin.parameters(), strict=True)
        # Adam turns a gradient of nothing but rounding errors into a whole step, hence the mean.
        off = [(one.detach() - other.detach()).abs().mean().item() for (_, one), other in pairs]
        assert max(off) < 3e-4


def test_relativistic_step_is_the_one_written_out_by_hand():
    loss = GeneratorLoss(
        VGGFeatures("relu1_1"),
        content_weight=1,
        perceptual_weight=0.1,
        adversarial_weight=0.5,
        relativistic=True,
    )
    stage = AdversarialStage(*networks(), loss, accelerator=make_accelerator("no", "cpu"))
    generator, judge = networks()
    adam = torch.optim.Adam(judge.parameters(), lr=1e-4)
    lr, hr = sampler().batch(4)
    losses = stage.step(lr, hr)
    sr = generator(lr)
    d_loss = relativistic_discriminator_loss(judge(hr), judge(sr.detach()))
    d_loss.backward()
    adam.step()
    adversarial = relativistic_adversarial_loss(judge(hr), judge(sr))  # of the updated judge
    total = content_loss(sr, hr) + 0.1 * loss.perceptual(sr, hr) + 0.5 * adversarial
    expected = {"discriminator": d_loss, "adversarial": adversarial, "total": total}
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value.detach(), rtol=1e-4, atol=1e-5, msg=name)


def test_recursive_step_is_the_one_written_out_by_hand():
    torch.manual_seed(0)
    network = DRCN(width=4, recursions=3)
    nn.init.normal_(network.inference[0].weight, std=0.3)  # so that recursions differ
    stage = RecursiveStage(
        copy.deepcopy(network), 4, accelerator=make_accelerator("no", "cpu"), pixel_loss="l1"
    )
    adam = torch.optim.Adam(network.parameters(), lr=1e-4)
    crops = sampler()
    for alpha in (1, 0.75, 0.5, 0.25, 0, 0):
        lr, hr = crops.batch(2)
        before = network.average.detach().clone()
        sr, each = network(lr, each=True)
        average = F.l1_loss(sr, hr)
        recursions = sum(F.l1_loss(image, hr) for image in each) / 3
        adam.zero_grad()
        (alpha * recursions + (1 - alpha) * average).backward()
        adam.step()
        assert stage.step(lr, hr)["content"].item() == pytest.approx(average.item(), rel=1e-4)
        assert torch.equal(before, network.average) == (alpha == 1)
    for mine, theirs in zip(network.parameters(), stage.generator.plain.parameters(), strict=True):
        assert (theirs.detach() - mine.detach()).abs().mean() < 3e-5


@KINDS
def test_losses_of_a_step_are_on_the_device_without_a_graph(loss, kind):
    losses = make_stage(kind, loss).step(*sampler().batch(2))
    assert tuple(losses) == (("content",) if kind == "content" else NAMES)
    assert all(value.shape == () and not value.requires_grad for value in losses.values())
    assert all(value.dtype == torch.float32 for value in losses.values())


def test_stage_one_learns_from_the_named_pixel_loss(loss):
    lr, hr = sampler().batch(2)
    for name, expected in [("mse", F.mse_loss), ("l1", F.l1_loss)]:
        stage = make_stage("content", loss, pixel_loss=name)
        value = expected(copy.deepcopy(stage.generator.plain)(lr), hr)
        torch.testing.assert_close(stage.step(lr, hr)["content"], value.detach())
    with pytest.raises(ConfigurationError, match=r"Unknown pixel loss 'l2'\. .*mse, l1"):
        make_stage("content", loss, pixel_loss="l2")


@KINDS
def test_average_follows_the_generator_with_its_buffers(loss, kind):
    stage = make_stage(kind, loss, average_decay=0.05)
    before = state(stage.generator.plain)
    stage.step(*sampler().batch(2))
    after, average = state(stage.generator.plain), state(stage.average.network)
    assert not same(before, after) and "tail.1.running_mean" in average
    for name, value in average.items():
        if value.is_floating_point():
            expected = 0.05 * before[name] + 0.95 * after[name]
            torch.testing.assert_close(value, expected, msg=name)


@KINDS
def test_bfloat16_trains_close_to_float32(loss, kind):
    histories, weights = [], []
    for precision in ("no", "bf16"):
        stage = make_stage(kind, loss, precision, learning_rate=1e-3)
        crops = sampler()
        histories.append([stage.step(*crops.batch(4)) for _ in range(20)])
        weights.append(stage.generator.plain)
    exact, rough = histories
    assert rough[0]["content"] != exact[0]["content"]  # it is another precision
    for one, other in zip(exact, rough, strict=True):
        assert other["content"].item() == pytest.approx(one["content"].item(), rel=0.1, abs=2e-3)
        assert other["content"].dtype == torch.float32
    assert exact[-1]["content"] < 0.5 * exact[0]["content"]
    assert all(p.dtype == torch.float32 for p in weights[1].parameters())


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_activations_stay_channels_last_after_pixel_shuffle_too(loss, precision):
    stage = make_stage("adversarial", loss, precision)
    wrong, seen = [], []

    def look(name):
        def hook(module, inputs, output):
            if isinstance(output, torch.Tensor) and output.ndim == 4:
                seen.append(name)
                if not output.is_contiguous(memory_format=torch.channels_last):
                    wrong.append(name)

        return hook

    for title in ("generator", "discriminator"):
        for name, module in getattr(stage, title).plain.named_modules():
            module.register_forward_hook(look(f"{title}.{name}"))
    stage.step(*sampler().batch(2))
    assert wrong == []
    assert {"generator.upsample.1", "generator.last", "discriminator.features.0"} <= set(seen)


@KINDS
def test_state_goes_on_bit_by_bit(loss, kind):
    options = {"schedule": cosine(6), "learning_rate": 1e-3}
    whole = make_stage(kind, loss, **options)
    crops = sampler()
    for _ in range(3):
        whole.step(*crops.batch(2))
    taken = copy.deepcopy(whole.state_dict())
    place = crops.state()
    for _ in range(3):
        whole.step(*crops.batch(2))

    other = make_stage(kind, loss, seed=7, **options)
    other.load_state_dict(taken)
    assert same(state(other.generator.plain), taken["generator"]["network"])
    crops = sampler(seed=8)
    crops.load_state(place)
    for _ in range(3):
        other.step(*crops.batch(2))
    assert_equal(whole.state_dict(), other.state_dict())


@KINDS
def test_adam_s_moments_come_back_in_the_weights_memory_layout(loss, kind):
    """Fused Adam walks through memory: moments in another order would go to other weights."""
    stage = make_stage(kind, loss)
    stage.step(*sampler().batch(2))
    taken = copy.deepcopy(stage.state_dict())
    players = [part for part in ("generator", "discriminator") if part in taken]
    for part in players:
        for values in taken[part]["optimiser"]["state"].values():
            for name in ("exp_avg", "exp_avg_sq"):
                values[name] = values[name].contiguous()  # as a checkpoint file holds them
    other = make_stage(kind, loss)
    other.load_state_dict(taken)
    for part in players:
        moments = getattr(other, part).optimiser.state
        assert moments
        for parameter, values in moments.items():
            for name in ("exp_avg", "exp_avg_sq"):
                assert values[name].stride() == parameter.stride()
    strides = {p.stride() for p in other.generator.plain.parameters() if p.ndim == 4}
    assert any(stride[1] == 1 for stride in strides)  # some are channels last


def test_state_of_the_other_stage_is_refused(loss):
    content, adversarial = (make_stage(kind, loss) for kind in ("content", "adversarial"))
    with pytest.raises(KeyError):
        adversarial.load_state_dict(content.state_dict())


def test_cosine_has_the_values_worked_out_by_hand():
    schedule = cosine(8)
    assert schedule(0) == 1
    assert schedule(2) == pytest.approx(0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2)
    assert schedule(4) == pytest.approx(0.505)
    assert schedule(8) == pytest.approx(0.01) and schedule(20) == pytest.approx(0.01)
    assert cosine(4, final=0.2)(4) == pytest.approx(0.2)
    assert {constant(step) for step in (0, 5, 100)} == {1.0}


@KINDS
def test_schedule_sets_the_rate_of_both_networks_before_each_step(loss, kind, monkeypatch):
    rates = []
    real = torch.optim.Adam.step

    def spy(optimiser, *args, **kwargs):
        rates.append(optimiser.param_groups[0]["lr"])
        return real(optimiser, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    options = {} if kind == "content" else {"discriminator_learning_rate": 2e-3}
    stage = make_stage(kind, loss, learning_rate=1e-3, schedule=cosine(3), **options)
    crops = sampler()
    for _ in range(4):
        stage.step(*crops.batch(1))
    factors = [1, 0.7525, 0.2575, 0.01]
    expected = [1e-3 * x for x in factors]
    if kind == "adversarial":
        expected = [rate * x for x in factors for rate in (2e-3, 1e-3)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize("fused", [False, True])
@KINDS
def test_loss_scaler_is_updated_once_a_step_and_changes_nothing_else(
    loss, kind, fused, monkeypatch
):
    plain = make_stage(kind, loss, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)
    monkeypatch.setattr(training, "_make_scaler", lambda accelerator: scaler)
    scaled = make_stage(kind, loss, fused=fused)
    scales = []
    for stage in (plain, scaled):
        crops = sampler()
        for _ in range(4):
            stage.step(*crops.batch(2))
            scales.append(stage.scaler.get_scale())
    assert scales == [1, 1, 1, 1, 8, 16, 16, 32]  # doubled after every two steps
    for one, other in zip(
        plain.generator.plain.parameters(), scaled.generator.plain.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@KINDS
def test_step_that_overflows_is_left_out(loss, kind, monkeypatch):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=2)
    monkeypatch.setattr(training, "_make_scaler", lambda accelerator: scaler)
    stage = make_stage(kind, loss, fused=False)
    before = state(stage.generator.plain)
    lr, hr = sampler().batch(2)
    stage.step(lr, 1e3 * hr)
    after = state(stage.generator.plain)
    weights = [name for name, _ in stage.generator.plain.named_parameters()]
    assert all(torch.equal(before[name], after[name]) for name in weights)
    assert stage.scaler.get_scale() == 2.0**126


def test_scaler_s_state_comes_back_and_may_be_missing(loss, monkeypatch):
    def scaler(accelerator):
        return torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)

    bfloat = make_stage("content", loss).state_dict()
    assert bfloat["scaler"] == {}
    monkeypatch.setattr(training, "_make_scaler", scaler)
    stage, other = make_stage("content", loss), make_stage("content", loss)
    stage.step(*sampler().batch(2))
    stage.step(*sampler().batch(2))
    other.load_state_dict(copy.deepcopy(stage.state_dict()))
    assert other.scaler.get_scale() == 16
    other.load_state_dict(bfloat)  # a run that went on on another GPU


def test_only_the_discriminator_learns_while_it_warms_up(loss):
    stage = make_stage("adversarial", loss, warm_up=2)
    crops = sampler()
    moved = []
    for _ in range(4):
        before = [p.detach().clone() for p in stage.generator.plain.parameters()]
        judge = [p.detach().clone() for p in stage.discriminator.plain.parameters()]
        assert set(stage.step(*crops.batch(2))) == set(NAMES)
        after = list(stage.generator.plain.parameters())
        moved.append(any(not torch.equal(x, y) for x, y in zip(before, after, strict=True)))
        after = list(stage.discriminator.plain.parameters())
        assert any(not torch.equal(x, y) for x, y in zip(judge, after, strict=True))
    assert moved == [False, False, True, True]
    assert stage.generator.steps == 2 and stage.discriminator.steps == 4


def test_dither_is_all_that_the_discriminator_sees_besides_the_images(loss):
    seen = []
    stage = make_stage("adversarial", loss, dither=0.1)
    stage.discriminator.plain.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    lr, hr = sampler().batch(2)
    with torch.no_grad():
        sr = copy.deepcopy(stage.generator.plain)(lr)
    stage.step(lr, hr)
    assert len(seen) == 3
    for image, found in zip((hr, sr, sr), seen, strict=True):
        noise = (found - image).detach()
        assert noise.abs().max() <= 0.05 + 1e-5
        assert noise.std().item() == pytest.approx(0.1 / 12**0.5, rel=0.1)
    assert not torch.equal(seen[1], seen[2])
    seen.clear()
    plain = make_stage("adversarial", loss)
    plain.discriminator.plain.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    plain.step(lr, hr)
    assert seen[0] is hr


def test_warm_up_goes_on_where_it_was_interrupted(loss):
    whole, first = (make_stage("adversarial", loss, warm_up=2) for _ in range(2))
    crops, other = sampler(), sampler()
    for _ in range(3):
        whole.step(*crops.batch(2))
    first.step(*other.batch(2))
    second = make_stage("adversarial", loss, warm_up=2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(2):
        second.step(*other.batch(2))
    assert_equal(whole.state_dict(), second.state_dict())


# The perceptual loss on several layers


def test_perceptual_loss_of_several_layers_is_their_weighted_sum():
    features = VGGFeatures("relu1_2", rescale=0.5)
    sr, hr = (torch.rand(2, 1, 16, 16) for _ in range(2))
    layers = {"relu1_2": 2.0, "relu1_1": 0.25}
    first = VGGFeatures("relu1_1")
    expected = 2 * F.mse_loss(features(sr), features(hr)) + 0.25 * F.mse_loss(first(sr), first(hr))
    torch.testing.assert_close(PerceptualLoss(features, layers)(sr, hr), 0.25 * expected)
    alone = PerceptualLoss(features, {"relu1_1": 1.0})(sr, hr)
    torch.testing.assert_close(alone, 0.25 * F.mse_loss(first(sr), first(hr)))


def test_vgg_gives_several_activations_from_one_pass():
    features = VGGFeatures("relu1_2")
    image = torch.rand(1, 1, 16, 16)
    found = features.activations(image, ["relu1_2", "relu1_1"])
    assert set(found) == {"relu1_1", "relu1_2"}
    torch.testing.assert_close(found["relu1_2"], features(image))
    torch.testing.assert_close(found["relu1_1"], VGGFeatures("relu1_1")(image))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("relu2_1", r"Unknown layer of vgg16 up to relu1_2 'relu2_1'\. .*Known: conv1_1, relu1_1"),
        ("relu1_3", r"Did you mean 'relu1_"),
        ("pool1", r"Unknown layer"),
    ],
)
def test_layers_that_the_network_does_not_reach_are_refused(layer, words):
    features = VGGFeatures("relu1_2")
    with pytest.raises(ConfigurationError, match=words):
        features.check_layers([layer])
    with pytest.raises(ConfigurationError, match=words):
        PerceptualLoss(features, {"relu1_1": 1.0, layer: 1.0})
    with pytest.raises(ConfigurationError, match=words):
        features.activations(torch.rand(1, 1, 8, 8), [layer])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_both_stages_run_on_the_gpu(loss):
    generator, discriminator = (network.cuda() for network in networks())
    crops = CropSampler([Pixels(torch.randint(256, (1, 64, 64)).byte(), 8)], 32, device="cuda")
    pretrain(generator, crops, 2, batch_size=2, progress=False)
    history = train_gan(
        generator, discriminator, crops, copy.deepcopy(loss).cuda(), 2, batch_size=2, progress=False
    )
    assert len(history.losses["total"]) == 2
