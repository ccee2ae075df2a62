"""Figures: what is drawn is the data, in the place and the colours that it is meant to have."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from srgan_lib.errors import ImageError
from srgan_lib.figures import (
    MARK,
    PALETTE,
    comparison_panel,
    draw_image,
    error_maps,
    loss_curves,
    show_images,
    use_style,
)
from srgan_lib.training import History


@pytest.fixture(autouse=True)
def clean():
    with mpl.rc_context():
        yield
    plt.close("all")


def pictures(figure):
    """Return the images in a figure's axes, by their titles."""
    return {ax.get_title(): ax.images[0] for ax in figure.axes if ax.images and ax.get_title()}


def drawn(picture):
    return torch.from_numpy(np.asarray(picture.get_array()).copy())


def test_grey_image_is_drawn_as_it_is():
    image = torch.rand(1, 5, 7, requires_grad=True)
    ax = plt.figure().subplots()
    draw_image(ax, image, "title")
    picture = ax.images[0]
    assert torch.equal(drawn(picture), image[0].detach())
    assert picture.get_clim() == (0, 1) and picture.cmap.name == "gray"
    assert picture.get_interpolation() == "nearest"  # pixels are shown, not smoothed
    assert ax.get_title() == "title" and len(ax.get_xticks()) == len(ax.get_yticks()) == 0


def test_plain_matrix_and_other_range_are_drawn():
    ax = plt.figure().subplots()
    draw_image(ax, torch.rand(5, 7), value_range=(-1, 2))
    assert ax.images[0].get_clim() == (-1, 2)


def test_colour_image_is_drawn_channels_last_and_clamped():
    image = torch.rand(3, 5, 7) * 1.5 - 0.2
    ax = plt.figure().subplots()
    draw_image(ax, image)
    assert torch.equal(drawn(ax.images[0]), image.permute(1, 2, 0).clamp(0, 1))


@pytest.mark.parametrize("shape", [(1, 1, 5, 7), (5,)])
def test_what_is_no_image_is_not_drawn(shape):
    with pytest.raises(ImageError, match=r"\(C, H, W\) or \(H, W\)"):
        draw_image(plt.figure().subplots(), torch.zeros(shape))


@pytest.mark.parametrize(("count", "columns", "cells"), [(3, 4, 3), (5, 2, 6), (1, 4, 1)])
def test_images_are_drawn_in_a_grid_under_their_titles(count, columns, cells):
    images = {f"image {n}": torch.full((1, 4, 6), n / 9) for n in range(count)}
    figure = show_images(images, columns=columns)
    found = pictures(figure)
    assert list(found) == list(images)
    assert all(torch.equal(drawn(found[title]), image[0]) for title, image in images.items())
    assert len(figure.axes) == cells
    assert not any(ax.axison for ax in figure.axes[count:])


def test_comparison_shows_the_same_region_of_every_image():
    hr, lr = torch.rand(1, 32, 48), torch.rand(1, 8, 12)
    figure = comparison_panel({"LR": lr, "HR": hr}, (8, 16, 12))
    found = pictures(figure)
    assert list(found) == ["HR, whole", "LR", "HR"]
    assert torch.equal(drawn(found["HR, whole"]), hr[0])
    assert torch.equal(drawn(found["HR"]), hr[0, 8:20, 16:28])
    assert torch.equal(drawn(found["LR"]), lr[0, 2:5, 4:7])
    (mark,) = figure.axes[0].patches
    assert (mark.get_xy(), mark.get_width(), mark.get_height()) == ((16, 8), 12, 12)
    assert to_hex(mark.get_edgecolor()).upper() == MARK


def test_comparison_draws_the_image_asked_for_whole():
    images = {"a": torch.rand(1, 16, 16), "b": torch.rand(1, 16, 16)}
    found = pictures(comparison_panel(images, (0, 0, 16), whole="a"))
    assert torch.equal(drawn(found["a, whole"]), images["a"][0])


@pytest.mark.parametrize("region", [(-1, 0, 4), (0, -1, 4), (29, 0, 4), (0, 45, 4), (0, 0, 0)])
def test_region_that_leaves_the_image_is_refused(region):
    with pytest.raises(ImageError, match="leaves the image of 32 x 48 pixels"):
        comparison_panel({"HR": torch.zeros(1, 32, 48)}, region)


@pytest.mark.parametrize("region", [(28, 44, 4), (31, 47, 1), (0, 0, 1), (30, 46, 2)])
def test_small_region_at_the_edge_shows_at_least_a_pixel_of_lr(region):
    figure = comparison_panel({"LR": torch.rand(1, 8, 12), "HR": torch.rand(1, 32, 48)}, region)
    assert min(drawn(pictures(figure)["LR"]).shape) == 1


