"""Time the training step of both stages against the same networks in public style."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import public_style
import torchvision
from common import Setting, Side, Trial, image_files, main, write_images
from safetensors.torch import save_file
from torch import Tensor

from srgan_lib.architectures import Discriminator, SRResNet, VGGFeatures
from srgan_lib.crops import CropSampler
from srgan_lib.hardware import make_accelerator
from srgan_lib.images import read_pixels
from srgan_lib.losses import GeneratorLoss
from srgan_lib.training import AdversarialStage, ContentStage

Batches = Iterator[tuple[Tensor, Tensor]]
Step = Callable[[Tensor, Tensor], Any]

LOSS = {"content_weight": 1.0, "perceptual_weight": 0.1, "adversarial_weight": 1e-3}


@dataclass(frozen=True)
class Sizes:
    """The networks and the batch: of the paper's size, by default."""

    blocks: int = 16
    width: int = 64
    discriminator: dict[str, int] = field(default_factory=lambda: {"width": 64, "grid": 6})
    layer: str = "relu5_3"
    batch: int = 16
    crop: int = 96


QUICK = Sizes(1, 4, {"width": 4, "grid": 1}, "relu1_2", 2, 32)


def sizes(setting: Setting) -> Sizes:
    return QUICK if setting.quick else Sizes()


def prepare(setting: Setting) -> None:
    """Write image files, and random weights of VGG16, which take as long as trained ones."""
    write_images(setting.folder, 4 if setting.quick else 40)
    layers = torchvision.models.vgg.cfgs["D"][: 2 if setting.quick else None]
    network = torchvision.models.vgg.make_layers(layers)
    save_file(network.state_dict(), setting.folder / "vgg16.safetensors")


def trials(setting: Setting) -> list[Trial]:
    """Both stages, each with and without the loading of its crops."""
    chosen: list[Trial] = []
    for loading in (True, False):
        for stage in ("one", "two"):
            others = {"public style": public(setting, stage, loading)}
            if stage == "two" and loading:
                name = "public style, generator run once"
                others[name] = public(setting, stage, loading, run_anew=False)
            chosen.append(
                Trial(
                    f"stage {stage}" + ("" if loading else ", without loading"),
                    ours(setting, stage, loading),
                    others,
                    # A CPU is slower than the workers: their queue is full after one step.
                    warm=setting.count(1, 6),
                    units=setting.count(1, 20),
                )
            )
    return chosen


def ours(setting: Setting, stage: str, loading: bool) -> Side:
    """Return the side of the library: its stages, as a training run uses them."""

    def side() -> Iterator[None]:
        accelerator = make_accelerator("auto", setting.device)
        networks = build(setting)
        if stage == "one":
            step: Step = ContentStage(networks[0], accelerator=accelerator).step
        else:
            generator, discriminator, features = networks
            loss = GeneratorLoss(features, **LOSS)
            step = AdversarialStage(generator, discriminator, loss, accelerator=accelerator).step
        return train(step, our_batches(setting), loading)

    return side


def public(setting: Setting, stage: str, loading: bool, run_anew: bool = True) -> Side:
    """Return the side of public code."""

    def side() -> Iterator[None]:
        generator, discriminator, features = (x.to(setting.device) for x in build(setting))
        generator = public_style.contiguous(generator)
        if stage == "one":
            step: Step = public_style.ContentTraining(generator).step
        else:
            step = public_style.AdversarialTraining(
                generator, discriminator, features, LOSS, run_anew
            ).step
        size = sizes(setting)
        batches = public_style.batches(
            image_files(setting.folder), size.crop, size.batch, setting.device
        )
        return train(step, batches, loading)

    return side


def build(setting: Setting) -> tuple[SRResNet, Discriminator, VGGFeatures]:
    """Return the networks of a step, on the CPU."""
    size = sizes(setting)
    generator = SRResNet(
        blocks=size.blocks, width=size.width, batch_norm=False, bicubic_skip=True, end_kernel=3
    )
    features = VGGFeatures(size.layer, weights=setting.folder / "vgg16.safetensors")
    return generator, Discriminator(**size.discriminator), features


def our_batches(setting: Setting) -> Batches:
    """Yield batches of LR and HR crops, on the device."""
    size = sizes(setting)
    images = [read_pixels(path) for path in image_files(setting.folder)]
    sampler = CropSampler(images, size.crop, device=setting.device)
    while True:
        yield sampler.batch(size.batch)


def train(step: Step, batches: Batches, loading: bool) -> Iterator[None]:
    """Take a training step before each yield but the first, on new batches or on the same one."""
    if not loading:
        batches = itertools.repeat(next(batches))
    yield
    for lr, hr in batches:
        step(lr, hr)
        yield


if __name__ == "__main__":
    main(__file__, prepare, trials)
