"""SRGAN's training as most public code writes it: what the library is measured against.

The networks and the losses are the library's own, so both sides do the same work. What differs
is how: image files are opened for each crop, by worker processes; everything is float32 and
contiguous; Adam is PyTorch's default; each loss is fetched at each step.

Where public code is of two minds, this takes the faster way: VGG is frozen, no gradient of the
discriminator's loss reaches the generator, and pages are locked for the copy to a GPU.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from srgan_lib.architectures import Discriminator, SRResNet, VGGFeatures

WORKERS = 2
_VISITS = 100  # to each file in an epoch: a measurement ends before its epoch does


class ImageFiles(Dataset):
    """Open an image file, cut a random crop out of it, make it smaller."""

    def __init__(self, paths: Sequence[Path], crop_size: int, scale: int = 4) -> None:
        self.paths = paths
        self.crop = transforms.RandomCrop(crop_size)
        self.reduce = transforms.Resize(
            crop_size // scale, interpolation=transforms.InterpolationMode.BICUBIC
        )
        self.to_tensor = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        hr = self.crop(Image.open(self.paths[index]).convert("L"))
        return self.to_tensor(self.reduce(hr)), self.to_tensor(hr)


def batches(
    paths: Sequence[Path], crop_size: int, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of LR and HR crops, on the device."""
    loader = DataLoader(
        ImageFiles(list(paths) * _VISITS, crop_size),
        batch_size=batch_size,
        shuffle=True,
        num_workers=WORKERS,
        pin_memory=device.type == "cuda",
    )
    for lr, hr in loader:
        yield lr.to(device), hr.to(device)


def contiguous(generator: SRResNet) -> SRResNet:
    """Take out of a generator the steps that keep its feature maps channels last."""
    generator.upsample = nn.Sequential(*(stage.body for stage in generator.upsample))
    return generator


class ContentTraining:
    """Stage one."""

    def __init__(self, generator: nn.Module) -> None:
        self.generator = generator.train()
        self.adam = torch.optim.Adam(generator.parameters(), lr=1e-4)

    def step(self, lr: Tensor, hr: Tensor) -> dict[str, float]:
        """Learn from one batch and return its loss."""
        loss = F.mse_loss(self.generator(lr), hr)
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return {"content": loss.item()}


class AdversarialTraining:
    """Stage two, in separate passes: one for the discriminator, one for the generator.

    Args:
        generator: as after :func:`contiguous`.
        discriminator: trained along.
        features: the frozen VGG network.
        weights: of the terms of the generator's loss, named as `GeneratorLoss` names them.
        run_anew: run the generator in both passes; else its images are kept from the first.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: Discriminator,
        features: VGGFeatures,
        weights: dict[str, float],
        run_anew: bool = True,
    ) -> None:
        self.generator, self.discriminator = generator.train(), discriminator.train()
        self.features, self.weights, self.run_anew = features, weights, run_anew
        self.adam_g = torch.optim.Adam(generator.parameters(), lr=1e-4)
        self.adam_d = torch.optim.Adam(discriminator.parameters(), lr=1e-4)
        self.bce = nn.BCEWithLogitsLoss()

    def step(self, lr: Tensor, hr: Tensor) -> dict[str, float]:
        """Learn from one batch and return its losses."""
        sr = self.generator(lr)
        real, fake = self.discriminator(hr), self.discriminator(sr.detach())
        d_loss = self.bce(real, torch.ones_like(real)) + self.bce(fake, torch.zeros_like(fake))
        self.adam_d.zero_grad()
        d_loss.backward()
        self.adam_d.step()

        if self.run_anew:
            sr = self.generator(lr)
        fake = self.discriminator(sr)
        content = F.mse_loss(sr, hr)
        perceptual = F.mse_loss(self.features(sr), self.features(hr)) * self.features.rescale**2
        adversarial = self.bce(fake, torch.ones_like(fake))
        total = (
            self.weights["content_weight"] * content
            + self.weights["perceptual_weight"] * perceptual
            + self.weights["adversarial_weight"] * adversarial
        )
        self.adam_g.zero_grad()
        total.backward()
        self.adam_g.step()
        return {
            "total": total.item(),
            "content": content.item(),
            "perceptual": perceptual.item(),
            "adversarial": adversarial.item(),
            "discriminator": d_loss.item(),
        }
