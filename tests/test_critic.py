"""A fresh critic finds what is there to be found, and only in patients it never saw."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from srgan_lib.critic import Critic, auc, fresh_critic_auc, halves
from srgan_lib.degradation import degrade, quantise
from srgan_lib.errors import ConfigurationError, ImageError

pytestmark = pytest.mark.usefixtures("one_thread")

LEVEL = 1 / 255
QUICK = {"steps": 40, "batch": 8, "crop": 24, "test_crops": 100}


def noise(count, seed, side=96):
    """Images of soft clouds and of grain, whose places two seeds of grain don't share."""
    generator = torch.Generator().manual_seed(seed)
    clouds = F.interpolate(
        torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(99)),
        (side, side),
        mode="bicubic",
    )
    grain = F.avg_pool2d(torch.randn(count, 1, side + 2, side + 2, generator=generator), 3, 1)
    return list(quantise(0.3 + 0.4 * clouds + 12 * LEVEL * grain))


@pytest.fixture(scope="module")
def reals():
    return noise(4, seed=1)


@pytest.fixture(scope="module")
def lrs(reals):
    return [degrade(image) for image in reals]


PATIENTS = ("a", "b", "c", "d")


def test_lost_grain_is_told_and_other_grain_of_the_same_kind_is_not(reals, lrs):
    soft = [F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1) for x in reals]
    assert fresh_critic_auc(soft, reals, lrs, PATIENTS, **QUICK) > 0.95
    others = noise(4, seed=2)
    other_lrs = [degrade(image) for image in others]
    found = fresh_critic_auc(others, reals, other_lrs, PATIENTS, real_lrs=lrs, **QUICK)
    assert 0.35 < found < 0.65


def test_weak_white_noise_is_told(reals, lrs):
    generator = torch.Generator().manual_seed(3)
    noisy = [x + 2 * LEVEL * torch.randn(x.shape, generator=generator) for x in reals]
    assert fresh_critic_auc(noisy, reals, lrs, PATIENTS, **QUICK) > 0.8


def test_image_that_does_not_belong_to_its_lr_is_told(reals, lrs):
    shuffled = [*reals[1:], reals[0]]  # each one real
    assert fresh_critic_auc(shuffled, reals, lrs, PATIENTS, **QUICK) > 0.9


def test_critic_never_learns_from_the_patients_that_it_is_judged_on(reals, lrs):
    # In one patient SR is too bright, in the other too dark: who knows one of them only takes
    # the other's SR for HR.
    fakes = [reals[0] + 0.1, reals[1] - 0.1]
    assert fresh_critic_auc(fakes, reals[:2], lrs[:2], ("a", "b"), **QUICK) < 0.2
    # As two images of each of two patients, with both kinds in each, it is learned.
    fakes = [reals[0] + 0.1, reals[1] - 0.1, reals[2] + 0.1, reals[3] - 0.1]
    assert fresh_critic_auc(fakes, reals, lrs, ("a", "a", "b", "b"), **QUICK) > 0.8


def test_sr_is_judged_as_a_file_would_hold_it(reals, lrs):
    short = QUICK | {"steps": 10}
    hidden = [x + 0.4 * LEVEL * (-1) ** torch.arange(96) for x in reals]
    assert fresh_critic_auc(hidden, reals, lrs, PATIENTS, **short) == 0.5  # all ties


def test_same_seed_gives_the_same_number_and_leaves_torch_s_own_alone(reals, lrs):
    short = QUICK | {"steps": 5}
    noisy = [x + 5 * LEVEL * torch.randn(x.shape) for x in reals]
    before = torch.get_rng_state()
    first = fresh_critic_auc(noisy, reals, lrs, PATIENTS, **short)
    assert fresh_critic_auc(noisy, reals, lrs, PATIENTS, **short) == first
    assert fresh_critic_auc(noisy, reals, lrs, PATIENTS, seed=1, **short) != first
    assert torch.equal(torch.get_rng_state(), before)


def test_both_ways_is_the_mean_of_the_two(reals, lrs):
    short = QUICK | {"steps": 5}
    soft = [F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1) for x in reals]
    one = fresh_critic_auc(soft, reals, lrs, PATIENTS, both_ways=False, **short)
    both = fresh_critic_auc(soft, reals, lrs, PATIENTS, **short)
    assert 0 <= 2 * both - one <= 1 and both != one


def test_logit_of_a_crop_depends_on_no_other_crop():
    critic = Critic(channels=3)
    crops = torch.rand(4, 6, 24, 32)
    assert critic(crops).shape == (4,)
    torch.testing.assert_close(critic(crops)[2:3], critic(crops[2:3]))


def test_auc_is_scikit_learn_s_with_ties_too():
    generator = torch.Generator().manual_seed(0)
    negatives = torch.randint(0, 9, (40,), generator=generator).float()
    positives = torch.randint(2, 12, (25,), generator=generator).float()
    labels = [0] * 40 + [1] * 25
    expected = roc_auc_score(labels, torch.cat([negatives, positives]).numpy())
    assert auc(negatives, positives) == pytest.approx(expected)
    assert 0.5 < expected < 1
    assert auc(torch.zeros(3), torch.zeros(4)) == 0.5
    assert auc(torch.zeros(3), torch.ones(4)) == 1
    for bad in (torch.zeros(0), torch.tensor([1.0, float("nan")])):
        with pytest.raises(ConfigurationError, match="both sides"):
            auc(bad, torch.ones(4))


@pytest.mark.parametrize("seed", range(3))
def test_halves_share_no_patient_and_are_about_equal(seed):
    groups = [*"aaaaabbbccddefgh"]
    first, second = halves(groups, seed)
    assert sorted([*first, *second]) == list(range(len(groups)))
    assert not {groups[i] for i in first} & {groups[i] for i in second}
    assert abs(len(first) - len(second)) <= 1
    assert halves(groups, seed) == (first, second)
    with pytest.raises(ConfigurationError, match="two patients or more"):
        halves(["a", "a"])


def test_what_can_not_be_judged_is_refused(reals, lrs):
    with pytest.raises(ConfigurationError, match="one HR image, LR image and patient"):
        fresh_critic_auc(reals, reals, lrs, PATIENTS[:3])
    with pytest.raises(ConfigurationError, match="positive"):
        fresh_critic_auc(reals, reals, lrs, PATIENTS, steps=0)
    with pytest.raises(ImageError, match="of 97 px a side or more"):
        fresh_critic_auc(reals, reals, lrs, PATIENTS, crop=97)
