"""Synthetic findings: of the stated size, contrast and place, and found by their detector."""

import math
from dataclasses import replace

import pytest
import torch

from srgan_lib.degradation import quantise
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.findings import FATES, KINDS, LENGTH, Finding, draw, fate, implant, match, remove

SIZE = (120, 128)
EACH = pytest.mark.parametrize("kind", KINDS)


def finding(kind, **changes):
    return Finding(
        **{"kind": kind, "size": 8.0, "contrast": 0.1, "row": 60.5, "column": 64.5} | changes
    )


def background():
    """Return an 8-bit image with grain, slopes and an edge, away from black and white."""
    y, x = torch.meshgrid(
        torch.linspace(0, 1, SIZE[0]), torch.linspace(0, 1, SIZE[1]), indexing="ij"
    )
    grain = 0.02 * torch.randn(SIZE, generator=torch.Generator().manual_seed(3))
    return quantise(0.3 + 0.2 * y + 0.1 * x + 0.1 * (x + y > 1.6) + grain)[None]


# Drawing


@EACH
@pytest.mark.parametrize("contrast", [0.1, -0.05])
def test_pattern_is_linear_in_the_contrast(kind, contrast):
    one, mask = draw(finding(kind, contrast=1.0), SIZE)
    found, same = draw(finding(kind, contrast=contrast), SIZE)
    torch.testing.assert_close(found, contrast * one)
    assert torch.equal(mask, same)
    assert found.shape == mask.shape == (1, *SIZE) and mask.dtype == torch.bool


@pytest.mark.parametrize("kind", ["nodule", "line"])
def test_contrast_is_reached_in_the_middle(kind):
    pattern, _ = draw(finding(kind), SIZE)
    assert pattern.max() == pattern[0, 60, 64] == pytest.approx(0.1)


def test_no_pattern_exceeds_its_contrast_or_falls_far_short_of_it():
    for kind in KINDS:
        for size in (4, 8, 12):
            pattern, _ = draw(finding(kind, size=size), SIZE)
            assert 0.07 < pattern.abs().max() <= 0.1 + 1e-6, (kind, size)


@pytest.mark.parametrize("size", [6.0, 10.0, 20.0])
def test_nodule_covers_a_disc_of_its_diameter(size):
    _, mask = draw(finding("nodule", size=size), SIZE)
    assert int(mask.sum()) == pytest.approx(math.pi * size**2 / 4, rel=0.08)


@pytest.mark.parametrize("kind", ["line", "catheter"])
@pytest.mark.parametrize("angle", [0.0, math.pi / 2])
def test_long_findings_have_their_width_and_length(kind, angle):
    pattern, _ = draw(finding(kind, size=6.0, angle=angle), SIZE)
    rows, columns = ((pattern[0] > 0.01).any(dim=i).sum() for i in (1, 0))
    across, along = (rows, columns) if angle == 0 else (columns, rows)
    assert abs(int(along) - LENGTH) <= 8
    assert int(across) <= 12
    profile = pattern[0, :, 64] if angle == 0 else pattern[0, 60]
    if kind == "line":
        assert int((profile > 0.049).sum()) == 7  # at half its height
    else:  # two walls, and less between them
        assert profile[60 if angle == 0 else 64] < 0.7 * profile.max()
        assert int((profile > 1e-3).sum()) in (5, 6, 7)


def test_angle_runs_from_the_rows_downwards():
    pattern, _ = draw(finding("line", size=2.0, angle=math.pi / 4), SIZE)
    assert pattern[0, 70, 74] > 0.09 and pattern[0, 50, 74] < 1e-6


@pytest.mark.parametrize("size", [4.0, 8.0, 16.0])
def test_net_has_its_period(size):
    pattern, _ = draw(finding("texture", size=size), SIZE)
    power = torch.fft.fft2(pattern[0]).abs().square()
    rows, columns = (torch.fft.fftfreq(n) for n in SIZE)
    radius = torch.hypot(rows[:, None], columns)
    assert float((power * radius).sum() / power.sum()) == pytest.approx(1 / size, rel=0.2)


def test_net_moves_with_its_place_and_changes_with_its_seed():
    one, _ = draw(finding("texture"), SIZE)
    moved, _ = draw(finding("texture", row=64.5, column=60.5), SIZE)
    torch.testing.assert_close(one.roll((4, -4), (1, 2)), moved)
    other, _ = draw(finding("texture", seed=1), SIZE)
    assert (one * other).sum().abs() < 0.3 * one.square().sum()


