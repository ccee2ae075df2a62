"""The two training stages: they learn, repeat bit by bit, and touch what they should."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nested import assert_equal
from torch import nn

from srgan_lib import training
from srgan_lib.architectures import (
    DRCN,
    Discriminator,
    Interpolation,
    PatchDiscriminator,
    SRResNet,
    VGGFeatures,
)
from srgan_lib.crops import CropSampler
from srgan_lib.errors import ConfigurationError, SRGANError
from srgan_lib.hardware import make_accelerator
from srgan_lib.images import Pixels
from srgan_lib.losses import (
    GeneratorLoss,
    PerceptualLoss,
    consistency_loss,
    content_loss,
    discriminator_loss,
    gradient_penalty,
    paired_adversarial_loss,
    paired_discriminator_loss,
    ranked_score,
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
    *("total", "content", "perceptual", "adversarial", "consistency"),
    *("discriminator", "d_hr", "d_sr", "ranking"),
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
    expected = discriminator_loss(logits_hr, logits_sr)
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
        d_loss = discriminator_loss(*logits)
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
        game="relativistic",
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


# Dice, and the paired game


PAIRED = {
    "game": "paired",
    "content": "ranked",
    "content_weight": 3.0,
    "perceptual_weight": 0.05,
    "perceptual_every": 3,
    "adversarial_weight": 0.5,
    "consistency_weight": 20.0,
}
DICE = {"learning_rate": 1e-3, "betas": (0.0, 0.99), "penalty_weight": 0.01}
DICE_NAMES = {*NAMES, "penalty", "spread"}


@pytest.fixture(scope="module")
def paired():
    return GeneratorLoss(VGGFeatures("relu1_1"), **PAIRED)


def dice_networks(seed=0, gain=0.05):
    seed_everything(seed)
    generator = SRResNet(blocks=1, width=8, end_kernel=3, batch_norm=False, noise=True)
    for place in generator.noise:
        nn.init.normal_(place.gain.weight, std=gain)
        nn.init.normal_(place.gain.bias, std=gain)
    return generator, PatchDiscriminator(width=4)


def dice_stage(loss, precision="no", seed=0, **options):
    generator, judge = dice_networks(seed)
    options = DICE | {"accelerator": make_accelerator(precision, torch.device("cpu"))} | options
    return AdversarialStage(generator, judge, loss, **options)


def test_paired_step_with_dice_is_the_one_written_out_by_hand(paired):
    """Ten steps: a warm-up of two, R1 in steps 0, 4 and 8, and VGG in steps 0, 3, 6 and 9."""
    stage = dice_stage(paired, warm_up=2, discriminator_learning_rate=2e-3)
    generator, judge = dice_networks()
    adam_g = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.99))
    adam_d = torch.optim.Adam(judge.parameters(), lr=2e-3, betas=(0.0, 0.99))
    crops, twin_crops = sampler(), sampler()
    seed_everything(5)
    found = [stage.step(*crops.batch(2)) for _ in range(10)]
    seed_everything(5)
    for number in range(10):
        lr, hr = twin_crops.batch(2)
        noise = torch.randn(2 * 2, 21, 8, 8)  # 2 throws of 2 images
        sr, other = generator(lr, noise[:2]), generator(lr, noise[2:])
        logits = judge(hr, lr), judge(sr.detach(), lr)
        d_loss = paired_discriminator_loss(*logits)
        penalty = torch.zeros(())
        if number in (0, 4, 8):
            penalty = 4 * gradient_penalty(lambda image, lr=lr: judge(image, lr), hr)
        adam_d.zero_grad()
        (d_loss + 0.01 / 2 * penalty).backward()
        adam_d.step()
        content = ranked_score(sr, hr, other)
        adversarial = paired_adversarial_loss(judge(hr, lr), judge(sr, lr))
        consistency = (consistency_loss(sr, lr) + consistency_loss(other, lr)) / 2
        total = 3 * content + 0.5 * adversarial + 20 * consistency
        perceptual = torch.zeros(())
        if number in (0, 3, 6, 9):
            perceptual = 3 * paired.perceptual(sr, hr, other)
            total = total + 0.05 * perceptual
        if number >= 2:
            adam_g.zero_grad()
            total.backward()
            adam_g.step()
        expected = {
            "total": total,
            "content": content,
            "perceptual": perceptual,
            "adversarial": adversarial,
            "consistency": consistency,
            "discriminator": d_loss,
            "penalty": penalty,
            "d_hr": logits[0].sigmoid().mean(),
            "d_sr": logits[1].sigmoid().mean(),
            "spread": ((sr - other) ** 2).mean().sqrt() / 2**0.5,
        }
        losses = found[number]
        assert set(losses) == DICE_NAMES
        for name, value in expected.items():
            torch.testing.assert_close(
                losses[name], value.detach(), rtol=1e-2, atol=1e-4, msg=f"{name}, step {number}"
            )
    for network, twin in [(stage.generator.plain, generator), (stage.discriminator.plain, judge)]:
        pairs = zip(network.named_parameters(), twin.parameters(), strict=True)
        off = [(one.detach() - other.detach()).abs().mean().item() for (_, one), other in pairs]
        assert max(off) < 1e-3


def test_ranking_is_the_share_of_places_where_hr_is_ranked_above_sr(paired):
    class Judge(nn.Module):
        """Give HR and SR logits of known signs, five of eight places right."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))
            self.calls = 0

        def forward(self, image):
            self.calls += 1
            sign = 1 if self.calls % 2 else 0  # HR first, then SR
            right = torch.tensor([1.0, 1, 1, 1, 1, -1, -1, 0]).view(2, 1, 2, 2)
            return sign * self.weight * right + 0 * image.mean()

    generator, _ = dice_networks()
    stage = AdversarialStage(generator, Judge(), paired, accelerator=make_accelerator("no", "cpu"))
    assert stage.step(*sampler().batch(2))["ranking"].item() == 5 / 8


