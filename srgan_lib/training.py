"""The two stages of SRGAN's training (Ledig et al. 2017, section 3.2).

Stage one trains the generator alone on a pixel-wise loss. Stage two starts from its result and
lets generator and discriminator play their game.

:class:`ContentStage` and :class:`AdversarialStage` know how to take one step, on a CPU, a GPU or
several; :func:`pretrain` and :func:`train_gan` are the short loops around them that the notebooks
use, and :mod:`srgan_lib.runs` is the long one, with checkpoints.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm.auto import tqdm

from srgan_lib.architectures.network import DiscriminatorNetwork, SRNetwork
from srgan_lib.averaging import MovingAverage
from srgan_lib.crops import CropSampler
from srgan_lib.errors import ConfigurationError, SRGANError, unknown_name
from srgan_lib.hardware import make_accelerator
from srgan_lib.losses import (
    PIXEL_LOSSES,
    GeneratorLoss,
    gradient_penalty,
)

Schedule = Callable[[int], float]
"""What the learning rate is multiplied by before step 0, 1, 2, ..."""

_PENALTY_EVERY = 4  # steps; as in StyleGAN2's lazy regularisation, where it is 16
_REFRESH = 20  # steps between two looks at the losses, each of which waits for the device


def constant(step: int) -> float:
    """Keep the learning rate."""
    return 1.0


def cosine(steps: int, final: float = 0.01) -> Schedule:
    """Let the learning rate fall along half a cosine wave, to ``final`` of it after ``steps``."""

    def schedule(step: int) -> float:
        done = min(step / steps, 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return schedule


class _Player:
    """A network with its optimiser and schedule, on its device and in its memory layout."""

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float,
        schedule: Schedule,
        accelerator: Accelerator,
        compiled: bool,
        fused: bool,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        network.to(accelerator.device, memory_format=torch.channels_last)
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.plain = network.train().requires_grad_(True)
        self.network = torch.compile(network) if compiled else network
        if accelerator.num_processes > 1:
            self.network = accelerator.prepare_model(self.network)
        self.optimiser = torch.optim.Adam(
            network.parameters(), lr=learning_rate, betas=betas, fused=fused
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, schedule)

    @property
    def steps(self) -> int:
        """Number of steps taken."""
        return self.schedule.last_epoch

    def update(self, loss: Tensor, scaler: torch.amp.GradScaler) -> None:
        """Take one step down the gradient of ``loss``."""
        self.optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(self.optimiser)
        self.schedule.step()

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.plain.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.plain.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        for parameter, values in self.optimiser.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                # Fused Adam walks through memory, so its moments must lie as the weights do.
                values[name] = torch.empty_like(parameter).copy_(values[name])
        self.schedule.load_state_dict(state["schedule"])


class _Stage:
    """What the stages share: where they compute, the generator's average, and their state."""

    players: tuple[str, ...] = ("generator",)
    generator: _Player

    def __init__(
        self, generator: nn.Module, accelerator: Accelerator | None, average_decay: float
    ) -> None:
        self.accelerator = accelerator or make_accelerator("no")
        self.scaler = _make_scaler(self.accelerator)
        self.average = MovingAverage(
            generator.to(self.accelerator.device, memory_format=torch.channels_last), average_decay
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on, but for the crops."""
        parts = (*self.players, "average", "scaler")
        return {name: getattr(self, name).state_dict() for name in parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        for name in (*self.players, "average"):
            getattr(self, name).load_state_dict(state[name])
        if state["scaler"]:  # empty where the run was not in float16 before
            self.scaler.load_state_dict(state["scaler"])


class ContentStage(_Stage):
    """Stage one: the generator learns from a pixel-wise loss alone.

    Args:
        generator: maps LR (N, C, h, w) to SR (N, C, H, W). Trained in place.
        accelerator: says on what and how precisely; by default float32 on the best device.
        learning_rate: of Adam; 1e-4 in the paper.
        schedule: how the learning rate changes, see :func:`constant` and :func:`cosine`.
        pixel_loss: a name from :data:`srgan_lib.losses.PIXEL_LOSSES`; ``"mse"`` in the paper.
        average_decay: see :class:`srgan_lib.averaging.MovingAverage`.
        compiled: let ``torch.compile`` fuse the network's operations.
        fused: update all weights in one pass over memory, faster and equal but for rounding.

    Attributes:
        average: the moving average of the generator.
    """

    def __init__(
        self,
        generator: nn.Module,
        *,
        accelerator: Accelerator | None = None,
        learning_rate: float = 1e-4,
        schedule: Schedule = constant,
        pixel_loss: str = "mse",
        average_decay: float = 0.99,
        compiled: bool = False,
        fused: bool = True,
    ) -> None:
        if pixel_loss not in PIXEL_LOSSES:
            raise unknown_name("pixel loss", pixel_loss, PIXEL_LOSSES)
        _check_rate(learning_rate)
        super().__init__(generator, accelerator, average_decay)
        self.generator = _Player(
            generator, learning_rate, schedule, self.accelerator, compiled, fused
        )
        self.pixel_loss = PIXEL_LOSSES[pixel_loss]

    def step(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Learn from one batch.

        Args:
            lr: (N, C, h, w) in [0, 1].
            hr: (N, C, H, W) in [0, 1].

        Returns:
            The value of ``content``, still on the device.
        """
        with self.accelerator.autocast():
            sr = self.generator.network(lr)
        loss = self.pixel_loss(sr.float(), hr)
        self.generator.update(loss, self.scaler)
        self.scaler.update()
        self.average.update(self.generator.plain)
        return {"content": loss.detach()}


class RecursiveStage(ContentStage):
    """Stage one of DRCN, with recursive supervision (Kim et al. 2016, section 3.2, eq. 8).

    It fits any network that ``gives_each``.

    The loss is the mean loss of all recursions' images, times alpha, plus that of their average,
    times 1 - alpha. Alpha falls evenly from 1 to 0: at first each recursion learns to make an
    image, in the end only their average counts.

    Args:
        generator: the network. Trained in place.
        steps: number of steps until alpha is 0.
        options: see :class:`ContentStage`.
    """

    def __init__(self, generator: SRNetwork, steps: int, **options: Any) -> None:
        super().__init__(generator, **options)
        self.all_steps = steps

    def step(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Learn from one batch, see :meth:`ContentStage.step`; ``content`` is the average's."""
        alpha = max(1 - self.generator.steps / self.all_steps, 0)
        with self.accelerator.autocast():
            sr, each = self.generator.network(lr, each=True)
        content = self.pixel_loss(sr.float(), hr)
        loss = (1 - alpha) * content + alpha * self.pixel_loss(each.float(), hr.expand_as(each))
        self.generator.update(loss, self.scaler)
        self.scaler.update()
        self.average.update(self.generator.plain)
        return {"content": content.detach()}


class AdversarialStage(_Stage):
    """Stage two: generator and discriminator learn against each other.

    Each step makes one batch of SR images, or two throws of it if the generator throws dice. The
    discriminator learns first, from a detached copy, so that its update neither costs nor changes
    anything in the generator. Then the generator learns from the updated discriminator, whose own
    weights are frozen meanwhile.

    Args:
        generator: maps LR (N, C, h, w) to SR (N, C, H, W), best after stage one. Trained in
            place.
        discriminator: maps images (N, C, H, W) to logits; a
            :class:`~srgan_lib.architectures.patch_discriminator.PatchDiscriminator` sees LR as
            well. Trained in place.
        loss: the generator's weighted loss, which also says what game is played.
        accelerator: says on what and how precisely; by default float32 on the best device.
        learning_rate: of the generator's Adam; 1e-4 in the paper.
        discriminator_learning_rate: of the discriminator's Adam; the generator's by default.
        betas: of both Adams. A first one of 0 forgets at once where the other player stood.
        penalty_weight: weight of :func:`~srgan_lib.losses.gradient_penalty`, of which half
            counts; gamma in R1's paper. It is taken in each fourth step, four times as strong,
            and in float32.
        warm_up: steps in which only the discriminator learns. A new one knows nothing, and would
            send a trained generator in a random direction.
        schedule: how both learning rates change; the generator's misses the warm-up.
        average_decay: see :class:`srgan_lib.averaging.MovingAverage`.
        compiled: let ``torch.compile`` fuse the networks' operations.
        fused: update all weights in one pass over memory, faster and equal but for rounding.

    Attributes:
        average: the moving average of the generator.

    Raises:
        ConfigurationError: an impossible learning rate, beta or weight.
    """

    players = ("generator", "discriminator")

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: GeneratorLoss,
        *,
        accelerator: Accelerator | None = None,
        learning_rate: float = 1e-4,
        discriminator_learning_rate: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        penalty_weight: float = 0.0,
        warm_up: int = 0,
        schedule: Schedule = constant,
        average_decay: float = 0.99,
        compiled: bool = False,
        fused: bool = True,
    ) -> None:
        if discriminator_learning_rate is None:
            discriminator_learning_rate = learning_rate
        _check_rate(learning_rate)
        _check_rate(discriminator_learning_rate)
        if not all(0 <= beta < 1 for beta in betas):
            raise ConfigurationError(f"Adam's betas lie from 0 to below 1, not at {betas}.")
        if not 0 <= penalty_weight < math.inf:
            raise ConfigurationError(f"penalty_weight must be >= 0, not {penalty_weight}.")
        super().__init__(generator, accelerator, average_decay)
        how = (self.accelerator, compiled, fused, (float(betas[0]), float(betas[1])))
        self.generator = _Player(
            generator, learning_rate, lambda step: schedule(warm_up + step), *how
        )
        self.discriminator = _Player(discriminator, discriminator_learning_rate, schedule, *how)
        self.loss = loss.to(self.accelerator.device)
        self.warm_up, self.penalty_weight = warm_up, penalty_weight
        self.noise_channels = generator.noise_channels if isinstance(generator, SRNetwork) else 0
        self.sees_lr = isinstance(discriminator, DiscriminatorNetwork) and discriminator.sees_lr

    def step(self, lr: Tensor, hr: Tensor) -> dict[str, Tensor]:
        """Learn from one batch.

        Args:
            lr: (N, C, h, w) in [0, 1].
            hr: (N, C, H, W) in [0, 1].

        Returns:
            ``total`` and its terms, see :class:`srgan_lib.losses.GeneratorTerms`;
            ``discriminator``; the mean probabilities that the discriminator gave to HR and to SR
            images, ``d_hr`` and ``d_sr``; the share of places where it ranked HR above SR,
            ``ranking``; ``penalty``, where it has a weight; and ``spread``, the standard
            deviation between two throws, where there are two. All still on the device.
        """
        number, judge = self.discriminator.steps, self.discriminator.plain
        with self.accelerator.autocast():
            sr, other = self._throw(lr)
            logits_hr = self._logits(self.discriminator.network, hr, lr)
            logits_sr = self._logits(self.discriminator.network, sr.detach(), lr)
        d_loss = self.loss.discriminator_loss(logits_hr, logits_sr)
        penalty = self._penalty(lr, hr, number)
        self.discriminator.update(d_loss + self.penalty_weight / 2 * penalty, self.scaler)

        judge.requires_grad_(False)
        with self.accelerator.autocast():
            seen_hr = self._logits(judge, hr, lr) if self.loss.compares else None
            seen_sr = self._logits(judge, sr, lr)
            terms = self.loss(sr, hr, seen_sr, seen_hr, other=other, lr=lr, step=number)
        if self.discriminator.steps > self.warm_up:
            self.generator.update(terms.total, self.scaler)
        judge.requires_grad_(True)

        self.scaler.update()
        self.average.update(self.generator.plain)
        values = {
            **terms._asdict(),
            "discriminator": d_loss,
            "d_hr": logits_hr.sigmoid().mean(),
            "d_sr": logits_sr.sigmoid().mean(),
            "ranking": (logits_hr > logits_sr).float().mean(),
        }
        if self.penalty_weight:
            values["penalty"] = penalty
        if other is not None:
            values["spread"] = (sr - other).square().mean().div(2).sqrt()
        return {name: value.detach() for name, value in values.items()}

    def _throw(self, lr: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return an SR image for each LR image, and another one if the generator throws dice.

        All processes draw the noise for all images and take their own: however many share the
        work, the run is the same. It is drawn on the CPU, whose random state a checkpoint holds.
        """
        if not self.noise_channels:
            return self.generator.network(lr).float(), None
        here, processes = self.accelerator.process_index, self.accelerator.num_processes
        size = (2, processes, len(lr), self.noise_channels, *lr.shape[2:])
        noise = torch.randn(size)[:, here].flatten(0, 1).to(lr.device, non_blocking=True)
        sr, other = self.generator.network(lr, noise).float().chunk(2)
        return sr, other

    def _logits(self, network: nn.Module, image: Tensor, lr: Tensor) -> Tensor:
        return (network(image, lr) if self.sees_lr else network(image)).float()

    def _penalty(self, lr: Tensor, hr: Tensor, number: int) -> Tensor:
        """Return the gradient penalty, four times as large as it is, or 0 in most steps."""
        if not self.penalty_weight or number % _PENALTY_EVERY:
            return hr.new_zeros(())
        judge = self.discriminator.plain
        return _PENALTY_EVERY * gradient_penalty(lambda image: self._logits(judge, image, lr), hr)


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
    """Stage one: train a generator on the mean squared error, in place, in float32.

    Args:
        generator: maps LR (N, C, h, w) to SR (N, C, H, W).
        sampler: serves LR and HR crops, on the device to train on.
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
    _check(steps, batch_size)
    accelerator = make_accelerator("no", sampler.device)
    stage = ContentStage(
        generator, accelerator=accelerator, learning_rate=learning_rate, fused=False
    )
    log = _Log(steps, "stage one", progress)
    for _ in range(steps):
        log.add(stage.step(*sampler.batch(batch_size)))
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
    """Stage two: train generator and discriminator against each other, in place, in float32.

    Args:
        generator: maps LR (N, C, h, w) to SR (N, C, H, W), best after stage one.
        discriminator: maps images (N, C, H, W) to logits (N, 1).
        sampler: serves LR and HR crops, on the device to train on.
        loss: the generator's weighted loss.
        steps: number of updates of each network.
        batch_size: crops a step; 16 in the paper.
        learning_rate: of the generator's Adam; 1e-4 in the paper.
        discriminator_learning_rate: of the discriminator's Adam; the generator's by default.
        progress: show a progress bar.

    Returns:
        The history of what :meth:`AdversarialStage.step` returns.

    Raises:
        ConfigurationError: an impossible number.
        SRGANError: a loss is no longer finite.
    """
    _check(steps, batch_size)
    stage = AdversarialStage(
        generator,
        discriminator,
        loss,
        accelerator=make_accelerator("no", sampler.device),
        fused=False,  # rounds as a loop written by hand does, which the notebooks compare with
        learning_rate=learning_rate,
        discriminator_learning_rate=discriminator_learning_rate,
    )
    log = _Log(steps, "stage two", progress)
    for _ in range(steps):
        log.add(stage.step(*sampler.batch(batch_size)))
    return log.close()


class _Log:
    """Collect losses on the device; look at them, and show them, only now and then."""

    def __init__(self, steps: int, name: str, progress: bool) -> None:
        self.waiting: dict[str, list[Tensor]] = defaultdict(list)
        self.history = History()
        self.bar = tqdm(total=steps, desc=name, unit="step", disable=not progress)

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self.waiting[name].append(value)
        if len(next(iter(self.waiting.values()))) == _REFRESH:
            self._fetch()

    def _fetch(self) -> None:
        for name, values in self.waiting.items():
            self.history.losses.setdefault(name, []).extend(torch.stack(values).tolist())
        self.bar.update(len(next(iter(self.waiting.values()), [])))
        self.waiting.clear()
        latest = {name: values[-1] for name, values in self.history.losses.items()}
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in latest.items()})
        broken = [name for name, value in latest.items() if not math.isfinite(value)]
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


def _make_scaler(accelerator: Accelerator) -> torch.amp.GradScaler:
    """Return float16's loss scaler, which does nothing at other precisions.

    A stage has one, updated once a step: it scales the losses of both networks.
    """
    enabled = accelerator.mixed_precision == "fp16"
    return torch.amp.GradScaler(accelerator.device.type, enabled=enabled)


def _check(steps: int, batch_size: int) -> None:
    if steps < 1 or batch_size < 1:
        raise ConfigurationError(
            f"steps ({steps}) and batch_size ({batch_size}) must be at least 1."
        )


def _check_rate(learning_rate: float) -> None:
    if not 0 < learning_rate < 1:
        raise ConfigurationError(f"A learning rate lies between 0 and 1, not at {learning_rate}.")
