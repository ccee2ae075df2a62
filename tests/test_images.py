"""Reading and writing images, against Pillow, tifffile, pydicom and files made byte by byte."""

import errno
import io
import os
import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import PIL.Image
import pydicom
import pytest
import tifffile
import torch
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from srgan_lib import images
from srgan_lib.errors import ImageError, SRGANError
from srgan_lib.images import (
    Pixels,
    read_image,
    read_pixels,
    to_channels,
    to_pixels,
    write_image,
    write_pixels,
)

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (13, 17), dtype=np.uint8)
RGB8 = RNG.integers(0, 256, (13, 17, 3), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (13, 17), dtype=np.uint16)
RGB16 = RNG.integers(0, 65536, (13, 17, 3), dtype=np.uint16)
SMOOTH = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 4


def chw(array):
    """Bring (H, W) or (H, W, C) into the library's order, as int64 to compare any type."""
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(array.astype(np.int64))


def with_pillow(image, format, **options):
    buffer = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(image)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def with_tifffile(array, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows=b"", extra=b""):
    """Write a PNG by hand: ``rows`` holds, for each row, a filter byte and the values."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + extra
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


@pytest.fixture
def decode(tmp_path):
    """Return a function that writes bytes to a file without a telling name, and reads it."""

    def call(data):
        path = tmp_path / "image"
        path.write_bytes(data)
        return read_pixels(path)

    return call


def assert_holds(pixels, array, bits):
    assert pixels.bits == bits
    assert pixels.values.dtype == (torch.uint8 if bits == 8 else torch.uint16)
    expected = chw(np.asarray(array))
    assert pixels.values.shape == expected.shape
    assert torch.equal(pixels.values.long(), expected)


# Round trips


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize(
    ("array", "bits"),
    [(GREY8, 8), (RGB8, 8), (GREY16, 16), (RGB16, 16)],
    ids=["grey", "RGB", "grey of 16 bits", "RGB of 16 bits"],
)
def test_png_and_tiff_hold_every_value_exactly(tmp_path, suffix, array, bits):
    path = tmp_path / f"image{suffix}"
    image = (chw(array).double() / (2**bits - 1)).float()
    write_image(path, image, bits)
    assert_holds(read_pixels(path), array, bits)
    assert torch.equal(read_image(path), Pixels(chw(array), bits).to_float())
    outside = (
        tifffile.imread(path) if suffix != ".png" else imagecodecs.png_decode(path.read_bytes())
    )
    assert np.array_equal(outside, array)  # other programs read the same values


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_comment_is_kept_beside_the_same_pixels(tmp_path, suffix, channels):
    values = torch.arange(channels * 256, dtype=torch.int32).remainder(256).to(torch.uint8)
    pixels = Pixels(values.view(channels, 16, 16), 8)
    plain, marked = tmp_path / f"plain.{suffix}", tmp_path / f"marked.{suffix}"
    write_pixels(plain, pixels)
    write_pixels(marked, pixels, "made by naïve hands")
    assert torch.equal(read_pixels(plain).values, read_pixels(marked).values)
    with PIL.Image.open(plain) as image:
        assert "Comment" not in image.info and not image.info.get("comment")
    with PIL.Image.open(marked) as image:
        image.load()  # checks each chunk's checksum
        names = {"png": "Comment", "jpg": "comment"}
        text = image.tag_v2[270] if suffix == "tif" else image.info[names[suffix]]
    text = text if isinstance(text, str) else text.decode()
    assert text == "made by na?ve hands"


def test_all_levels_survive_a_round_trip_through_float():
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        every = np.arange(2**bits, dtype=dtype).reshape(1, -1)
        pixels = Pixels(torch.from_numpy(every[None]), bits)
        assert torch.equal(to_pixels(pixels.to_float(), bits).values, pixels.values)


@pytest.mark.parametrize("array", [SMOOTH, np.stack([SMOOTH, SMOOTH[::-1], SMOOTH.T], -1)])
def test_jpeg_is_close_and_keeps_its_channels(tmp_path, array):
    write_image(tmp_path / "image.jpg", chw(array).float() / 255)
    found = read_pixels(tmp_path / "image.jpg")
    assert found.values.shape == chw(array).shape
    assert (found.values.long() - chw(array)).abs().max() <= 12
    with PIL.Image.open(tmp_path / "image.jpg") as image:
        assert image.format == "JPEG"


def test_reading_agrees_with_pillow_on_its_own_files(decode):
    assert_holds(decode(with_pillow(GREY8, "PNG")), GREY8, 8)
    assert_holds(decode(with_pillow(RGB8, "PNG")), RGB8, 8)
    assert_holds(decode(with_pillow(GREY16, "PNG")), GREY16, 16)
    assert_holds(decode(with_pillow(RGB8, "TIFF", compression="tiff_lzw")), RGB8, 8)
    jpeg = with_pillow(RGB8, "JPEG")
    assert_holds(decode(jpeg), np.asarray(PIL.Image.open(io.BytesIO(jpeg))), 8)


def test_float_image_goes_from_0_to_1(decode):
    image = decode(with_pillow(np.array([[0, 51, 255]], np.uint8), "PNG")).to_float()
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, torch.tensor([[[0, 0.2, 1]]]))


# PNG and JPEG: palette, alpha, low bit depths


def test_palette_becomes_grey_where_all_its_colours_are_grey(decode):
    image = PIL.Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([0, 0, 0, 90, 90, 90, 255, 255, 255])
    assert_holds(decode(with_pillow(image, "PNG")), [[0, 90, 255]], 8)


def test_palette_with_colours_becomes_rgb(decode):
    image = PIL.Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([0, 0, 0, 90, 91, 92])
    assert_holds(decode(with_pillow(image, "PNG")), [[[0, 0, 0], [90, 91, 92]]], 8)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colours", [1, 3])
def test_opaque_alpha_is_dropped_and_translucent_pixels_are_laid_over_black(decode, bits, colours):
    top, dtype = 2**bits - 1, (np.uint8 if bits == 8 else np.uint16)
    array = np.full((1, 3, colours + 1), 200, dtype)
    array[0, :, -1] = (top, 0, round(top * 0.4))  # 0.4 of 255 and of 65535 is whole
    data = imagecodecs.png_encode(array)
    expected = np.stack([np.array([[200, 0, 80]])] * colours, axis=-1)
    assert_holds(decode(data), expected[..., 0] if colours == 1 else expected, bits)


@pytest.mark.parametrize(
    ("depth", "row", "transparent"),
    [(8, bytes([9, 200]), 200), (16, struct.pack(">HH", 9, 2000), 2000)],
)
def test_png_s_transparent_value_becomes_black(decode, depth, row, transparent):
    extra = png_chunk(b"tRNS", struct.pack(">H", transparent))
    assert_holds(decode(png(2, 1, depth, 0, b"\0" + row, extra)), [[9, 0]], depth)


@pytest.mark.parametrize(
    ("depth", "byte", "values"),
    [
        (1, 0b10110000, [255, 0, 255, 255, 0, 0, 0, 0]),
        (2, 0b00011011, [0, 85, 170, 255]),
        (4, 0x1F, [17, 255]),
    ],
)
def test_png_of_few_bits_is_stretched_to_8(decode, depth, byte, values):
    data = png(len(values), 1, depth, 0, bytes([0, byte]))
    assert_holds(decode(data), [values], 8)


def test_cmyk_jpeg_becomes_rgb(decode):
    ink = PIL.Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    values = decode(with_pillow(ink, "JPEG", quality=100)).values.long()
    assert values.shape == (3, 16, 16)
    assert (values - torch.tensor([255, 0, 0]).view(3, 1, 1)).abs().max() <= 3


def test_exif_rotation_is_applied(decode):
    image = PIL.Image.fromarray(np.repeat(SMOOTH[:, :16], 3, 0)[:48])
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    turned = decode(with_pillow(image, "JPEG", exif=exif)).values
    plain = decode(with_pillow(image, "JPEG")).values
    assert turned.shape == (1, 16, 48)
    assert torch.equal(turned, plain.rot90(-1, (1, 2)))


@pytest.mark.parametrize("format", ["PNG", "MPO", "TIFF"])
def test_several_frames_or_pages_are_refused(decode, format):
    frames = [PIL.Image.new("L", (8, 8), value) for value in (10, 200)]
    data = with_pillow(frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=r"it has 2 (frames|pages); save the one you want alone"):
        decode(data)


# TIFF


@pytest.mark.parametrize(
    ("array", "bits", "expected"),
    [
        (np.array([[0, 100, 255]], np.uint8), 8, [[255, 155, 0]]),
        (np.array([[0, 100, 65535]], np.uint16), 16, [[65535, 65435, 0]]),
        (np.array([[True, False]]), 8, [[0, 255]]),
    ],
)
def test_white_is_zero_tiff_becomes_black_is_zero(decode, array, bits, expected):
    assert_holds(decode(with_tifffile(array, photometric="miniswhite")), expected, bits)


def test_one_bit_tiff_becomes_black_and_white(decode):
    data = with_tifffile(np.array([[True, False]]), photometric="minisblack")
    assert_holds(decode(data), [[255, 0]], 8)


@pytest.mark.parametrize(
    ("stored", "dtype", "bits", "value", "expected"),
    [(4, np.uint8, 8, 5, 85), (12, np.uint16, 16, 4095, 65535), (12, np.uint16, 16, 819, 13107)],
)
def test_tiff_of_odd_bit_depth_is_stretched(decode, stored, dtype, bits, value, expected):
    array = np.full((4, 4), value, dtype)
    data = with_tifffile(array, photometric="minisblack", bitspersample=stored)
    assert_holds(decode(data), np.full((4, 4), expected), bits)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_tiff_in_0_to_1_counts_as_16_bits(decode, dtype):
    array = np.array([[0, 0.25, 1]], dtype)
    assert_holds(decode(with_tifffile(array)), [[0, 16384, 65535]], 16)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "NaN or infinite"),
        (np.inf, "NaN or infinite"),
        (1.01, "not in \\[0, 1\\]"),
        (-0.01, "not in \\[0, 1\\]"),
    ],
)
def test_float_tiff_with_other_values_is_refused(decode, value, message):
    with pytest.raises(ImageError, match=message):
        decode(with_tifffile(np.array([[0, value]], np.float32)))


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.int8])
def test_tiff_of_other_integers_is_refused(decode, dtype):
    with pytest.raises(ImageError, match=np.dtype(dtype).name):
        decode(with_tifffile(np.ones((4, 4), dtype), photometric="minisblack"))


@pytest.mark.parametrize("options", [{"byteorder": ">"}, {"bigtiff": True}, {"tile": (16, 16)}])
def test_tiff_of_any_byte_order_and_layout_is_read(decode, options):
    assert_holds(decode(with_tifffile(GREY16, photometric="minisblack", **options)), GREY16, 16)


def test_planar_tiff_is_read_as_rgb(decode):
    planes = np.ascontiguousarray(RGB8.transpose(2, 0, 1))
    data = with_tifffile(planes, photometric="rgb", planarconfig="separate")
    assert_holds(decode(data), RGB8, 8)


def test_palette_tiff_is_resolved(decode):
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1], colours[:, 2] = (1000, 2000, 3000), (5, 5, 5)
    data = with_tifffile(np.array([[1, 2]], np.uint8), photometric="palette", colormap=colours)
    assert_holds(decode(data), [[[1000, 2000, 3000], [5, 5, 5]]], 16)


def test_tiff_alpha_is_multiplied_in_once(decode):
    array = np.full((1, 1, 4), (50, 60, 70, 102), np.uint8)  # alpha 0.4
    plain = with_tifffile(array, photometric="rgb", extrasamples=["UNASSALPHA"])
    assert_holds(decode(plain), [[[20, 24, 28]]], 8)
    multiplied = with_tifffile(array, photometric="rgb", extrasamples=["ASSOCALPHA"])
    assert_holds(decode(multiplied), [[[50, 60, 70]]], 8)


def test_cmyk_tiff_becomes_rgb_as_pillow_has_it(decode):
    ink = PIL.Image.new("CMYK", (2, 2), (10, 20, 30, 40))
    assert_holds(decode(with_pillow(ink, "TIFF")), np.asarray(ink.convert("RGB")), 8)


@pytest.mark.parametrize("mode", ["LAB", "YCbCr"])
def test_tiff_in_another_colour_space_is_refused(decode, mode):
    with pytest.raises(ImageError, match="save it as grey or RGB"):
        decode(with_pillow(PIL.Image.new(mode, (4, 4)), "TIFF"))


def test_tiff_with_jpeg_inside_is_read_as_rgb(decode):
    data = with_pillow(PIL.Image.new("RGB", (16, 16), (10, 200, 30)), "TIFF", compression="jpeg")
    values = decode(data).values.long()
    assert (values - torch.tensor([10, 200, 30]).view(3, 1, 1)).abs().max() <= 3


def test_tiff_of_five_channels_is_refused(decode):
    array = np.zeros((4, 4, 5), np.uint8)
    with pytest.raises(ImageError, match="5 channels"):
        decode(with_tifffile(array, photometric="minisblack", planarconfig="contig"))


# DICOM


def dicom(array, drop=(), **values):
    """Write a DICOM image of (H, W) pixels by hand, with any elements set on top."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = array.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * array.itemsize
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    dataset.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
    dataset["PixelData"].VR = "OW"
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.HighBit = dataset.BitsStored - 1
    for name in drop:
        delattr(dataset, name)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def lut(values, first=0, bits=16):
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.LUTData = np.asarray(values, np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    return [item]


def linear_window(x, centre, width):
    """PS3.3 C.11.2.1.2.1, for an output from 0 to 1."""
    inside = (x - (centre - 0.5)) / (width - 1) + 0.5
    below, above = x <= centre - 0.5 - (width - 1) / 2, x > centre - 0.5 + (width - 1) / 2
    return np.where(below, 0, np.where(above, 1, inside))


def to_16(fraction):
    return np.rint(np.asarray(fraction) * 65535)


TWELVE = np.array([[0, 1, 1000, 2000, 3000, 4095]], np.uint16)


def test_dicom_range_is_that_of_the_stored_bits(decode):
    assert_holds(decode(dicom(TWELVE, BitsStored=12)), to_16(TWELVE / 4095), 16)
    assert_holds(decode(dicom(TWELVE)), TWELVE, 16)
    eight = np.array([[0, 128, 255]], np.uint8)
    assert_holds(decode(dicom(eight)), eight * 257.0, 16)


def test_dicom_bits_above_the_stored_ones_are_ignored(decode):
    assert_holds(decode(dicom(TWELVE | 0xA000, BitsStored=12)), to_16(TWELVE / 4095), 16)


@pytest.mark.parametrize("mask", [0xFFFF, 0x0FFF], ids=["extended", "garbage in the high bits"])
def test_dicom_signed_pixels_start_at_the_lowest_value(decode, mask):
    values = np.array([[-2048, -1, 0, 2047]], np.int16)
    stored = (values.astype(np.int32) & mask).astype(np.uint16).view(np.int16)
    assert_holds(decode(dicom(stored, BitsStored=12)), to_16((values + 2048.0) / 4095), 16)


def test_dicom_rescale_stretches_over_the_same_range(decode):
    data = dicom(TWELVE, BitsStored=12, RescaleSlope=2, RescaleIntercept=-1024)
    assert_holds(decode(data), to_16(TWELVE / 4095), 16)


def test_dicom_rescale_with_a_negative_slope_turns_dark_into_bright(decode):
    data = dicom(TWELVE, BitsStored=12, RescaleSlope=-1, RescaleIntercept=4095)
    assert_holds(decode(data), to_16(1 - TWELVE / 4095), 16)


@pytest.mark.parametrize(("centre", "width"), [(2048, 4096), (1500, 2000), (40.5, 81), (1000, 1)])
def test_dicom_window_is_the_standard_s_linear_function(decode, centre, width):
    data = dicom(TWELVE, BitsStored=12, WindowCenter=centre, WindowWidth=width)
    if width == 1:
        expected = centre - 0.5 < TWELVE
    else:
        expected = linear_window(TWELVE.astype(float), centre, width)
    assert_holds(decode(data), to_16(expected), 16)


@pytest.mark.parametrize(("slope", "intercept"), [(2, -1024), (-1, 4095), (0.5, 10)])
def test_dicom_window_applies_to_rescaled_values(decode, slope, intercept):
    data = dicom(
        TWELVE,
        BitsStored=12,
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        WindowCenter=1500,
        WindowWidth=2000,
    )
    expected = linear_window(TWELVE.astype(float) * slope + intercept, 1500, 2000)
    assert (decode(data).values.long() - chw(to_16(expected))).abs().max() <= 1


def test_dicom_s_first_window_counts_and_an_empty_one_does_not(decode):
    several = dicom(TWELVE, BitsStored=12, WindowCenter=[1500, 1], WindowWidth=[2000, 2])
    assert_holds(decode(several), to_16(linear_window(TWELVE.astype(float), 1500, 2000)), 16)
    empty = dicom(TWELVE, BitsStored=12, WindowCenter=None, WindowWidth=None)
    assert_holds(decode(empty), to_16(TWELVE / 4095), 16)


def test_dicom_voi_lut_goes_before_the_window(decode):
    table = (np.arange(4096) ** 2 // 256).clip(max=65535)
    data = dicom(TWELVE, BitsStored=12, VOILUTSequence=lut(table), WindowCenter=40, WindowWidth=80)
    assert_holds(decode(data), table[TWELVE], 16)


def test_dicom_voi_lut_range_is_that_of_its_own_bits(decode):
    data = dicom(TWELVE, BitsStored=12, VOILUTSequence=lut(np.arange(4096)[::-1], bits=12))
    assert_holds(decode(data), to_16(1 - TWELVE / 4095), 16)


def test_dicom_modality_lut_is_applied(decode):
    data = dicom(TWELVE, BitsStored=12, ModalityLUTSequence=lut(np.arange(4096) * 16))
    assert_holds(decode(data), TWELVE * 16.0, 16)


def test_dicom_empty_lut_sequences_are_passed_over(decode):
    data = dicom(TWELVE, BitsStored=12, VOILUTSequence=[], ModalityLUTSequence=[])
    assert_holds(decode(data), to_16(TWELVE / 4095), 16)


def test_dicom_monochrome1_is_inverted_after_the_window(decode):
    options = {"BitsStored": 12, "WindowCenter": 1500, "WindowWidth": 2000}
    usual = decode(dicom(TWELVE, **options)).values.long()
    inverted = decode(dicom(TWELVE, PhotometricInterpretation="MONOCHROME1", **options))
    assert (inverted.values.long() - (65535 - usual)).abs().max() <= 1
    assert usual[0, 0, 0] == 0 and inverted.values[0, 0, 0].item() == 65535


def test_dicom_constant_image_is_a_constant(decode):
    data = dicom(np.full((4, 4), 100, np.uint8))
    assert_holds(decode(data), np.full((4, 4), 100 * 257), 16)


def test_dicom_colour_is_rgb(decode):
    data = dicom(RGB8, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    assert_holds(decode(data), RGB8 * 257.0, 16)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dicom(TWELVE, drop=["PixelData"]), "no pixel data"),
        (dicom(np.zeros((4, 2), np.uint8), Rows=2, NumberOfFrames=2), "it has 2 frames"),
        (dicom(TWELVE, RescaleSlope=0, RescaleIntercept=5), "no usable values"),
        (dicom(TWELVE, drop=["Rows"]), "damaged"),
        (dicom(TWELVE, Rows=7), "damaged"),
    ],
    ids=["no pixels", "frames", "slope 0", "no rows", "too few pixels"],
)
def test_dicom_without_one_usable_image_is_refused(decode, data, message):
    with pytest.raises(ImageError, match=message):
        decode(data)


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
        ("SC_rgb_rle.dcm", "SC_rgb.dcm"),
        ("RG3_J2KR.dcm", "RG3_UNCR.dcm"),
    ],
)
def test_lossless_dicom_gives_the_pixels_of_its_uncompressed_twin(compressed, plain):
    one, other = (
        read_pixels(get_testdata_file(name, download=False)) for name in (compressed, plain)
    )
    assert torch.equal(one.values, other.values)
    assert one.values.long().unique().numel() > 2


