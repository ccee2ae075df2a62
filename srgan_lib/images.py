"""Reading and writing images: PNG, JPEG, TIFF and DICOM.

Inside the library an image is a float tensor (C, H, W) in [0, 1] with C = 1 (grey) or 3 (RGB).
On disk, and in the memory of the training device, it is made of integers: 8 or 16 bits a value.

Rules for what files may hold beside plain grey or RGB:

- a palette is resolved, to grey where all of its colours are grey;
- an alpha channel is dropped; where a pixel is not opaque, it is laid over black first;
- a photograph's EXIF rotation is applied, CMYK becomes RGB, white-is-zero becomes black-is-zero;
- a floating-point TIFF must be finite and in [0, 1], and counts as 16 bits;
- an image with several pages or frames is refused, and so is a TIFF in another colour space, or
  with a compression other than :data:`TIFF_COMPRESSIONS`.

A file may be made to do harm. A few bytes can stand for billions of pixels, so the size is known
before anything is decoded, see :func:`max_pixels`; and what an error says never quotes a DICOM
file's values.
"""

import contextlib
import io
import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageOps
import pydicom
import tifffile
import torch
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGLSTransferSyntaxes,
    RLELossless,
)
from torch import Tensor

from srgan_lib.errors import ImageError
from srgan_lib.files import limit_from, read_whole, write_atomically

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")
"""The file name endings that a folder is searched for."""

MAX_PIXELS = 200_000_000
"""Larger images are refused before they are decoded, see :func:`max_pixels`."""

MAX_PIXELS_VARIABLE = "SRGAN_MAX_PIXELS"
"""Environment variable: another limit, for this process and those that it starts."""

TIFF_COMPRESSIONS = ("NONE", "LZW", "JPEG", "ADOBE_DEFLATE", "DEFLATE", "PACKBITS", "LZMA", "ZSTD")
"""Names of the compressions that a TIFF may have: decoders of these can be held to a size."""

_BYTES_A_PIXEL = 8  # of a file, at the limit: four values of 16 bits, or one of 64

_TIFF_COLOURS = (
    tifffile.PHOTOMETRIC.MINISWHITE,
    tifffile.PHOTOMETRIC.MINISBLACK,
    tifffile.PHOTOMETRIC.RGB,
    tifffile.PHOTOMETRIC.PALETTE,
    tifffile.PHOTOMETRIC.SEPARATED,
)


@dataclass(frozen=True)
class Pixels:
    """An image as integers.

    Attributes:
        values: (C, H, W), ``torch.uint8`` or ``torch.uint16``.
        bits: 8 or 16; the values go from 0 to ``2**bits - 1``.
    """

    values: Tensor
    bits: int

    def to_float(self) -> Tensor:
        """Return the image as float32 (C, H, W) in [0, 1]."""
        return self.values.to(torch.float32) / (2**self.bits - 1)


def read_image(path: str | os.PathLike) -> Tensor:
    """Read a PNG, JPEG, TIFF or DICOM file.

    Args:
        path: the file. Its content, not its name, decides how it is read.

    Returns:
        Float32 tensor (C, H, W) in [0, 1]; C is 1 for grey and 3 for colour.

    Raises:
        ImageError: the file is missing, empty, truncated, too large or not such an image.
    """
    return read_pixels(path).to_float()