def test_error_maps_show_sr_minus_hr_on_one_scale_around_zero():
    hr = torch.rand(1, 6, 8)
    images = {"bright": hr + 0.05, "dark": hr - 0.05}
    figure = error_maps(images, hr, limit=0.2)
    found = pictures(figure)
    torch.testing.assert_close(drawn(found["bright"]), torch.full((6, 8), 0.05))
    torch.testing.assert_close(drawn(found["dark"]), torch.full((6, 8), -0.05))
    assert {picture.get_clim() for picture in found.values()} == {(-0.2, 0.2)}
    red, _, blue, _ = found["bright"].to_rgba(np.array([[0.2]]))[0, 0]
    assert red > blue  # too bright is red
    assert figure.axes[-1].get_ylabel() == "SR - HR (1 = whole range)"


def test_error_maps_average_colours_and_refuse_other_shapes():
    hr = torch.zeros(3, 6, 8)
    sr = torch.stack([torch.full((6, 8), x) for x in (0.03, 0.06, 0.0)])
    torch.testing.assert_close(
        drawn(pictures(error_maps({"x": sr}, hr))["x"]), torch.full((6, 8), 0.03)
    )
    with pytest.raises(ImageError, match=r"x is \(1, 6, 8\), but HR is \(3, 6, 8\)"):
        error_maps({"x": sr[:1]}, hr)


def test_loss_curves_draw_each_step():
    history = History({"content": [4.0, 2.0, 1.0], "total": [8.0, 4.0, 2.0]})
    (ax,) = loss_curves(history).axes
    assert [line.get_label() for line in ax.lines] == ["content", "total"]
    assert ax.lines[0].get_ydata().tolist() == [4, 2, 1]
    assert ax.lines[0].get_xdata().tolist() == [0.5, 1.5, 2.5]
    assert ax.get_yscale() == "log" and ax.get_xlabel() == "step" and ax.get_ylabel() == "loss"
    assert ax.lines[0].get_linestyle() != ax.lines[1].get_linestyle()  # not by colour alone


def test_loss_curves_are_smoothed_by_means_of_whole_groups():
    values = {"d_hr": [1.0, 3.0, 5.0, 7.0, 100.0], "other": [0.0] * 5}
    figure = loss_curves(values, ["d_hr"], smooth=2, logarithmic=False, ylabel="probability")
    (line,) = figure.axes[0].lines
    assert line.get_ydata().tolist() == [2, 6]
    assert line.get_xdata().tolist() == [1, 3]
    assert figure.axes[0].get_yscale() == "linear"
    assert figure.axes[0].get_ylabel() == "probability"


def test_style_is_dark_ink_on_an_opaque_light_card():
    use_style()
    face = mpl.colors.to_rgba(plt.rcParams["figure.facecolor"])
    assert min(face[:3]) > 0.95 and face[3] == 1
    assert plt.rcParams["savefig.facecolor"] == plt.rcParams["figure.facecolor"]
    assert plt.rcParams["axes.prop_cycle"].by_key()["color"] == list(PALETTE)
    assert plt.rcParams["image.interpolation"] == "nearest"


def luminance(colour):
    """Return WCAG 2's relative luminance of a colour."""
    values = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    """Return WCAG 2's contrast of two colours, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_figures_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    use_style()
    card = plt.rcParams["axes.facecolor"]
    assert plt.rcParams["figure.facecolor"] == card
    texts = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    used = [plt.rcParams["text.color"] if (c := plt.rcParams[k]) == "auto" else c for k in texts]
    assert min(contrast(colour, card) for colour in used) >= 4.5
    marks = [*PALETTE, plt.rcParams["axes.edgecolor"]]
    assert min(contrast(colour, card) for colour in marks) >= 3


# Machado et al. (2009): how colours look without the cones for green, and for red.
COLOUR_BLIND = {
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
}


def lab(linear):
    """Return a linear RGB colour's place in CIE L*a*b*."""
    xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x = np.array(xyz) @ np.clip(linear, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eyes", COLOUR_BLIND)
def test_a_colour_blind_reader_can_tell_the_colours_apart(eyes):
    srgb = [np.array(mpl.colors.to_rgb(colour)) for colour in PALETTE]
    linear = [np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in srgb]
    seen = [lab(np.array(COLOUR_BLIND[eyes]) @ colour) for colour in linear]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 12


def test_every_figure_can_be_saved(tmp_path):
    use_style()
    image = torch.rand(1, 16, 16)
    figures = [
        show_images({"a": image, "b": image}),
        comparison_panel({"a": image, "b": image}, (2, 2, 8)),
        error_maps({"a": image}, image),
        loss_curves({"a": [1.0, 0.5]}),
    ]
    for number, figure in enumerate(figures):
        figure.savefig(tmp_path / f"{number}.png")
        assert plt.imread(tmp_path / f"{number}.png")[..., :3].std() > 0.01
    assert len({figure.number for figure in figures}) == len(figures)