def test_lossless_jpeg_dicom_is_windowed_like_any_other():
    path = get_testdata_file("JPGLosslessP14SV1_1s_1f_8b.dcm", download=False)
    dataset = pydicom.dcmread(path)
    assert "RescaleSlope" not in dataset and "VOILUTSequence" not in dataset
    stored = dataset.pixel_array.astype(float)
    expected = linear_window(stored, float(dataset.WindowCenter), float(dataset.WindowWidth))
    assert (read_pixels(path).values.long() - chw(to_16(expected))).abs().max() <= 1
    assert stored.std() > 1


def test_radiograph_in_monochrome1_shows_bone_bright_and_air_dark():
    path = get_testdata_file("RG1_UNCR.dcm", download=False)
    dataset = pydicom.dcmread(path)
    assert dataset.PhotometricInterpretation == "MONOCHROME1"
    stored = torch.from_numpy(dataset.pixel_array.astype(np.float32)).flatten()[::101]
    shown = read_image(path).flatten()[::101]
    assert torch.corrcoef(torch.stack([stored, shown]))[0, 1] < -0.9


# What can't be read


def small_files():
    small = dicom(RNG.integers(0, 256, (8, 8), dtype=np.uint8))
    return {
        "PNG": with_pillow(GREY8, "PNG"),
        "PNG of 16 bits": imagecodecs.png_encode(RGB16),
        "JPEG": with_pillow(RGB8, "JPEG"),
        "progressive JPEG": with_pillow(RGB8, "JPEG", progressive=True),
        "TIFF": with_tifffile(GREY16, photometric="minisblack"),
        "compressed TIFF": with_pillow(RGB8, "TIFF", compression="tiff_lzw"),
        "TIFF in strips": with_tifffile(
            GREY8, photometric="minisblack", compression="zlib", rowsperstrip=3
        ),
        "DICOM": small,
    }