def read_pixels(path: str | os.PathLike) -> Pixels:
    """Read a PNG, JPEG, TIFF or DICOM file as integers, at the file's own bit depth.

    Formats of up to 8 bits give 8, all others 16. DICOM always gives 16: rescale and window
    stretch its values over the whole range.

    Args:
        path: the file. Its content, not its name, decides how it is read.

    Raises:
        ImageError: as for :func:`read_image`.
    """
    path = Path(path)
    try:
        data = read_whole(path, _BYTES_A_PIXEL * max_pixels() + 2**20)
    except OSError as error:
        raise ImageError(f"Could not read {path}: {error.strerror}.") from error
    if not data:
        raise ImageError(f"Could not read {path}: the file is empty.")
    dicom = data[128:132] == b"DICM"  # first, since its preamble may look like a TIFF's
    try:
        with decoders_silenced():
            if dicom:
                array = _decode_dicom(data)
            elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                array = _decode_tiff(data)
            elif data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:25] == b"\x10":
                array = _decode_png16(data)
            else:
                array = _decode_with_pillow(data)
    except ImageError as error:
        raise ImageError(f"Could not read {path}: {error}") from None
    except PIL.UnidentifiedImageError:
        raise ImageError(
            f"Could not read {path}: it is not a PNG, JPEG, TIFF or DICOM image."
        ) from None
    except Exception as error:  # decoders raise errors of many kinds on broken files
        # What pydicom says may quote the patient's name.
        reason = type(error).__name__ if dicom else f"{type(error).__name__}: {error}"
        raise ImageError(
            f"Could not read {path}: the file is damaged, cut short, or of a kind that "
            f"can't be decoded ({reason})."
        ) from (None if dicom else error)
    return _to_pixels(array)


def read_dicom_header(path: str | os.PathLike, names: list[str] | None = None) -> pydicom.Dataset:
    """Read what a DICOM file says of its image, without the pixels.

    Args:
        path: the file.
        names: the attributes that are wanted; all by default.

    Raises:
        ImageError: the file is missing, damaged, or larger than it may be, see
            :func:`max_pixels`. The message quotes none of its values.
    """
    try:
        with open(path, "rb") as file, decoders_silenced():
            _check_inflated(file)
            file.seek(0)
            return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=names)
    except OSError as error:
        raise ImageError(f"Could not read {path}: {error.strerror}.") from error
    except ImageError as error:
        raise ImageError(f"Could not read {path}: {error}") from None
    except Exception as error:  # pydicom raises errors of many kinds on broken files
        raise ImageError(
            f"Could not read {path}: its DICOM attributes are damaged or cut short "
            f"({type(error).__name__})."
        ) from None


