"""Can a network that was made for it tell SR from HR? A two-sample test by a fresh critic.

Where a small network, trained from scratch on SR and HR of some patients, can't tell the two
apart in others, they look alike to it (Lopez-Paz & Oquab 2017). The discriminator that a
generator was trained against can't answer this: the generator has adapted to it, and it may be
weak. The critic here never met the generator in training.

The protocol:

- SR and HR are rounded to 8 bits, as stored, and come from the same places of the same images.
- The patients are divided in two halves. A critic learns on crops of one half and is judged on
  crops of the other, and a second one the other way round. No critic is judged on a patient
  that it has learned from.
- The critic sees a crop and its difference from the enlarged LR image, so that it also knows
  when SR doesn't belong to its LR, and once more what of this difference is finer than 3 pixels,
  which is weak but telling. Each of the two is divided by its root mean square in HR, over the
  half that it learns from.
- It gives a logit at each place of a map, the mean of which counts for the crop.
- The number is the area under the ROC curve (AUC): how often it finds an HR crop more real than
  an SR crop. 0.5 is guessing; 1 tells all.

The test has the power of its critic and of its few images. Near 1 shows that SR is not like
HR; near 0.5 shows only that this critic found no difference.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor, nn

from srgan_lib.degradation import quantise, resize
from srgan_lib.errors import ConfigurationError, ImageError


class Critic(nn.Module):
    """A small convolutional network: one logit for each crop, the mean of a map of logits.

    Five convolutions, three of which halve the size, with LeakyReLU (0.2) after all but the
    last; no normalisation, so that no crop affects another's logit.
    A logit of the map sees 26 x 26 pixels.

    Args:
        channels: channels of the image.
        width: channels of the first convolution.
        spreads: root mean squares of HR's difference from the enlarged LR, and of the finest
            part of that difference, which the two are divided by.
    """

    def __init__(
        self, channels: int = 1, width: int = 32, spreads: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        super().__init__()
        self.channels, self.spreads = channels, tuple(max(spread, 1e-3) for spread in spreads)
        slope = nn.LeakyReLU(0.2)
        self.layers = nn.Sequential(
            nn.Conv2d(3 * channels, width, 3, padding=1),
            slope,
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            slope,
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            slope,
            nn.Conv2d(2 * width, 2 * width, 4, stride=2, padding=1),
            slope,
            nn.Conv2d(2 * width, 1, 1),
        )

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights anew (He et al. 2015), from this generator; biases become 0."""
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, 0.2, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, crops: Tensor) -> Tensor:
        """Turn crops into logits (N,); higher is more real.

        Args:
            crops: the image in [0, 1] and its difference from the enlarged LR, (N, 2 C, H, W),
                H and W from 8 up.
        """
        image, difference = crops.split(self.channels, dim=1)
        coarse, fine = self.spreads
        parts = [4 * image - 2, difference / coarse, finest(difference) / fine]
        return self.layers(torch.cat(parts, dim=1)).mean(dim=(1, 2, 3))


def finest(images: Tensor) -> Tensor:
    """Return what images (..., C, H, W) have beyond their mean over 3 x 3 pixels."""
    return images - F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)


def fresh_critic_auc(
    fakes: Sequence[Tensor],
    reals: Sequence[Tensor],
    lrs: Sequence[Tensor],
    groups: Sequence[str],
    *,
    real_lrs: Sequence[Tensor] | None = None,
    both_ways: bool = True,
    steps: int = 600,
    batch: int = 16,
    crop: int = 48,
    test_crops: int = 512,
    rate: float = 1e-3,
    bits: int = 8,
    seed: int = 0,
) -> float:
    """Return how well a critic, trained for it, tells SR from HR of patients it never saw.

    The protocol stands at the head of this module. On one CPU core each direction takes about
    a minute.

    Args:
        fakes: SR images, float tensors (C, H, W) of any sizes; clamped and rounded here.
        reals: the HR image of each.
        lrs: the LR image of each, (C, h, w), which SR was made from.
        groups: the patient of each; all images of a patient come into the same half.
        real_lrs: the LR images of ``reals``, where these are not of the same places; by default
            they are, and ``lrs`` serve both.
        both_ways: also learn on the second half and judge on the first; the mean is returned.
        steps: steps of Adam, with a rate that falls to 0 on a cosine.
        batch: SR crops a step, and as many HR crops.
        crop: side of a crop, in pixels, 8 or more.
        test_crops: SR crops, and as many HR crops, to be judged in each direction.
        rate: the rate of the first step.
        bits: bit depth of the stored images.
        seed: of the halves, the weights, and the crops. The same gives the same number on the
            same machine.

    Returns:
        The AUC on crops of the half not learned from: 0.5 for chance, 1 if all can be told.

    Raises:
        ConfigurationError: lists of different lengths, fewer than two patients, or no steps.
        ImageError: an image that is smaller than a crop, or pairs of different sizes.
    """
    if not len(fakes) == len(reals) == len(lrs) == len(groups) == len(real_lrs or lrs):
        raise ConfigurationError("There must be one HR image, LR image and patient for each SR.")
    if min(steps, batch, test_crops) < 1 or crop < 8:
        raise ConfigurationError("steps, batch and test_crops must be positive, and crop 8 or up.")
    for fake, real in zip(fakes, reals, strict=True):
        if fake.shape != real.shape or fake.ndim != 3 or min(fake.shape[1:]) < crop:
            raise ImageError(
                f"SR and HR must both be (C, H, W) of {crop} px a side or more, "
                f"not {tuple(fake.shape)} and {tuple(real.shape)}."
            )
    pairs = [
        torch.stack([_with_difference(fake, lr, bits), _with_difference(real, real_lr, bits)])
        for fake, real, lr, real_lr in zip(fakes, reals, lrs, real_lrs or lrs, strict=True)
    ]  # each (2, 2 C, H, W): SR and HR
    first, second = halves(groups, seed)
    directions = [(first, second), (second, first)] if both_ways else [(first, second)]
    found = []
    for learn, judge in directions:
        generator = torch.Generator().manual_seed(seed)
        judged = _crops([pairs[i] for i in judge], test_crops, crop, generator)
        critic = _train([pairs[i] for i in learn], steps, batch, crop, rate, generator)
        with torch.no_grad():
            fake, real = (torch.cat([critic(x) for x in kind.split(64)]) for kind in judged)
        found.append(auc(fake, real))
    return sum(found) / len(found)


