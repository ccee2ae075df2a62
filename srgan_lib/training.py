"""The two stages of SRGAN's training (Ledig et al. 2017, section 3.2).

Stage one trains the generator alone on the mean squared error. Stage two starts from its result
and lets generator and discriminator play their game.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from srgan_lib.crops import CropSampler
from srgan_lib.errors import ConfigurationError, SRGANError
from srgan_lib.losses import GeneratorLoss, content_loss, discriminator_loss

_REFRESH = 20  # steps between two looks at the losses, each of which waits for the device


@dataclass
class History:
    """What a training run logged, one value for each step.

    Attributes:
        losses: the values of each loss by its name, in the order of the steps.
    """

    losses: dict[str, list[float]] = field(default_factory=dict)

    def mean(self, name: str, first: int | None = None, last: int | None = None) -> float:
        """Return the mean of a loss over steps ``first`` to ``last``, as a slice has them."""
        values = self.losses[name][first:last]
        return sum(values) / len(values)


def seed_everything(seed: int) -> None:
    """Seed torch's random numbers, on all devices: they decide how networks are initialised."""
    torch.manual_seed(seed)


def pretrain(
    generator: nn.Module,
    sampler: CropSampler,
    steps: int,
    *,
    batch_size: int = 16,
    learning_rate: float = 1e-4,
    progress: bool = True,
) -> History:
    """Stage one: train a generator on the mean squared error, in place.

    Args:
        generator: maps LR (N, C, h, w) to SR (N, C, H, W); on the sampler's device.
        sampler: serves LR and HR crops.
        steps: number of updates.
        batch_size: crops a step; 16 in the paper.
        learning_rate: of Adam; 1e-4 in the paper.
        progress: show a progress bar.

    Returns:
        The history of ``content``.

    Raises:
        ConfigurationError: an impossible number.
        SRGANError: the loss is no longer finite.
    """
    _check(steps, batch_size, learning_rate)
    optimiser = torch.optim.Adam(generator.parameters(), lr=learning_rate)
    log = _Log(steps, "stage one", progress)
    generator.to(memory_format=torch.channels_last).train()
    for _ in range(steps):
        lr, hr = sampler.batch(batch_size)
        loss = content_loss(generator(lr), hr)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        log.add(content=loss)
    return log.close()


def train_gan(
    generator: nn.Module,
    discriminator: nn.Module,
    sampler: CropSampler,
    loss: GeneratorLoss,
    steps: int,
    *,
    batch_size: int = 16,
    learning_rate: float = 1e-4,
    discriminator_learning_rate: float | None = None,
    progress: bool = True,
) -> History:
    """Stage two: train generator and discriminator against each other, in place.

    Each step makes one batch of SR images. The discriminator learns first, from a detached copy,
    so that its update neither costs nor changes anything in the generator. Then the generator
    learns from the updated discriminator, whose own weights are frozen meanwhile.

    Args:
        generator: maps LR (N, C, h, w) to SR (N, C, H, W), best after stage one.
        discriminator: maps images (N, C, H, W) to logits (N, 1).
        sampler: serves LR and HR crops, on the networks' device.
        loss: the generator's weighted loss.
        steps: number of updates of each network.
        batch_size: crops a step; 16 in the paper.
        learning_rate: of the generator's Adam; 1e-4 in the paper.
        discriminator_learning_rate: of the discriminator's Adam; the generator's by default.
        progress: show a progress bar.

    Returns:
        The history of ``total``, ``content``, ``perceptual``, ``adversarial``,
        ``discriminator``, and of the mean probabilities that the discriminator gave to HR and
        to SR images, ``d_hr`` and ``d_sr``.

    Raises:
        ConfigurationError: an impossible number.
        SRGANError: a loss is no longer finite.
    """
    _check(steps, batch_size, learning_rate)
    if discriminator_learning_rate is None:
        discriminator_learning_rate = learning_rate
    _check(steps, batch_size, discriminator_learning_rate)
    g_optimiser = torch.optim.Adam(generator.parameters(), lr=learning_rate)
    d_optimiser = torch.optim.Adam(discriminator.parameters(), lr=discriminator_learning_rate)
    log = _Log(steps, "stage two", progress)
    generator.to(memory_format=torch.channels_last).train()
    discriminator.to(memory_format=torch.channels_last).train()
    discriminator.requires_grad_(True)  # an interrupted run may have left it frozen
    for _ in range(steps):
        lr, hr = sampler.batch(batch_size)
        sr = generator(lr)

        logits_hr, logits_sr = discriminator(hr), discriminator(sr.detach())
        d_loss = discriminator_loss(logits_hr, logits_sr)
        d_optimiser.zero_grad()
        d_loss.backward()
        d_optimiser.step()

        discriminator.requires_grad_(False)
        terms = loss(sr, hr, discriminator(sr))
        g_optimiser.zero_grad()
        terms.total.backward()
        g_optimiser.step()
        discriminator.requires_grad_(True)

        log.add(
            **terms._asdict(),
            discriminator=d_loss,
            d_hr=logits_hr.sigmoid().mean(),
            d_sr=logits_sr.sigmoid().mean(),
        )
    return log.close()


class _Log:
    """Collect losses on the device; look at them, and show them, only now and then."""

    def __init__(self, steps: int, name: str, progress: bool) -> None:
        self.waiting: dict[str, list[Tensor]] = defaultdict(list)
        self.history = History()
        self.bar = tqdm(total=steps, desc=name, unit="step", disable=not progress)

    def add(self, **losses: Tensor) -> None:
        for name, value in losses.items():
            self.waiting[name].append(value.detach())
        if len(next(iter(self.waiting.values()))) == _REFRESH:
            self._fetch()

    def _fetch(self) -> None:
        for name, values in self.waiting.items():
            self.history.losses.setdefault(name, []).extend(torch.stack(values).tolist())
        self.bar.update(len(next(iter(self.waiting.values()), [])))
        self.waiting.clear()
        latest = {name: values[-1] for name, values in self.history.losses.items()}
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in latest.items()})
        broken = [name for name, value in latest.items() if not _finite(value)]
        if broken:
            self.bar.close()
            raise SRGANError(
                f"The {broken[0]} loss is {latest[broken[0]]} after "
                f"{len(self.history.losses[broken[0]])} steps, so the networks are lost. "
                "Lower the learning rate, and look for NaN in the images."
            )

    def close(self) -> History:
        self._fetch()
        self.bar.close()
        return self.history


def _finite(value: float) -> bool:
    return value - value == 0


def _check(steps: int, batch_size: int, learning_rate: float) -> None:
    if steps < 1 or batch_size < 1:
        raise ConfigurationError(
            f"steps ({steps}) and batch_size ({batch_size}) must be at least 1."
        )
    if not 0 < learning_rate < 1:
        raise ConfigurationError(f"A learning rate lies between 0 and 1, not at {learning_rate}.")
