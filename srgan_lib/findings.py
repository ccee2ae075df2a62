"""Synthetic findings: shapes of known size, contrast and place, put into real radiographs.

What a network does to a small structure can only be judged where the truth is known, and nobody
knows the truth of a radiograph. So a structure is drawn into it. A finding is added, pixel by
pixel, before anything is degraded: an image with it and the same image without it then differ by
nothing else.

The shapes are simple on purpose. They are no substitute for findings in patients.

A detector that knows the shape looks for it: it fits the gradient of the shape to that of the
image, at each place near the true one (:func:`match`), and the best fit is what it reports. No
reader is as well informed, but readers see more than one shape.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_lib.degradation import quantise
from srgan_lib.errors import ConfigurationError, ImageError, unknown_name

KINDS = ("nodule", "line", "catheter", "texture")
"""The kinds of finding."""

LENGTH = 48.0
"""Length of lines and catheters and diameter of patches of texture, in HR pixels."""

REACH = 6
"""How far from its place a finding is looked for, in HR pixels in each direction."""

TOLERANCE = 2
"""How far from its place a finding may be found and still count as there, in HR pixels: half an LR
pixel at a scale of 4."""

FATES = ("survives", "moves", "fades")
"""What can become of a finding: found in its place, found beside it, not found."""


@dataclass(frozen=True)
class Finding:
    """A synthetic finding.

    Attributes:
        kind: ``"nodule"``, a disc with a soft rim; ``"line"``, thin and straight, as the edge of
            a pneumothorax; ``"catheter"``, a tube, brighter along its two walls; ``"texture"``, a
            round patch of an irregular net, as of a reticular pattern.
        size: in HR pixels: a nodule's diameter, a line's width at half its height, a catheter's
            outer diameter, the period of a net.
        contrast: the largest value that is added, as a fraction of the image's full range;
            negative for a dark finding.
        row: of the centre, in HR pixels from the top; pixel i has its centre at i + 1/2.
        column: of the centre, in HR pixels from the left.
        angle: direction of a line or a catheter against the rows, in radians.
        seed: of the net's randomness.

    Raises:
        ConfigurationError: an unknown kind, or a size or contrast that is impossible.
    """

    kind: str
    size: float
    contrast: float
    row: float
    column: float
    angle: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("kind of finding", self.kind, KINDS)
        if not 0 < self.size <= LENGTH:
            raise ConfigurationError(f"size must be above 0 and at most {LENGTH}, not {self.size}.")
        if not 0 < abs(self.contrast) <= 1:
            raise ConfigurationError(f"contrast must be from -1 to 1, not 0: {self.contrast}.")
        if not all(map(math.isfinite, (self.row, self.column, self.angle))):
            raise ConfigurationError("A finding's place and angle must be finite.")

    @property
    def is_long(self) -> bool:
        """Whether it is drawn along a direction, so that its place across it is what counts."""
        return self.kind in ("line", "catheter")


def draw(finding: Finding, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return what a finding adds to an image, and where.

    Args:
        finding: what to draw; it need not lie wholly inside.
        size: height and width of the image, in HR pixels.

    Returns:
        The pattern, a float tensor (1, H, W) whose largest value is the contrast where the
        centre of the shape lies on a pixel; and the mask, bool (1, H, W): where the shape has at
        least half of its height, for a net where its patch has.
    """
    rows, columns = (torch.arange(n, dtype=torch.float64) + 0.5 for n in size)
    y, x = rows[:, None] - finding.row, columns[None, :] - finding.column
    if finding.kind == "nodule":
        shape = _step(finding.size / 2 - torch.hypot(y, x))
        shape = shape / _step(torch.tensor(finding.size / 2, dtype=torch.float64))
        mask = shape
    elif finding.kind == "texture":
        mask = _step((LENGTH / 2 - torch.hypot(y, x)) / 3)
        shape = mask * _net(finding, size)
    else:
        along = x * math.cos(finding.angle) + y * math.sin(finding.angle)
        across = y * math.cos(finding.angle) - x * math.sin(finding.angle)
        profile = _line if finding.kind == "line" else _tube
        shape = mask = profile(across, finding.size) * _step((LENGTH / 2 - along.abs()) / 3)
    return (finding.contrast * shape).float()[None], (mask >= 0.5)[None]


def implant(image: Tensor, finding: Finding) -> tuple[Tensor, Tensor]:
    """Put a finding into an image.

    Args:
        image: float tensor (C, H, W) in [0, 1].
        finding: what to put in, and where.

    Returns:
        The image with the finding, the same shape, in [0, 1]; and the mask of :func:`draw`.

    Raises:
        ImageError: the sum would leave [0, 1], so that the finding would be cut off.
    """
    pattern, mask = draw(finding, (image.shape[-2], image.shape[-1]))
    changed = image + pattern.to(image)
    if changed.min() < 0 or changed.max() > 1:
        raise ImageError(
            f"A {finding.kind} of contrast {finding.contrast} at row {finding.row:g}, column "
            f"{finding.column:g} leaves [0, 1]: choose a weaker one or another place."
        )
    return changed, mask


