"""DRCN, a deep network with the weights of a shallow one (Kim et al. 2016)."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from srgan_lib.architectures.checks import MOST_LAYERS, check_input, check_positive
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.network import SRNetwork


class DRCN(SRNetwork):
    """Apply one convolution again and again, and let every recursion predict the SR image.

    The embedding net reads the bicubic image; the inference net is a single convolution with its
    ReLU, used ``recursions`` times; the reconstruction net, shared as well, turns the state after
    each recursion into an image, to which the bicubic image is added (section 3, figure 3). The
    result is the average of these predictions, with learned weights (eq. 7). In training each
    prediction is compared with HR, too: recursive supervision (eq. 8), see
    :class:`srgan_lib.training.RecursiveStage`.

    Args:
        channels: 1 (grey) or 3 (RGB).
        scale: 2, 3 or 4.
        width: channels; 256 in the paper.
        recursions: how often the shared convolution is used; 16 in the paper.

    Raises:
        ConfigurationError: an impossible value.
    """

    adds_to_bicubic = True
    gives_each = True
    small: ClassVar = {"width": 6, "recursions": 3}

    def __init__(
        self, channels: int = 1, scale: int = 4, width: int = 256, recursions: int = 16
    ) -> None:
        super().__init__(locals())
        check_positive(width=width)
        check_positive(MOST_LAYERS, recursions=recursions)
        self.bicubic = Interpolation("bicubic", scale)
        self.embedding = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.inference = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.reconstruction = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, channels, 3, padding=1),
        )
        self.average = nn.Parameter(torch.full((recursions,), 1 / recursions))
        # Section 3.2: at first a recursion passes its state on, so that gradients reach the start.
        nn.init.dirac_(self.inference[0].weight)
        nn.init.zeros_(self.inference[0].bias)

    @property
    def receptive_radius(self) -> int:
        """No LR pixel that is more rows or columns away changes an LR pixel's SR pixels."""
        # All convolutions are 3 x 3: two before the recursions, two behind them.
        return self.bicubic.reach(2 + len(self.average) + 2)

    @property
    def working_width(self) -> int:
        """Channels of its widest features for each SR pixel: what memory grows with."""
        return self.arguments["width"]

    def forward(self, lr: Tensor, each: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Turn LR (N, channels, H, W) in [0, 1] into SR (N, channels, scale H, scale W).

        With ``each``, return the image after each recursion, too, which training compares with
        HR: (recursions, N, channels, scale H, scale W).
        """
        check_input(self, lr)
        bicubic = self.bicubic(lr)  # (N, channels, scale H, scale W)
        state = self.embedding(bicubic)  # (N, width, scale H, scale W)
        images = []
        for _ in range(len(self.average)):
            state = self.inference(state)
            images.append(self.reconstruction(state) + bicubic)
        weights = self.average / self.average.sum()
        sr = sum(weight * image for weight, image in zip(weights, images, strict=True))
        return (sr, torch.stack(images)) if each else sr