def test_spread_is_the_deviation_of_throws(paired):
    class Wide(SRResNet):
        """Throw dice of a known spread."""

        def forward(self, lr, noise):
            return super().forward(lr, 0 * noise) + 0.25 * noise[:, :1].repeat(1, 1, 4, 4)

    generator = Wide(blocks=1, width=4, end_kernel=3, batch_norm=False, noise=True)
    stage = AdversarialStage(
        generator, PatchDiscriminator(width=4), paired, accelerator=make_accelerator("no", "cpu")
    )
    seed_everything(0)
    found = [stage.step(*sampler().batch(4))["spread"].item() for _ in range(4)]
    assert np.mean(found) == pytest.approx(0.25, rel=0.1)


TERMS = [name for name in PAIRED if name.endswith("_weight")]


@pytest.mark.parametrize("term", TERMS)
def test_each_term_alone_moves_the_generator_with_dice(term):
    options = PAIRED | dict.fromkeys(TERMS, 0.0) | {term: 1.0}
    stage = dice_stage(GeneratorLoss(VGGFeatures("relu1_1"), **options))
    before = {name: p.detach().clone() for name, p in stage.generator.plain.named_parameters()}
    stage.step(*sampler().batch(2))
    for name, parameter in stage.generator.plain.named_parameters():
        assert not torch.equal(parameter, before[name]), name


def test_players_with_dice_do_not_touch_each_other(paired, monkeypatch):
    stage = dice_stage(paired)
    players = {"generator": stage.generator, "discriminator": stage.discriminator}
    seen = []
    real = training._Player.update

    def spy(player, value, scaler):
        (rest,) = (name for name, other in players.items() if other is not player)
        kept = list(players[rest].plain.parameters())
        before = [(p.detach().clone(), None if p.grad is None else p.grad.clone()) for p in kept]
        real(player, value, scaler)
        for parameter, (weights, gradient) in zip(kept, before, strict=True):
            assert torch.equal(parameter, weights)
            assert (gradient is None) == (parameter.grad is None)
            assert gradient is None or torch.equal(parameter.grad, gradient)
        seen.append(rest)

    monkeypatch.setattr(training._Player, "update", spy)
    stage.step(*sampler().batch(2))
    assert seen == ["generator", "discriminator"]
    assert all(p.requires_grad for p in stage.discriminator.plain.parameters())