def remove(image: Tensor, finding: Finding, bits: int = 8) -> Tensor:
    """Take out what :func:`implant` put in.

    Args:
        image: an image that :func:`implant` returned, unrounded.
        finding: what was put in.
        bits: bit depth of the image before.

    Returns:
        The image before, to the bit if it was one of that bit depth.
    """
    pattern, _ = draw(finding, (image.shape[-2], image.shape[-1]))
    return quantise(image - pattern.to(image), bits)


def match(image: Tensor, finding: Finding, reach: int = REACH) -> Tensor:
    """Fit a finding's contrast at its place and at all places around it.

    The gradient of the image is fitted by that of the shape, by least squares. A radiograph's
    amplitudes fall as one over the frequency; its gradient's hardly do, which makes this the
    matched filter for it: slow changes of brightness don't count. It is linear in the image.

    Args:
        image: float tensor (1, H, W), or several of them, (N, 1, H, W).
        finding: what to look for and where; its contrast gives only the sign.
        reach: the largest offset in rows and columns, in HR pixels.

    Returns:
        Float tensor (2 reach + 1, 2 reach + 1), or N of them: the contrast at each offset as a
        fraction of full range, positive for a shape like the finding's; the middle is its own
        place.

    Raises:
        ImageError: the windows leave the image.
    """
    extent = finding.size if finding.kind == "nodule" else LENGTH
    half = math.ceil(extent / 2) + 8
    top, left = (math.floor(centre) - half for centre in (finding.row, finding.column))
    side = 2 * half + 1
    inside = (
        min(top, left) >= reach
        and max(top - image.shape[-2], left - image.shape[-1]) <= -side - reach
    )
    if not inside:
        raise ImageError(
            f"A {finding.kind} at row {finding.row:g}, column {finding.column:g} lies too near to "
            f"the border: {half + reach} pixels on each side are needed."
        )
    sign = math.copysign(1.0, finding.contrast)
    moved = replace(finding, contrast=sign, row=finding.row - top, column=finding.column - left)
    shape = F.pad(draw(moved, (side, side))[0][0].double(), (1, 1, 1, 1))
    down, right = shape.diff(dim=0)[:, 1:-1], shape.diff(dim=1)[1:-1]
    # <gradient of shape, gradient of image> is <filter, image>, with the gradient's adjoint.
    weights = -down.diff(dim=0) - right.diff(dim=1)  # (side, side)
    weights = weights - weights.mean()  # what little of the shape the window cuts off
    weights = weights / (weights * shape[1:-1, 1:-1]).sum()
    rows, columns = (slice(start - reach, start + side + reach) for start in (top, left))
    around = image[..., :1, rows, columns].double()
    return F.conv2d(around, weights[None, None]).squeeze(-3).float()


def fate(contrasts: Tensor, finding: Finding, threshold: float) -> str:
    """Say what became of a finding.

    Args:
        contrasts: what :func:`match` returned.
        finding: what was looked for.
        threshold: the least contrast, at the best place, that counts as found.

    Returns:
        One of :data:`FATES`. A line or catheter moves only across its direction: along it, one
        place looks like the next.
    """
    if contrasts.max() < threshold:
        return "fades"
    best, side = int(contrasts.argmax()), contrasts.shape[-1]
    down, right = best // side - side // 2, best % side - side // 2
    distance = math.hypot(down, right)
    if finding.is_long:
        distance = abs(down * math.cos(finding.angle) - right * math.sin(finding.angle))
    return "survives" if distance <= TOLERANCE else "moves"


def _step(distance: Tensor) -> Tensor:
    """Return a soft step from 0 to 1, about two pixels wide, at a distance of 0."""
    return torch.sigmoid(2 * distance)


def _line(across: Tensor, size: float) -> Tensor:
    return torch.exp(-4 * math.log(2) * (across / size).square())  # a width at half its height


def _tube(across: Tensor, size: float) -> Tensor:
    """Return the thickness of a wall that a ray meets, for a tube with a bore of half its width."""

    def chord(diameter: float) -> Tensor:
        return (1 - (2 * across / diameter).square()).clamp(min=0).sqrt() * diameter / size

    thickness = chord(size) - chord(size / 2)
    return thickness / math.sqrt(0.75)  # its largest value, at the bore's edge


def _net(finding: Finding, size: tuple[int, int]) -> Tensor:
    """Return noise of one period around the finding, from -1 to 1, and 0 elsewhere.

    Noise is drawn for the patch alone, so that the net is the same whatever the image's size.
    """
    side = int(LENGTH) + 16
    noise = torch.randn(
        side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(finding.seed)
    )
    frequency = torch.fft.fftfreq(side, dtype=torch.float64)
    radius = torch.hypot(frequency[:, None], frequency[None, :]) * finding.size  # 1: one period
    net = torch.fft.ifft2(torch.fft.fft2(noise) * torch.exp(-8 * (radius - 1).square())).real
    net = net / net[8:-8, 8:-8].abs().max()
    placed = torch.zeros(size, dtype=torch.float64)
    top, left = (math.floor(centre) - side // 2 for centre in (finding.row, finding.column))
    rows = slice(max(top, 0), max(min(top + side, size[0]), 0))
    columns = slice(max(left, 0), max(min(left + side, size[1]), 0))
    placed[rows, columns] = net[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    return placed