@EACH
def test_finding_may_lie_partly_outside_when_it_is_drawn(kind):
    whole, _ = draw(finding(kind, row=10.5, column=20.5), SIZE)
    cut, _ = draw(finding(kind, row=2.5, column=20.5), SIZE)
    torch.testing.assert_close(cut[:, :90], whole[:, 8:98])
    draw(finding(kind, row=-500.0, column=900.0), SIZE)


# Putting in and taking out


@EACH
def test_what_is_put_in_can_be_taken_out_to_the_bit(kind):
    image = background()
    changed, mask = implant(image, finding(kind))
    assert (changed - image).abs()[mask].mean() > 0.01
    assert torch.equal(remove(changed, finding(kind)), image)


def test_implant_adds_the_pattern_to_every_channel():
    image = background().repeat(3, 1, 1)
    changed, _ = implant(image, finding("nodule"))
    assert torch.equal(changed[0], changed[2])
    torch.testing.assert_close(changed - image, draw(finding("nodule"), SIZE)[0].repeat(3, 1, 1))


def test_finding_that_would_be_cut_off_is_refused():
    with pytest.raises(
        ImageError, match=r"nodule of contrast 0\.1 at row 60\.5, .* leaves \[0, 1\]"
    ):
        implant(torch.full((1, *SIZE), 0.95), finding("nodule"))
    with pytest.raises(ImageError, match="leaves"):
        implant(torch.full((1, *SIZE), 0.05), finding("nodule", contrast=-0.1))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "nodul"}, "Unknown kind of finding 'nodul'. Did you mean 'nodule'"),
        ({"size": 0}, "size must be above 0"),
        ({"size": LENGTH + 1}, "size must be above 0 and at most"),
        ({"contrast": 0}, "contrast must be"),
        ({"contrast": 1.5}, "contrast must be"),
        ({"contrast": math.nan}, "contrast must be"),
        ({"row": math.inf}, "must be finite"),
    ],
)
def test_impossible_findings_are_refused(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        finding(**{"kind": "nodule"} | changes)


# Finding


@EACH
@pytest.mark.parametrize("contrast", [0.1, -0.05])
def test_detector_reads_the_contrast_whatever_the_plane_behind(kind, contrast):
    wanted = finding(kind, contrast=contrast, angle=0.4)
    y, x = torch.meshgrid(
        torch.linspace(0, 1, SIZE[0]), torch.linspace(0, 1, SIZE[1]), indexing="ij"
    )
    changed, _ = implant((0.3 + 0.2 * y - 0.1 * x)[None], wanted)
    fits = match(changed, wanted)
    assert fits.shape == (13, 13)
    assert fits[6, 6] == pytest.approx(abs(contrast), abs=5e-4)
    assert fate(fits, wanted, 0.5 * abs(contrast)) == "survives"


@EACH
def test_detector_is_linear(kind):
    wanted, image = finding(kind, angle=1.0), background()
    changed, _ = implant(image, wanted)
    difference = match(changed, wanted) - match(image, wanted)
    torch.testing.assert_close(difference, match(changed - image, wanted), atol=1e-5, rtol=1e-4)
    assert difference[6, 6] == pytest.approx(0.1, abs=5e-4)


@EACH
@pytest.mark.parametrize(("down", "right"), [(5, -5), (1, 1), (0, 0)])
def test_detector_says_what_became_of_a_finding(kind, down, right):
    wanted = finding(kind, size=6.0, angle=math.pi / 4)  # the move is across the line
    there = replace(wanted, row=wanted.row + down, column=wanted.column + right)
    fits = match(implant(torch.full((1, *SIZE), 0.5), there)[0], wanted)
    assert fate(fits, wanted, 0.08) == ("moves" if down == 5 else "survives")
    assert fate(fits, wanted, 0.12) == "fades"
    assert {"moves", "survives", "fades"} == set(FATES)


@pytest.mark.parametrize("kind", ["line", "catheter"])
def test_line_that_slides_along_itself_has_not_moved(kind):
    wanted = finding(kind, size=4.0, angle=math.pi / 4)
    there = replace(wanted, row=wanted.row + 5, column=wanted.column + 5)
    fits = match(implant(torch.full((1, *SIZE), 0.5), there)[0], wanted)
    assert fate(fits, wanted, 0.05) == "survives"


def test_flat_image_holds_no_finding():
    for kind in KINDS:
        assert match(torch.full((1, *SIZE), 0.7), finding(kind)).abs().max() < 1e-4


def test_place_too_near_to_the_border_is_refused():
    with pytest.raises(ImageError, match="too near to the border: 18 pixels"):
        match(background(), finding("nodule", row=17.5))
    match(background(), finding("nodule", row=18.5))
    with pytest.raises(ImageError, match="too near"):
        match(background(), finding("line", column=128 - 37.5))
    match(background(), finding("line", column=128 - 38.5))