@contextlib.contextmanager
def decoders_silenced() -> Iterator[None]:
    """Keep pydicom and the decoders from warning and logging: they quote the patient's data."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "tifffile", "PIL")]
    before = [logger.disabled for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.disabled = True
            yield
        finally:
            for logger, disabled in zip(loggers, before, strict=True):
                logger.disabled = disabled


def max_pixels() -> int:
    """Return how many pixels an image may have: ``SRGAN_MAX_PIXELS``, or :data:`MAX_PIXELS`.

    Larger images are refused before they are decoded, and files of more than eight bytes for each
    of these pixels before they are read: a small file can stand for a very large image. While it
    is decoded, an image takes up to 120 bytes of memory for each of its pixels.

    Raises:
        ConfigurationError: ``SRGAN_MAX_PIXELS`` is no positive whole number.
    """
    return limit_from(MAX_PIXELS_VARIABLE, MAX_PIXELS)


def is_dicom(path: str | os.PathLike) -> bool:
    """Return whether a file's content is DICOM; its name doesn't count."""
    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            return False
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def images_below(folder: str | os.PathLike) -> list[Path]:
    """Return the image files in a folder and in those inside it, sorted.

    They are known by their endings, see :data:`IMAGE_SUFFIXES`, and DICOM files also by their
    content, since scanners and archives often name them otherwise. DICOM files that hold no image
    are passed over: a ``DICOMDIR``, which lists files, and reports, presentation states and the
    like, which lie in many studies.
    """
    return sorted(path for path in Path(folder).rglob("*") if path.is_file() and _may_hold(path))


def _may_hold(path: Path) -> bool:
    """Return whether a file counts as an image: a damaged one does, and is named when read."""
    if not is_dicom(path):
        return path.suffix.lower() in IMAGE_SUFFIXES
    if path.name == "DICOMDIR":
        return False
    try:
        header = read_dicom_header(path, ["SOPClassUID", "Rows"])
    except ImageError:
        return True
    return "Rows" in header or "SOPClassUID" not in header


def write_image(path: str | os.PathLike, image: Tensor, bits: int = 8) -> None:
    """Write an image as PNG, TIFF or JPEG, chosen by the file name's ending.

    Values are clamped to [0, 1] and rounded. The file appears whole or not at all.

    Args:
        path: the file to write, ending in .png, .tif, .tiff, .jpg or .jpeg.
        image: float tensor (C, H, W) with C = 1 or 3, in [0, 1].
        bits: 8, or 16 for PNG and TIFF.

    Raises:
        ImageError: a wrong shape, NaN or infinite values, or a format that can't hold them.
        SRGANError: the file can't be written.
    """
    write_pixels(path, to_pixels(image, bits))


def write_pixels(path: str | os.PathLike, pixels: Pixels, comment: str = "") -> None:
    """Write integers as :func:`write_image` writes floats, without the copies that those take.

    Args:
        path: see :func:`write_image`.
        pixels: the image.
        comment: a text to keep in the file, where viewers show it among its properties.

    Raises:
        ImageError: a format that can't hold them.
        SRGANError: the file can't be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    array = pixels.values.cpu().numpy()
    array = array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
    comment = comment.encode("ascii", "replace").decode()  # all that TIFF can hold
    if suffix == ".png":
        data = _with_comment(imagecodecs.png_encode(np.ascontiguousarray(array)), comment)
    elif suffix in (".tif", ".tiff"):
        buffer = io.BytesIO()
        photometric = "minisblack" if array.ndim == 2 else "rgb"
        options = {"description": comment, "metadata": None} if comment else {}
        tifffile.imwrite(buffer, array, photometric=photometric, compression="zlib", **options)
        data = buffer.getvalue()
    elif suffix in (".jpg", ".jpeg") and pixels.bits == 8:
        buffer = io.BytesIO()
        picture = PIL.Image.fromarray(array)
        picture.save(buffer, format="JPEG", quality=95, subsampling=0, comment=comment)
        data = buffer.getvalue()
    elif suffix in (".jpg", ".jpeg"):
        raise ImageError(f"Could not write {path}: JPEG holds 8 bits only; use .png or .tif.")
    else:
        raise ImageError(f"Could not write {path}: its name must end in .png, .tif or .jpg.")
    write_atomically(path, data)


def _with_comment(png: bytes, comment: str) -> bytes:
    """Put a text chunk behind the header of a PNG file (PNG specification, 11.3.3.2)."""
    if not comment:
        return png
    chunk = b"tEXtComment\0" + comment.encode("ascii")
    framed = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    header = 33  # bytes of the signature and the chunk IHDR
    return png[:header] + framed + png[header:]


def to_pixels(image: Tensor, bits: int = 8) -> Pixels:
    """Clamp a float image to [0, 1] and round it to integers.

    Args:
        image: float tensor (C, H, W) with C = 1 or 3, in [0, 1].
        bits: 8 or 16.

    Raises:
        ImageError: a wrong shape or bit depth, or values that are NaN or infinite.
    """
    if bits not in (8, 16):
        raise ImageError(f"bits must be 8 or 16, not {bits}.")
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise ImageError(
            f"An image must have the shape (C, H, W) with C = 1 or 3, not {tuple(image.shape)}."
        )
    if not torch.isfinite(image).all():
        raise ImageError("The image holds NaN or infinite values.")
    levels = 2**bits - 1
    dtype = torch.uint8 if bits == 8 else torch.uint16
    rounded = (image.detach().double().clamp(0, 1) * levels).round().to(torch.int32)
    return Pixels(rounded.to(dtype), bits)


def to_channels(image: Tensor, channels: int) -> Tensor:
    """Turn grey into RGB by replication, or RGB into grey by BT.601 luma.

    Args:
        image: float tensor (..., C, H, W) with C = 1 or 3.
        channels: 1 or 3.

    Returns:
        Float tensor (..., channels, H, W); the input itself where nothing is to be done.

    Raises:
        ImageError: a channel count other than 1 or 3.
    """
    found = image.shape[-3]
    if found not in (1, 3) or channels not in (1, 3):
        raise ImageError(f"Can't turn {found} channels into {channels}; only 1 and 3 are known.")
    if found == channels:
        return image
    if channels == 3:
        return image.expand(*image.shape[:-3], 3, *image.shape[-2:])
    luma = image.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return (image * luma).sum(dim=-3, keepdim=True)