def test_generator_runs_once_for_both_throws_and_the_judge_sees_the_first(paired):
    stage = dice_stage(paired, penalty_weight=0.0)
    batches, judged = [], []
    stage.generator.plain.register_forward_hook(lambda _, given, out: batches.append(out.detach()))
    stage.discriminator.plain.register_forward_pre_hook(lambda _, given: judged.append(given))
    lr, hr = sampler().batch(2)
    losses = stage.step(lr, hr)
    assert [len(out) for out in batches] == [4]
    first = batches[0][:2]
    for (image, small), expected in zip(judged, (hr, first, hr, first), strict=True):
        assert torch.equal(image, expected) and small is lr
    assert "penalty" not in losses and "spread" in losses


def test_generator_without_dice_has_one_image_and_no_spread(paired):
    seed_everything(0)
    generator = SRResNet(blocks=1, width=8, end_kernel=3, batch_norm=False)
    stage = AdversarialStage(
        generator, PatchDiscriminator(width=4), paired, accelerator=make_accelerator("no", "cpu")
    )
    lr, hr = sampler().batch(2)
    sr = copy.deepcopy(generator)(lr)
    before = torch.get_rng_state()
    losses = stage.step(lr, hr)
    assert torch.equal(torch.get_rng_state(), before)  # nothing was drawn
    torch.testing.assert_close(losses["content"], F.l1_loss(sr, hr).detach())
    assert set(losses) == set(NAMES)


def test_two_throws_of_an_image_differ_and_so_do_two_steps(paired):
    stage = dice_stage(paired, learning_rate=1e-9)
    seen = []
    stage.generator.plain.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    lr, hr = sampler().batch(2)
    for _ in range(2):
        stage.step(lr, hr)
    throws = [part for noise in seen for part in noise]
    assert len(throws) == 8
    for i, one in enumerate(throws):
        assert abs(one.mean()) < 0.2 and one.std().item() == pytest.approx(1, abs=0.15)
        assert all(not torch.equal(one, other) for other in throws[:i])


def test_noise_of_several_processes_is_that_of_one(paired, monkeypatch):
    def drawn(rank, processes, lr):
        stage = dice_stage(paired)
        given = []
        monkeypatch.setattr(
            stage, "accelerator", SimpleNamespace(process_index=rank, num_processes=processes)
        )
        stage.generator.network = lambda lr, noise: given.append(noise) or torch.zeros(4, 1, 8, 8)
        seed_everything(4)
        stage._throw(lr)
        return given[0], torch.rand(3)  # and all go on from the same random state

    lr = torch.rand(6, 1, 8, 8)
    whole, after = drawn(0, 1, lr)
    for rank in range(3):
        share = slice(2 * rank, 2 * rank + 2)
        part, later = drawn(rank, 3, lr[share])
        assert torch.equal(part, torch.cat([whole[:6][share], whole[6:][share]]))
        assert torch.equal(later, after)


def test_state_with_dice_goes_on_bit_by_bit_with_torch_s_random_state(paired):
    whole = dice_stage(paired, warm_up=1)
    crops = sampler()
    for _ in range(3):
        whole.step(*crops.batch(2))
    taken, place, chance = copy.deepcopy(whole.state_dict()), crops.state(), torch.get_rng_state()
    for _ in range(3):
        whole.step(*crops.batch(2))
    for same_dice in (True, False):
        other = dice_stage(paired, seed=7, warm_up=1)
        other.load_state_dict(taken)
        crops.load_state(place)
        if same_dice:
            torch.set_rng_state(chance)
        for _ in range(3):
            other.step(*crops.batch(2))
        if same_dice:
            assert_equal(whole.state_dict(), other.state_dict())
        else:
            assert not same(state(whole.generator.plain), state(other.generator.plain))