@pytest.mark.parametrize(("kind", "data"), small_files().items(), ids=small_files())
def test_file_cut_at_any_length_is_refused_or_read_whole(decode, kind, data, caplog):
    whole = decode(data).values
    lengths = sorted({*range(1, len(data), 7), *range(len(data) - 30, len(data))})
    refused = 0
    for length in lengths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert torch.equal(decode(data[:length]).values, whole), length
            except ImageError as error:
                assert "Could not read" in str(error)
                refused += 1
    assert refused > 0.8 * len(lengths) - 30


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"not an image at all", "not a PNG, JPEG, TIFF or DICOM image"),
        (with_pillow(GREY8, "BMP"), "not a PNG, JPEG, TIFF or DICOM image"),
        (with_pillow(GREY8, "GIF"), "not a PNG, JPEG, TIFF or DICOM image"),
        (b"II*\0" + bytes(200), "damaged|cut short|pages"),
        (bytes(128) + b"DICM" + bytes(200), "damaged|no pixel"),
        (with_pillow(GREY8, "PNG")[:60] + bytes(300), "damaged"),
        (png(2, 2, 16, 0, bytes(3)), "damaged"),
    ],
)
def test_what_is_no_image_is_refused_with_a_reason(decode, data, message):
    with pytest.raises(ImageError, match=message):
        decode(data)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.png: No such file"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="directory"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        png(20000, 20000, 8, 0),
        png(20000, 20000, 16, 0),
        dicom(TWELVE, Rows=20000, Columns=20000),
    ],
    ids=["PNG", "PNG of 16 bits", "DICOM"],
)
def test_huge_image_is_refused_before_it_is_decoded(decode, data):
    with pytest.raises(ImageError, match="20000 x 20000 pixels, more than the limit of 200,000,"):
        decode(data)