def _to_pixels(array: np.ndarray) -> Pixels:
    """Turn a decoded array (H, W) or (H, W, C) of uint8 or uint16 into :class:`Pixels`."""
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    bits = 8 * array.dtype.itemsize
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
    return Pixels(torch.from_numpy(native.copy()), bits)


def _check_size(height: int, width: int) -> None:
    limit = max_pixels()
    if height * width > limit:
        raise ImageError(
            f"it has {height} x {width} pixels, more than the limit of {limit:,}. If you trust "
            f"the file, set the environment variable {MAX_PIXELS_VARIABLE} to "
            f"{height * width} or more."
        )
    if height < 1 or width < 1:
        raise ImageError("it has no pixels.")


def _coded_size(stream: bytes) -> tuple[int, int]:
    """Return height and width by the header of a JPEG, JPEG-LS or JPEG 2000 stream.

    Its decoders believe the stream, whatever the file around it says. (ISO/IEC 10918-1, B.2;
    14495-1, C.2; 15444-1, A.5.)
    """
    start = stream.find(b"\xff\x4f\xff\x51")  # JPEG 2000, perhaps inside a JP2 file
    if start >= 0 and len(stream) >= start + 24:
        sides = [int.from_bytes(stream[start + i : start + i + 4], "big") for i in (8, 12, 16, 20)]
        return sides[1] - sides[3], sides[0] - sides[2]
    place = stream.find(b"\xff\xd8") + 2
    while place >= 2 and place + 9 <= len(stream):
        if stream[place] != 0xFF:
            place += 1  # as decoders do, until the next marker
            continue
        marker = stream[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return tuple(int.from_bytes(stream[place + i : place + i + 2], "big") for i in (5, 7))
        alone = marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8
        length = 0 if alone else int.from_bytes(stream[place + 2 : place + 4], "big")
        place += (1 if marker == 0xFF else 2) + length
    raise ImageError("the compressed pixels don't say their size.")


def _drop_alpha(array: np.ndarray) -> np.ndarray:
    """Turn (H, W, 2) into (H, W), and (H, W, 4) into (H, W, 3), laid over black."""
    alpha = array[..., -1:].astype(np.float64) / np.iinfo(array.dtype).max
    colour = np.rint(array[..., :-1] * alpha).astype(array.dtype)
    return colour[..., 0] if colour.shape[-1] == 1 else colour


def _grey_if_equal(array: np.ndarray) -> np.ndarray:
    """Return one channel of (H, W, 3) where all three are equal."""
    equal = (array[..., :1] == array).all()
    return array[..., 0] if equal else array


def _decode_with_pillow(data: bytes) -> np.ndarray:
    limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None  # ours counts
    try:
        image = PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = limit
    _check_size(image.height, image.width)
    if getattr(image, "n_frames", 1) != 1:
        raise ImageError(f"it has {image.n_frames} frames; save the one you want alone.")
    image.load()
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode == "P" or "transparency" in image.info:
        return _grey_if_equal(_drop_alpha(np.asarray(image.convert("RGBA"))))
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode in ("LA", "RGBA"):
        return _drop_alpha(np.asarray(image))
    return np.asarray(image.convert("RGB"))


def _decode_png16(data: bytes) -> np.ndarray:
    """Decode a 16-bit PNG; Pillow would reduce its colours to 8 bits."""
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    _check_size(height, width)
    array = imagecodecs.png_decode(data)
    return _drop_alpha(array) if array.ndim == 3 and array.shape[2] in (2, 4) else array


def _decode_tiff(data: bytes) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if len(file.pages) != 1:
            raise ImageError(f"it has {len(file.pages)} pages; save the one you want alone.")
        page = file.pages.first
        width_of_count = 8 if file.is_bigtiff else 2
        count = data[page.offset : page.offset + width_of_count]
        if len(page.tags) < int.from_bytes(count, "little" if data[:2] == b"II" else "big"):
            raise ImageError("the file is cut short.")  # tifffile passes over tags it can't read
        _check_size(page.imagelength, page.imagewidth)
        _check_tiff(page, data)
        expected = page.imagelength * page.imagewidth * page.samplesperpixel
        if len(page.dataoffsets) == 0 or max(
            offset + count
            for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
        ) > len(data):
            raise ImageError("the file is cut short.")
        array = page.asarray()
        if array.size != expected or array.ndim not in (2, 3):
            raise ImageError(f"its shape {array.shape} is not that of one grey or colour image.")
        if array.ndim == 3 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            array = array.transpose(1, 2, 0)
        photometric, colormap, bits = page.photometric, page.colormap, page.bitspersample
        premultiplied = tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples
        if (
            photometric == tifffile.PHOTOMETRIC.YCBCR
            and page.compression == tifffile.COMPRESSION.JPEG
        ):
            photometric = tifffile.PHOTOMETRIC.RGB  # the JPEG decoder has turned it into RGB
    if photometric not in _TIFF_COLOURS:
        raise ImageError(f"its colours are stored as {photometric.name}; save it as grey or RGB.")
    if photometric == tifffile.PHOTOMETRIC.PALETTE and colormap is not None:
        return _grey_if_equal(colormap.T[array].astype(np.uint16))
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
    if photometric == tifffile.PHOTOMETRIC.SEPARATED:
        if array.ndim != 3 or array.shape[2] != 4:
            raise ImageError("its inks are not cyan, magenta, yellow and black.")
        light = 1 - array.astype(np.float64) / np.iinfo(array.dtype).max
        array = np.rint(np.iinfo(array.dtype).max * light[..., :3] * light[..., 3:]).astype(
            array.dtype
        )
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        array = np.iinfo(array.dtype).max - array
    if array.ndim == 3 and array.shape[2] in (2, 4):
        array = array[..., :-1] if premultiplied else _drop_alpha(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] != 3:
        raise ImageError(f"it has {array.shape[2]} channels; 1 and 3 are known.")
    return array


def _check_tiff(page: tifffile.TiffPage, data: bytes) -> None:
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
        _check_size(height, width)
    if compression == "JPEG":
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            coded = _coded_size(data[start : start + count])
            if coded[0] > height + 16 or coded[1] > width + 16:
                raise ImageError(f"a part of it has {coded[0]} x {coded[1]} pixels, too many.")


def _check_inflated(file: BinaryIO) -> None:
    """Refuse a deflated DICOM file that would unpack to more than a file may have.

    Raises:
        ImageError: it would.
    """
    file.seek(132)
    meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    list(meta)  # or pydicom would try to read these attributes in another way
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    limit = _BYTES_A_PIXEL * max_pixels() + 2**20
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    size, packed = 0, file.read()
    while packed and size <= limit:
        size += len(inflate.decompress(packed, 2**24))
        packed = inflate.unconsumed_tail
    if size > limit:
        raise ImageError(
            f"it unpacks to more than {limit:,} bytes, eight for each pixel of the limit. If you "
            f"trust the file, set the environment variable {MAX_PIXELS_VARIABLE} to more than "
            f"{max_pixels()}."
        )


def _decode_dicom(data: bytes) -> np.ndarray:
    """Decode one DICOM image as a viewer would show it (DICOM PS3.3, C.11.1 and C.11.2)."""
    _check_inflated(io.BytesIO(data))
    dataset = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in dataset:
        raise ImageError("this DICOM file holds no pixel data.")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise ImageError(f"it has {dataset.NumberOfFrames} frames; save the one you want alone.")
    _check_size(dataset.Rows, dataset.Columns)
    _check_dicom(dataset)
    array = _dicom_array(dataset)
    shape = (dataset.Rows, dataset.Columns, 3)[: 3 if dataset.SamplesPerPixel == 3 else 2]
    if array.shape != shape:
        raise ImageError(f"its pixels have the shape {array.shape}, not {shape}.")
    if dataset.SamplesPerPixel == 3:
        bits = dataset.BitsStored
        return _grey_if_equal(np.rint(array * (65535.0 / (2**bits - 1))).astype(np.uint16))
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colour = pydicom.pixels.apply_color_lut(array, dataset)[..., :3]
        levels = np.iinfo(colour.dtype).max
        return _grey_if_equal(np.rint(colour * (65535.0 / levels)).astype(np.uint16))
    values, low, high = _display_values(array, dataset)
    if not np.isfinite(values).all() or high <= low:
        raise ImageError("its rescale or window gives no usable values.")
    shown = np.clip((values - low) / (high - low), 0, 1)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    return np.rint(shown * 65535).astype(np.uint16)


def _dicom_array(dataset: pydicom.Dataset) -> np.ndarray:
    """Return the pixels as they are stored, but for colours, which become RGB.

    GDCM, which pydicom would choose for JPEG, ends the whole process on some damaged files.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in (JPEGBaseline8Bit, *JPEG2000TransferSyntaxes):
        return pixel_array(dataset, decoding_plugin="pillow")
    if syntax.is_encapsulated and syntax != RLELossless:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        ls = syntax in JPEGLSTransferSyntaxes
        array = imagecodecs.jpegls_decode(frame) if ls else imagecodecs.jpeg8_decode(frame)
        if array.dtype not in (np.uint8, np.uint16):
            raise ImageError(f"its compressed pixels are of the type {array.dtype}.")
        dataset.PixelData = array.tobytes()  # and go on as if it had never been compressed
        dataset["PixelData"].VR = "OW"
        dataset.BitsAllocated, dataset.PlanarConfiguration = 8 * array.itemsize, 0
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return pixel_array(dataset)


def _check_dicom(dataset: pydicom.Dataset) -> None:
    """Refuse what would take more memory than the image's size tells."""
    if dataset.SamplesPerPixel not in (1, 3) or dataset.BitsAllocated not in (1, 8, 16, 32, 64):
        raise ImageError("it has neither one nor three values of 1 to 64 bits a pixel.")
    if not 1 <= dataset.BitsStored <= dataset.BitsAllocated:
        raise ImageError("the number of bits that it says its values have is impossible.")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and syntax != RLELossless:
        height, width = _coded_size(get_frame(dataset.PixelData, 0, number_of_frames=1))
        if (height, width) != (dataset.Rows, dataset.Columns):
            raise ImageError(
                f"it says that it has {dataset.Rows} x {dataset.Columns} pixels, and its "
                f"compressed pixels have {height} x {width}."
            )


def _display_values(array: np.ndarray, dataset: pydicom.Dataset) -> tuple[np.ndarray, float, float]:
    """Apply modality and VOI LUT; return the values and the range that they are shown in."""
    stored, signed = dataset.BitsStored, dataset.PixelRepresentation == 1
    if signed:
        lowest, highest = -(2 ** (stored - 1)), 2 ** (stored - 1) - 1
    else:
        lowest, highest = 0, 2**stored - 1
        array = array & highest  # bits above BitsStored may hold overlays
    values = apply_modality_lut(array, dataset)
    if dataset.get("VOILUTSequence"):
        bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        return apply_voi_lut(values, dataset, prefer_lut=True).astype(float), 0.0, 2.0**bits - 1
    falling = False
    if dataset.get("ModalityLUTSequence"):
        low, high = 0.0, 2.0 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    elif "RescaleSlope" in dataset and "RescaleIntercept" in dataset:
        slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
        falling = slope < 0
        low, high = sorted((lowest * slope + intercept, highest * slope + intercept))
    else:
        low, high = float(lowest), float(highest)
    windowed = None not in (dataset.get("WindowCenter"), dataset.get("WindowWidth"))
    values = apply_voi_lut(values, dataset, prefer_lut=False).astype(float)
    if windowed and falling:  # pydicom's window then runs from the highest value to the lowest
        values = low + high - values
    return values, low, high