def test_penalty_is_taken_in_each_fourth_step_in_float32(paired, monkeypatch):
    seen = []
    real = training.gradient_penalty

    def spy(judge, hr):
        def look(image):
            logits = judge(image)
            seen.append((stage.discriminator.steps, torch.is_autocast_enabled("cpu"), logits.dtype))
            return logits

        return real(look, hr)

    monkeypatch.setattr(training, "gradient_penalty", spy)
    types = []
    stage = dice_stage(paired, precision="bf16")
    stage.discriminator.plain.features[2].register_forward_hook(
        lambda _, given, out: types.append(out.dtype)
    )
    crops = sampler()
    values = [stage.step(*crops.batch(2))["penalty"].item() for _ in range(6)]
    assert seen == [(0, False, torch.float32), (4, False, torch.float32)]
    assert [value > 0 for value in values] == [True, False, False, False, True, False]
    # HR and SR, the penalty's own, and again HR and SR for the generator
    assert types[:3] == [torch.bfloat16] * 2 + [torch.float32]


def test_penalty_holds_the_judge_s_slope_down(paired):
    def slope(weight):
        stage = dice_stage(paired, penalty_weight=weight, learning_rate=1e-3)
        crops = sampler()
        for _ in range(24):
            lr, hr = crops.batch(2)
            stage.step(lr, hr)
        judge = stage.discriminator.plain
        return gradient_penalty(lambda image: judge(image, lr), hr).item()

    assert slope(1.0) < 0.5 * slope(0.0)


def test_float16_s_scaler_works_with_the_penalty_s_double_backward(paired, monkeypatch):
    """On a CPU float16 can't be asked for; autocast and the scaler are put in its place."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    monkeypatch.setattr(training, "_make_scaler", lambda accelerator: scaler)
    stage = dice_stage(paired, fused=False)
    monkeypatch.setattr(stage.accelerator, "autocast", lambda: torch.autocast("cpu", torch.float16))
    exact = dice_stage(paired, fused=False)
    exact.scaler = torch.amp.GradScaler("cpu", enabled=False)
    crops, twin = sampler(), sampler()
    for number in range(6):
        torch.manual_seed(number)
        losses = stage.step(*crops.batch(2))
        torch.manual_seed(number)
        expected = exact.step(*twin.batch(2))
        assert all(value.isfinite() and value.dtype == torch.float32 for value in losses.values())
        for name in ("content", "consistency", "penalty", "discriminator"):
            assert losses[name].item() == pytest.approx(expected[name].item(), rel=0.1, abs=2e-2)
    assert scaler.get_scale() == 2.0**12  # no step overflowed
    for player in (stage.generator, stage.discriminator):
        assert all(
            p.isfinite().all() and p.dtype == torch.float32 for p in player.plain.parameters()
        )


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_activations_with_dice_stay_channels_last(paired, precision):
    stage = dice_stage(paired, precision, penalty_weight=0.0)
    wrong, seen = [], []
    for title in ("generator", "discriminator"):
        for name, module in getattr(stage, title).plain.named_modules():

            def look(module, given, output, name=f"{title}.{name}"):
                seen.append(name)
                if not output.is_contiguous(memory_format=torch.channels_last):
                    wrong.append(name)

            module.register_forward_hook(look)
    stage.step(*sampler().batch(2))
    assert wrong == []
    assert {"generator.noise.2", "generator.last", "discriminator.classifier.2"} <= set(seen)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"betas": (1.0, 0.99)}, r"betas lie from 0 to below 1, not at \(1.0, 0.99\)"),
        ({"betas": (0.0, math.nan)}, "betas lie from 0"),
        ({"penalty_weight": -1.0}, "penalty_weight must be >= 0, not -1.0"),
        ({"penalty_weight": math.nan}, "penalty_weight must be >= 0"),
    ],
)
def test_impossible_games_are_refused(paired, options, words):
    with pytest.raises(ConfigurationError, match=words):
        dice_stage(paired, **options)


def test_adam_s_betas_are_those_asked_for(loss):
    stage = make_stage("adversarial", loss, betas=(0.0, 0.99))
    for player in (stage.generator, stage.discriminator):
        assert player.optimiser.defaults["betas"] == (0.0, 0.99)
    assert make_stage("content", loss).generator.optimiser.defaults["betas"] == (0.9, 0.999)


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
