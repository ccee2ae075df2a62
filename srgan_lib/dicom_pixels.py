"""Reading DICOM: the header without the pixels, and the pixels as a viewer would show them."""

import io
import os
import zlib
from typing import BinaryIO

import imagecodecs
import numpy as np
import pydicom
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

from srgan_lib.errors import ImageError
from srgan_lib.pixels import (
    BYTES_A_PIXEL,
    MAX_PIXELS_VARIABLE,
    check_size,
    coded_size,
    decoders_silenced,
    grey_if_equal,
    max_pixels,
)


def is_dicom(path: str | os.PathLike) -> bool:
    """Return whether a file's content is DICOM; its name doesn't count."""
    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            return False
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


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


def decode_dicom(data: bytes) -> np.ndarray:
    """Decode one DICOM image as a viewer would show it (DICOM PS3.3, C.11.1 and C.11.2).

    Returns:
        (H, W) or (H, W, 3) of uint16.

    Raises:
        ImageError: an image that isn't read. Other errors come from damaged files.
    """
    _check_inflated(io.BytesIO(data))
    dataset = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in dataset:
        raise ImageError("this DICOM file holds no pixel data.")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise ImageError(f"it has {dataset.NumberOfFrames} frames; save the one you want alone.")
    check_size(dataset.Rows, dataset.Columns)
    _check_dicom(dataset)
    array = _dicom_array(dataset)
    shape = (dataset.Rows, dataset.Columns, 3)[: 3 if dataset.SamplesPerPixel == 3 else 2]
    if array.shape != shape:
        raise ImageError(f"its pixels have the shape {array.shape}, not {shape}.")
    if dataset.SamplesPerPixel == 3:
        bits = dataset.BitsStored
        return grey_if_equal(np.rint(array * (65535.0 / (2**bits - 1))).astype(np.uint16))
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        colour = pydicom.pixels.apply_color_lut(array, dataset)[..., :3]
        levels = np.iinfo(colour.dtype).max
        return grey_if_equal(np.rint(colour * (65535.0 / levels)).astype(np.uint16))
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
    limit = BYTES_A_PIXEL * max_pixels() + 2**20
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


def _check_dicom(dataset: pydicom.Dataset) -> None:
    """Refuse what would take more memory than the image's size tells."""
    if dataset.SamplesPerPixel not in (1, 3) or dataset.BitsAllocated not in (1, 8, 16, 32, 64):
        raise ImageError("it has neither one nor three values of 1 to 64 bits a pixel.")
    if not 1 <= dataset.BitsStored <= dataset.BitsAllocated:
        raise ImageError("the number of bits that it says its values have is impossible.")
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and syntax != RLELossless:
        height, width = coded_size(get_frame(dataset.PixelData, 0, number_of_frames=1))
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