@pytest.mark.parametrize(("kind", "data"), small_files().items(), ids=small_files())
def test_limit_on_pixels_can_be_moved(decode, kind, data, monkeypatch):
    pixels = decode(data).values[0].numel()
    monkeypatch.setenv(images.MAX_PIXELS_VARIABLE, str(pixels - 1))
    with pytest.raises(ImageError, match="MAX_PIXELS"):
        decode(data)
    monkeypatch.setenv(images.MAX_PIXELS_VARIABLE, str(pixels))
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)  # Pillow's own limit doesn't count
    decode(data)
    assert PIL.Image.MAX_IMAGE_PIXELS == 10


# Writing


def test_failed_write_keeps_the_old_image(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    write_image(path, torch.zeros(1, 8, 8))
    before = path.read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SRGANError, match="no space is left"):
        write_image(path, torch.ones(1, 8, 8))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["image.png"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_not_written(tmp_path, value):
    image = torch.zeros(1, 8, 8)
    image[0, 3, 3] = value
    with pytest.raises(ImageError, match="NaN or infinite"):
        write_image(tmp_path / "image.png", image)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "shape", [(8, 8), (2, 8, 8), (4, 8, 8), (1, 1, 8, 8), (1, 0, 8), (0, 8, 8)]
)
def test_wrong_shapes_are_not_written(tmp_path, shape):
    with pytest.raises(ImageError, match=r"\(C, H, W\)"):
        write_image(tmp_path / "image.png", torch.zeros(shape))


