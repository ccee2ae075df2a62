"""Errors: one base class, and a hint at the nearest known name."""

import pytest

from srgan_lib import errors


@pytest.mark.parametrize(
    "kind",
    [errors.ImageError, errors.DatasetError, errors.WeightsError, errors.ConfigurationError],
)
def test_each_error_can_be_caught_as_the_library_s_own_and_as_a_value_error(kind):
    assert issubclass(kind, errors.SRGANError)
    assert issubclass(kind, ValueError)


def test_unknown_name_suggests_the_nearest_and_lists_all():
    error = errors.unknown_name("kernel", "bicubik", iter(("bilinear", "bicubic", "lanczos")))
    assert isinstance(error, errors.ConfigurationError)
    assert str(error) == (
        "Unknown kernel 'bicubik'. Did you mean 'bicubic'? Known: bilinear, bicubic, lanczos."
    )


def test_unknown_name_makes_no_far_fetched_suggestion():
    text = str(errors.unknown_name("kernel", "xyz", ("bilinear", "bicubic")))
    assert "Did you mean" not in text
    assert text.endswith("Known: bilinear, bicubic.")
