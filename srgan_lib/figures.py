"""Figures: images side by side with a zoomed region, error maps, loss curves.

All draw dark ink on an opaque light card, which reads alike on a light and on a dark page, in
colours that a colour-blind reader can tell apart (after Okabe and Ito's palette, its light colours
darkened; and line styles).
Every function makes a new figure and returns it.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from srgan_lib.errors import ImageError

if TYPE_CHECKING:
    from srgan_lib.training import History

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#C2649A", "#7A5200", "#41208A", "#000000")
"""Colours of lines and marks, in their order of use; each has a contrast of 3:1 with the card."""

MARK = "#E69F00"
"""Colour of a mark on an image; a black edge sets it off from bright pixels."""

_STYLES = ("-", "--", "-.", ":")


def use_style() -> None:
    """Set matplotlib's defaults to the look of this course."""
    plt.rcParams.update(
        {
            "figure.facecolor": "#fbfbf9",
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "savefig.facecolor": "#fbfbf9",
            "axes.facecolor": "#fbfbf9",
            "axes.edgecolor": "#444444",
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.prop_cycle": plt.cycler(color=PALETTE),
            "grid.color": "#dddddd",
            "grid.linewidth": 0.6,
            "font.size": 11,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "image.cmap": "gray",
            "image.interpolation": "nearest",
        }
    )


def draw_image(
    axes: Axes, image: Tensor, title: str = "", value_range: tuple[float, float] = (0, 1)
) -> None:
    """Draw one image into existing axes, without ticks.

    Args:
        axes: where to draw.
        image: tensor (C, H, W) or (H, W); grey, or RGB in [0, 1].
        title: text above it.
        value_range: the values of a grey image that are drawn black and white.
    """
    x = image.detach().cpu().float()
    if x.ndim == 3:
        x = x[0] if x.shape[0] == 1 else x.permute(1, 2, 0).clamp(0, 1)
    if x.ndim not in (2, 3):
        raise ImageError(f"An image to draw is (C, H, W) or (H, W), not {tuple(image.shape)}.")
    low, high = value_range
    axes.imshow(x.numpy(), cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def show_images(
    images: Mapping[str, Tensor],
    *,
    columns: int = 4,
    size: float = 2.4,
    value_range: tuple[float, float] = (0, 1),
) -> Figure:
    """Draw images in a grid, each under its title.

    Args:
        images: tensors (C, H, W) or (H, W) by their titles.
        columns: images in a row.
        size: width of each, in inches.
        value_range: the values that are drawn black and white.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    tallest = max(image.shape[-2] / image.shape[-1] for image in images.values())
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size, rows * (size * tallest + 0.3)), squeeze=False
    )
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    for ax, (title, image) in zip(axes.flat, images.items(), strict=False):
        draw_image(ax, image, title, value_range)
    return figure


def comparison_panel(
    images: Mapping[str, Tensor],
    region: tuple[int, int, int],
    *,
    whole: str | None = None,
    columns: int = 3,
    size: float = 2.2,
) -> Figure:
    """Draw one whole image with a marked region, and the region enlarged for every image.

    An image of lower resolution is fine: its region is scaled along, and its pixels show.

    Args:
        images: tensors (C, H, W) by their titles, all of the same scene.
        region: top, left and side of a square, in pixels of the whole image.
        whole: title of the image that is drawn whole; the last by default.
        columns: enlarged regions in a row.
        size: width of an enlarged region, in inches.

    Raises:
        ImageError: a region that leaves the image.
    """
    whole = whole if whole is not None else list(images)[-1]
    height, width = images[whole].shape[-2:]
    top, left, side = region
    if min(top, left) < 0 or side < 1 or top + side > height or left + side > width:
        raise ImageError(f"The region {region} leaves the image of {height} x {width} pixels.")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    full = rows * (size + 0.3)
    figure = plt.figure(figsize=(full * width / height + columns * size + 0.2, full))
    left_part, right_part = figure.subfigures(
        1, 2, width_ratios=[full * width / height, columns * size]
    )
    ax = left_part.subplots()
    draw_image(ax, images[whole], f"{whole}, whole")
    frame = Rectangle((left, top), side, side, fill=False, color=MARK, linewidth=2)
    frame.set_path_effects([withStroke(linewidth=4, foreground="black")])
    ax.add_patch(frame)
    axes = right_part.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(images) :]:
        ax.axis("off")
    for ax, (title, image) in zip(axes.flat, images.items(), strict=False):
        factor = image.shape[-2] / height
        y, x, n = (round(value * factor) for value in region)
        n = max(n, 1)  # at least one pixel, and inside
        y, x = min(y, image.shape[-2] - n), min(x, image.shape[-1] - n)
        draw_image(ax, image[..., y : y + n, x : x + n], title)
    return figure


def error_maps(
    images: Mapping[str, Tensor], hr: Tensor, *, limit: float = 0.1, size: float = 2.8
) -> Figure:
    """Draw SR - HR for several images with one colour scale: blue too dark, red too bright.

    Args:
        images: SR tensors (C, H, W) by their titles.
        hr: the HR image, the same shape.
        limit: the error, as a fraction of the whole range, that is drawn in full colour.
        size: width of each map, in inches.

    Raises:
        ImageError: shapes that differ.
    """
    height, width = hr.shape[-2:]
    figure, axes = plt.subplots(
        1,
        len(images),
        figsize=(len(images) * size + 0.8, size * height / width + 0.4),
        squeeze=False,
    )
    for ax, (title, sr) in zip(axes.flat, images.items(), strict=True):
        if sr.shape != hr.shape:
            raise ImageError(f"{title} is {tuple(sr.shape)}, but HR is {tuple(hr.shape)}.")
        error = (sr - hr).detach().cpu().float().mean(dim=0)
        picture = ax.imshow(
            error.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
        )
        ax.set_title(title)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
    figure.colorbar(picture, ax=axes, label="SR - HR (1 = whole range)", shrink=0.9)
    return figure


def loss_curves(
    history: "History | Mapping[str, Sequence[float]]",
    names: Sequence[str] | None = None,
    *,
    smooth: int = 1,
    logarithmic: bool = True,
    ylabel: str = "loss",
) -> Figure:
    """Draw losses over the steps of a training run.

    Args:
        history: what a training function returned, or values by name.
        names: which ones; all by default.
        smooth: draw the mean of this many steps instead of each.
        logarithmic: draw losses on a logarithmic axis.
        ylabel: label of the vertical axis.
    """
    losses = history if isinstance(history, Mapping) else history.losses
    figure, ax = plt.subplots(figsize=(6.4, 3.2))
    for name, style in zip(names or list(losses), cycle(_STYLES), strict=False):
        values = losses[name]
        means = [
            sum(values[i : i + smooth]) / smooth for i in range(0, len(values) - smooth + 1, smooth)
        ]
        steps = [smooth * (i + 0.5) for i in range(len(means))]
        ax.plot(steps, means, style, label=name)
    ax.set_xlabel("step")
    ax.set_ylabel(ylabel)
    if logarithmic:
        ax.set_yscale("log")
    ax.legend()
    return figure
