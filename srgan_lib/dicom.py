"""Writing an enlarged image as DICOM, so that no viewer takes it for what a detector saw.

The file is built anew from the attributes that are listed here. Nothing else of the source can
get into it: no private tag, no overlay, no rescale or window that belongs to other values, and
of the patient only what is asked for.
"""

import io
import math
import os
import re
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from srgan_lib import __version__
from srgan_lib.errors import ConfigurationError, ImageError
from srgan_lib.files import write_atomically
from srgan_lib.pixels import Pixels, decoders_silenced

_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
_VIEW = ("BodyPartExamined", "ViewPosition", "ImageLaterality", "Laterality", "PatientOrientation")
_PATIENT = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "InstitutionName",
    "AcquisitionDate",
    "AcquisitionTime",
)
_EMPTY = (  # type 2: must be there, and may be empty
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "Manufacturer",
    "PatientOrientation",
)


def write_derived(
    path: str | os.PathLike,
    image: Pixels,
    source: Dataset,
    *,
    scale: int,
    model: str,
    what: str = "",
    keep_patient: bool = False,
) -> None:
    """Write an enlarged image as a DICOM file that is derived from its source.

    The file refers to the source image by its UID, also without the patient: whoever has the
    source can tell that they belong together. Text that is burned into the source's pixels is
    in the enlarged image, too.

    Args:
        path: the file to write; it appears whole or not at all.
        image: the enlarged image as :func:`srgan_lib.images.read_image` would show it, brighter
            for larger values. Grey is written with 16 bits, colour, which DICOM holds as RGB,
            with 8.
        source: the data set that the image was enlarged from.
        scale: how many times larger each side is than the source's. Pixel spacings are divided
            by it; one that is missing, zero or malformed is left out.
        model: name of what enlarged the image, for the descriptions.
        what: which of several results it is, if there are several; see :func:`notice`.
        keep_patient: keep what the source says of the patient and the study. Otherwise the file
            is anonymous, and in a study of its own.

    Raises:
        ImageError: an image that is too large for DICOM, or no image.
        ConfigurationError: a scale below one.
        SRGANError: the file can't be written.
    """
    if scale < 1:
        raise ConfigurationError(f"scale must be a positive whole number, not {scale}.")
    derived = Dataset()
    # Text may come in any character set; pydicom writes it in this one, UTF-8.
    derived.SpecificCharacterSet = "ISO_IR 192"
    with decoders_silenced():  # pydicom, on values of the source that break rules
        for name in _EMPTY:
            setattr(derived, name, "")
        _describe(derived, source, scale, model, what)
        _describe_patient(derived, source, keep_patient)
        _describe_geometry(derived, source, scale)
        _set_pixels(derived, image)
        derived.file_meta = FileMetaDataset()
        derived.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        buffer = io.BytesIO()
        derived.save_as(buffer, enforce_file_format=True)
    write_atomically(path, buffer.getvalue())


def notice(scale: int, model: str, what: str = "") -> str:
    """Return what an enlarged image must say of itself, in whatever file it is written.

    Args:
        scale: how many times larger each side became.
        model: name of what enlarged it.
        what: which of several results it is, such as ``throw 3 of 8, seed 2``.
    """
    which = f" This is {what}." if what else ""
    return (
        f"Synthetic image: enlarged {scale} times by super-resolution, model {model} of "
        f"srgan_lib {__version__}.{which} Details may be invented. Not for diagnosis."
    )


def _describe(derived: Dataset, source: Dataset, scale: int, model: str, what: str) -> None:
    """Say what the image is, by what it was made, and from what."""
    # Secondary Capture (PS3.3, A.8.1), whatever the source is. The classes of a detector's
    # images, CR and DX among them, require attributes about the exposure and the values' relation
    # to it. Here values are what a screen shows, and no detector has measured them.
    derived.SOPClassUID = SecondaryCaptureImageStorage
    derived.ConversionType = "SYN"  # synthetic image (PS3.3, C.8.6.1.1)
    derived.ImageType = ["DERIVED", "SECONDARY"]
    derived.SOPInstanceUID = generate_uid(prefix=None)
    derived.SeriesInstanceUID = generate_uid(prefix=None)
    derived.SeriesNumber, derived.InstanceNumber = "", "1"
    derived.Modality = _code(source, "Modality") or "OT"
    text = notice(scale, model, what)
    derived.DerivationDescription = text[:1024]
    derived.ImageComments = text
    named = what.split(";")[0] or model
    derived.SeriesDescription = f"Synthetic x{scale}, not for diagnosis: {named}"[:64]
    derived.SecondaryCaptureDeviceManufacturer = "srgan_lib"
    derived.SecondaryCaptureDeviceSoftwareVersions = __version__
    if _uid(source, "SOPClassUID") and _uid(source, "SOPInstanceUID"):
        purpose = Dataset()
        purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
        purpose.CodeMeaning = "Source image for image processing operation"
        reference = Dataset()
        reference.ReferencedSOPClassUID = _uid(source, "SOPClassUID")
        reference.ReferencedSOPInstanceUID = _uid(source, "SOPInstanceUID")
        reference.PurposeOfReferenceCodeSequence = [purpose]
        derived.SourceImageSequence = [reference]