def auc(negatives: Tensor, positives: Tensor) -> float:
    """Return the area under the ROC curve: how often a positive stands above a negative.

    Computed from ranks (Mann & Whitney 1947); a tie counts half.

    Args:
        negatives: float tensor (n,), n > 0.
        positives: float tensor (m,), m > 0.

    Raises:
        ConfigurationError: no values, or NaN among them.
    """
    n, m = len(negatives), len(positives)
    values = torch.cat([negatives, positives]).double().cpu()
    if not n or not m or values.isnan().any():
        raise ConfigurationError("An AUC needs numbers on both sides, and no NaN.")
    above = rankdata(values.numpy())[n:].sum() - m * (m + 1) / 2
    return float(above / (n * m))


def halves(groups: Sequence[str], seed: int = 0) -> tuple[list[int], list[int]]:
    """Divide images in two halves, about equal, so that no patient stands in both.

    Patients come in the order of their images' number, those with as many in random order;
    each goes to the half that has fewer images so far.

    Args:
        groups: the patient of each image.
        seed: of the random order.

    Returns:
        The places in ``groups`` of each half, rising.

    Raises:
        ConfigurationError: fewer than two patients.
    """
    patients = sorted(set(groups))
    if len(patients) < 2:
        raise ConfigurationError("A critic needs images of two patients or more.")
    shuffled = [patients[i] for i in _order(len(patients), seed)]
    sides: tuple[list[int], list[int]] = ([], [])
    for patient in sorted(shuffled, key=lambda p: -list(groups).count(p)):
        smaller = min(sides, key=len)
        smaller += [i for i, group in enumerate(groups) if group == patient]
    return sorted(sides[0]), sorted(sides[1])


def _order(n: int, seed: int) -> list[int]:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()


def _with_difference(image: Tensor, lr: Tensor, bits: int) -> Tensor:
    """Return an image as stored and its difference from the enlarged LR, (2 C, H, W)."""
    image = quantise(image.float(), bits)
    return torch.cat([image, image - resize(lr.float(), tuple(image.shape[-2:]))])


def _crops(pairs: Sequence[Tensor], n: int, side: int, generator: torch.Generator) -> Tensor:
    """Cut n crops at random places, the same in SR and HR: (2, n, 2 C, side, side)."""
    crops = []
    for k in torch.randint(len(pairs), (n,), generator=generator).tolist():
        height, width = pairs[k].shape[-2:]
        top = int(torch.randint(height - side + 1, (), generator=generator))
        left = int(torch.randint(width - side + 1, (), generator=generator))
        crops.append(pairs[k][..., top : top + side, left : left + side])
    return torch.stack(crops, dim=1)


def _spread(images: Iterable[Tensor]) -> float:
    return float(torch.stack([image.square().mean() for image in images]).mean().sqrt())


def _train(
    pairs: Sequence[Tensor],
    steps: int,
    batch: int,
    side: int,
    rate: float,
    generator: torch.Generator,
) -> Critic:
    """Train a critic on pairs of SR and HR, (2, 2 C, H, W) each."""
    channels = pairs[0].shape[1] // 2
    differences = [pair[1, channels:] for pair in pairs]  # HR's
    spreads = (_spread(differences), _spread(map(finest, differences)))
    with torch.device("meta"):  # else its first weights are drawn from torch's own generator
        critic = Critic(channels, spreads=spreads)
    critic.to_empty(device="cpu").initialise(generator)
    critic.to(pairs[0].device)
    optimiser = torch.optim.Adam(critic.parameters(), rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        fake, real = critic(_crops(pairs, batch, side, generator).flatten(0, 1)).chunk(2)
        loss = F.softplus(fake).mean() + F.softplus(-real).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return critic
