"""Reading and writing images: PNG, JPEG, TIFF and DICOM.

Inside the library an image is a float tensor (C, H, W) in [0, 1] with C = 1 (grey) or 3 (RGB).
On disk, and in the memory of the training device, it is made of integers: 8 or 16 bits a value,
see :mod:`srgan_lib.pixels`.

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

import io
import os
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageOps
import tifffile
from torch import Tensor

from srgan_lib.dicom_pixels import decode_dicom, is_dicom, read_dicom_header
from srgan_lib.errors import ImageError
from srgan_lib.files import read_whole, write_atomically
from srgan_lib.pixels import (
    BYTES_A_PIXEL,
    MAX_PIXELS,
    MAX_PIXELS_VARIABLE,
    Pixels,
    check_size,
    decoders_silenced,
    drop_alpha,
    from_array,
    grey_if_equal,
    max_pixels,
    to_channels,
    to_pixels,
)
from srgan_lib.tiff import TIFF_COMPRESSIONS, decode_tiff

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "MAX_PIXELS_VARIABLE",
    "TIFF_COMPRESSIONS",
    "Pixels",
    "decoders_silenced",
    "images_below",
    "is_dicom",
    "max_pixels",
    "read_dicom_header",
    "read_image",
    "read_pixels",
    "to_channels",
    "to_pixels",
    "write_image",
    "write_pixels",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")
"""The file name endings that a folder is searched for."""


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
        data = read_whole(path, BYTES_A_PIXEL * max_pixels() + 2**20)
    except OSError as error:
        raise ImageError(f"Could not read {path}: {error.strerror}.") from error
    if not data:
        raise ImageError(f"Could not read {path}: the file is empty.")
    dicom = data[128:132] == b"DICM"  # first, since its preamble may look like a TIFF's
    try:
        with decoders_silenced():
            if dicom:
                array = decode_dicom(data)
            elif data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
                array = decode_tiff(data)
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
    return from_array(array)


def _decode_with_pillow(data: bytes) -> np.ndarray:
    limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None  # ours counts
    try:
        image = PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = limit
    check_size(image.height, image.width)
    if getattr(image, "n_frames", 1) != 1:
        raise ImageError(f"it has {image.n_frames} frames; save the one you want alone.")
    image.load()
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode == "P" or "transparency" in image.info:
        return grey_if_equal(drop_alpha(np.asarray(image.convert("RGBA"))))
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if image.mode in ("LA", "RGBA"):
        return drop_alpha(np.asarray(image))
    return np.asarray(image.convert("RGB"))


def _decode_png16(data: bytes) -> np.ndarray:
    """Decode a 16-bit PNG; Pillow would reduce its colours to 8 bits."""
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    check_size(height, width)
    array = imagecodecs.png_decode(data)
    return drop_alpha(array) if array.ndim == 3 and array.shape[2] in (2, 4) else array


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