def _describe_patient(derived: Dataset, source: Dataset, keep: bool) -> None:
    """Say whose image it is, or that this was removed."""
    # Without it an image may or may not carry text in its pixels; only the source can know.
    burned_in = _code(source, "BurnedInAnnotation")
    if burned_in in ("YES", "NO"):
        derived.BurnedInAnnotation = burned_in
    if keep:
        derived.PatientName = derived.PatientID = ""
        for name in _PATIENT:
            value = _text(source, name)
            if value:
                setattr(derived, name, value)
        derived.StudyInstanceUID = _uid(source, "StudyInstanceUID") or generate_uid(prefix=None)
        return
    derived.PatientName = derived.PatientID = "ANONYMOUS"
    derived.StudyInstanceUID = generate_uid(prefix=None)
    # YES would speak for the pixels, too (PS3.3, C.7.1.1).
    derived.PatientIdentityRemoved = "NO" if burned_in == "YES" else "YES"
    derived.DeidentificationMethod = [
        "Built anew from a list of attributes without the patient",
        "UID of the source image retained; pixels not searched for text",
    ]
    derived.LongitudinalTemporalInformationModified = "REMOVED"


def _describe_geometry(derived: Dataset, source: Dataset, scale: int) -> None:
    """Say what is seen from where, and how large a pixel is."""
    for name in _VIEW:
        value = _code(source, name)
        if value:
            setattr(derived, name, value)
    for name in _SPACINGS:
        spacing = _two_positive(source, name)
        if spacing is not None:
            setattr(derived, name, [format_number_as_ds(side / scale) for side in spacing])
    aspect = _two_positive(source, "PixelAspectRatio")
    if aspect is not None and not any(name in derived for name in _SPACINGS):
        derived.PixelAspectRatio = [str(round(side)) for side in aspect]
    if _code(source, "LossyImageCompression") == "01":  # once lost, lost for good
        derived.LossyImageCompression = "01"
        ratio, method = (
            _text(source, f"LossyImageCompression{what}") for what in ("Ratio", "Method")
        )
        if ratio and all(
            re.fullmatch(r"\d{1,8}(\.\d{1,7})?", part)
            for part in (ratio if isinstance(ratio, list) else [ratio])
        ):
            derived.LossyImageCompressionRatio = ratio
        if _code(source, "LossyImageCompressionMethod"):
            derived.LossyImageCompressionMethod = method


def _set_pixels(derived: Dataset, image: Pixels) -> None:
    """Store the values: 16 bits of grey, or 8 bits of RGB."""
    values, bits = image.values.cpu().numpy(), image.bits
    if values.ndim != 3 or values.shape[0] not in (1, 3) or values.size == 0:
        raise ImageError(
            f"An image must have the shape (C, H, W) with C = 1 or 3, not {values.shape}."
        )
    channels, height, width = values.shape
    if max(height, width) > 65535 or values.nbytes * (2 if bits == 8 else 1) >= 2**32 - 1:
        raise ImageError(
            f"{height} x {width} pixels are too many for one DICOM image, which holds 65535 a "
            "side and 4 GiB; write a PNG or TIFF instead."
        )
    if channels == 1:
        values = values[0] if bits == 16 else values[0] * np.uint16(257)
        derived.SamplesPerPixel, derived.PhotometricInterpretation = 1, "MONOCHROME2"
        # The window that changes nothing: without one, some viewers take the image's own range.
        derived.WindowCenter, derived.WindowWidth = "32768", "65536"
    else:
        values = values if bits == 8 else np.rint(values / np.float32(257)).astype(np.uint8)
        values = values.transpose(1, 2, 0)
        derived.SamplesPerPixel, derived.PhotometricInterpretation = 3, "RGB"
        derived.PlanarConfiguration = 0
    derived.Rows, derived.Columns = height, width
    derived.BitsAllocated = derived.BitsStored = 8 * values.dtype.itemsize
    derived.HighBit = derived.BitsStored - 1
    derived.PixelRepresentation = 0
    derived.PixelData = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    derived["PixelData"].VR = "OW" if channels == 1 else "OB"


def _value(source: Dataset, name: str) -> Any:
    """Return an attribute's value, or None where it is missing or can't be understood."""
    try:
        return source.get(name)
    except Exception:  # pydicom decodes when asked, and raises errors of many kinds
        return None


def _text(source: Dataset, name: str) -> str | list[str]:
    """Return an attribute as text, or a list of texts; empty where there is none."""
    value = _value(source, name)
    if value is None or isinstance(value, bytes | Dataset):
        return ""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return str(value)
    # A person's name can be iterated over, and is one value for all that.
    return [str(item) for item in value] if hasattr(value, "append") else str(value)


def _code(source: Dataset, name: str) -> str | list[str]:
    """Return an attribute of coded strings, or nothing where it is free text."""
    value = _text(source, name)
    parts = value if isinstance(value, list) else [value]
    return value if all(re.fullmatch(r"[A-Z0-9_ ]{1,16}", part) for part in parts) else ""


def _uid(source: Dataset, name: str) -> str:
    """Return a valid UID, or nothing."""
    value = _text(source, name)
    return value if isinstance(value, str) and value and UID(value).is_valid else ""


def _two_positive(source: Dataset, name: str) -> tuple[float, float] | None:
    """Return two positive numbers, or None where an attribute holds something else."""
    value = _text(source, name)
    try:
        numbers = [float(part) for part in value]
    except ValueError:
        return None
    if not isinstance(value, list) or len(numbers) != 2:
        return None
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        return None
    return numbers[0], numbers[1]
