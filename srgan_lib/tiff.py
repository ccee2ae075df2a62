"""Reading TIFF, of which there are many kinds."""

import io

import numpy as np
import tifffile

from srgan_lib.errors import ImageError
from srgan_lib.pixels import check_size, coded_size, drop_alpha, grey_if_equal

TIFF_COMPRESSIONS = ("NONE", "LZW", "JPEG", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "LZMA", "ZSTD")
"""Names of the compressions that a TIFF may have: decoders of these can be held to a size."""

_COLOURS = (
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.PALETTE,
    tifffile.PHOTOMETRIC.SEPARATED,
)


def decode_tiff(data: bytes) -> np.ndarray:
    """Decode a TIFF of one page: (H, W) or (H, W, 3), of uint8 or uint16, black is zero.

    Raises:
        ImageError: pages, colours, values or a size that aren't read.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = _only_page(file, data)
        array = _values_of(page)
        photometric, colormap, bits = page.photometric, page.colormap, page.bitspersample
        premultiplied = tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples
        if (
            photometric == tifffile.PHOTOMETRIC.YCBCR
            and page.compression == tifffile.COMPRESSION.JPEG
        ):
            photometric = tifffile.PHOTOMETRIC.RGB  # the JPEG decoder has turned it into RGB
    if photometric not in _COLOURS:
        raise ImageError(f"its colours are stored as {photometric.name}; save it as grey or RGB.")
    if photometric == tifffile.PHOTOMETRIC.PALETTE and colormap is not None:
        return grey_if_equal(colormap.T[array].astype(np.uint16))
    array = _to_integers(array, bits)
    if photometric == tifffile.PHOTOMETRIC.SEPARATED:
        array = _from_inks(array)
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        array = np.iinfo(array.dtype).max - array
    return _grey_or_rgb(array, premultiplied)


def _only_page(file: tifffile.TiffFile, data: bytes) -> tifffile.TiffPage:
    """Return the page of a whole file that has one."""
    if len(file.pages) != 1:
        raise ImageError(f"it has {len(file.pages)} pages; save the one you want alone.")
    page = file.pages.first
    width_of_count = 8 if file.is_bigtiff else 2
    count = data[page.offset : page.offset + width_of_count]
    if len(page.tags) < int.from_bytes(count, "little" if data[:2] == b"II" else "big"):
        raise ImageError("the file is cut short.")  # tifffile passes over tags it can't read
    check_size(page.imagelength, page.imagewidth)
    _check_page(page, data)
    if len(page.dataoffsets) == 0 or max(
        offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    ) > len(data):
        raise ImageError("the file is cut short.")
    return page


def _values_of(page: tifffile.TiffPage) -> np.ndarray:
    """Decode a page as it is stored, (H, W) or (H, W, C)."""
    array = page.asarray()
    expected = page.imagelength * page.imagewidth * page.samplesperpixel
    if array.size != expected or array.ndim not in (2, 3):
        raise ImageError(f"its shape {array.shape} is not that of one grey or colour image.")
    if array.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        array = array.transpose(1, 2, 0)
    return array


def _to_integers(array: np.ndarray, bits: int) -> np.ndarray:
    """Turn values into uint8 or uint16 that fill their range."""
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ImageError("it holds NaN or infinite values.")
        if array.min() < 0 or array.max() > 1:
            raise ImageError("its floating-point values are not in [0, 1]; rescale them first.")
        array = np.rint(array.astype(np.float64) * 65535).astype(np.uint16)
    elif array.dtype in (np.uint8, np.uint16) and 1 < bits < 8 * array.dtype.itemsize:
        top = np.iinfo(array.dtype).max  # 4 bits of 8, 12 of 16, ...
        array = np.rint(array * (top / (2**bits - 1))).astype(array.dtype)
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"its values are of type {array.dtype}; 8 and 16 bits are known.")
    return array


def _from_inks(array: np.ndarray) -> np.ndarray:
    """Turn cyan, magenta, yellow and black into RGB."""
    if array.ndim != 3 or array.shape[2] != 4:
        raise ImageError("its inks are not cyan, magenta, yellow and black.")
    light = 1 - array.astype(np.float64) / np.iinfo(array.dtype).max
    return np.rint(np.iinfo(array.dtype).max * light[..., :3] * light[..., 3:]).astype(array.dtype)


def _grey_or_rgb(array: np.ndarray, premultiplied: bool) -> np.ndarray:
    """Drop alpha, laying the image over black if that was not done before."""
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array = array[..., :-1] if premultiplied else drop_alpha(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] != 3:
        raise ImageError(f"it has {array.shape[2]} channels; 1 and 3 are known.")
    return array


def _check_page(page: tifffile.TiffPage, data: bytes) -> None:
    """Refuse what would take more memory, or more time, than the image's size tells."""
    compression = getattr(page.compression, "name", str(page.compression))
    if compression not in TIFF_COMPRESSIONS:
        raise ImageError(f"its compression, {compression}, isn't read; save it with another.")
    if page.samplesperpixel > 4 or page.bitspersample > 64:
        raise ImageError(
            f"it has {page.samplesperpixel} channels of {page.bitspersample} bits; 1 and 3 "
            "channels are known, with alpha or without."
        )
    height, width = page.imagelength, page.imagewidth
    if page.is_tiled:
        height, width = page.tilelength, page.tilewidth
        if max(height, width) > 2 * max(page.imagelength, page.imagewidth) + 1024:
            raise ImageError(f"its tiles of {height} x {width} pixels are far larger than it.")
        check_size(height, width)
    if compression == "JPEG":
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            coded = coded_size(data[start : start + count])
            if coded[0] > height + 16 or coded[1] > width + 16:
                raise ImageError(f"a part of it has {coded[0]} x {coded[1]} pixels, too many.")