@pytest.mark.parametrize(
    ("name", "bits", "message"),
    [
        ("image.jpg", 16, "JPEG holds 8 bits only"),
        ("image.png", 12, "bits must be 8 or 16, not 12"),
        ("image.bmp", 8, "must end in .png, .tif or .jpg"),
        ("image", 8, "must end in .png, .tif or .jpg"),
        ("image.dcm", 8, "must end in .png, .tif or .jpg"),
    ],
)
def test_impossible_formats_are_refused(tmp_path, name, bits, message):
    with pytest.raises(ImageError, match=message):
        write_image(tmp_path / name, torch.zeros(1, 8, 8), bits)
    assert os.listdir(tmp_path) == []


def test_values_are_clamped_and_rounded_to_the_nearest_level():
    image = torch.tensor([[[-0.5, 0.49 / 255, 0.51 / 255, 254.4 / 255, 254.6 / 255, 1.5]]])
    assert to_pixels(image).values.tolist() == [[[0, 0, 1, 254, 255, 255]]]
    assert to_pixels(torch.tensor([[[0.5, 1.0]]]), 16).values.tolist() == [[[32768, 65535]]]


def test_image_that_needs_a_gradient_can_be_written(tmp_path):
    write_image(tmp_path / "image.png", torch.full((1, 8, 8), 0.5, requires_grad=True))
    assert read_pixels(tmp_path / "image.png").values.unique().tolist() == [128]


# Channels


def test_luma_is_that_of_bt_601_as_pillow_has_it():
    grey = to_channels(chw(RGB8).float() / 255, 1) * 255
    expected = chw(np.asarray(PIL.Image.fromarray(RGB8).convert("L")))
    assert grey.shape == expected.shape
    assert (grey - expected).abs().max() < 1


def test_grey_is_replicated_and_back_again_unchanged():
    image = torch.rand(2, 1, 5, 7)
    colour = to_channels(image, 3)
    assert colour.shape == (2, 3, 5, 7)
    assert all(torch.equal(colour[:, c : c + 1], image) for c in range(3))
    torch.testing.assert_close(to_channels(colour, 1), image)
    assert to_channels(image, 1) is image


@pytest.mark.parametrize(("found", "wanted"), [(2, 1), (4, 3), (1, 2), (3, 4)])
def test_other_channel_counts_are_refused(found, wanted):
    with pytest.raises(ImageError, match=f"Can't turn {found} channels into {wanted}"):
        to_channels(torch.zeros(found, 4, 4), wanted)
