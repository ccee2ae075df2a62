"""Derived DICOM files: the right values, honest descriptions, and nothing of the patient."""

import os
import warnings

import numpy as np
import pydicom
import pytest
import torch
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import DigitalXRayImageStorageForPresentation, SecondaryCaptureImageStorage

from srgan_lib import dicom
from srgan_lib.dicom import write_derived
from srgan_lib.errors import ConfigurationError, ImageError, SRGANError
from srgan_lib.images import Pixels, read_image, read_pixels, to_pixels

SECRETS = {
    "PatientName": "Secretname^Josephine",
    "PatientID": "SECRETID-4711",
    "OtherPatientIDs": "SECRETOTHER-4712",
    "IssuerOfPatientID": "SECRETISSUER",
    "PatientBirthDate": "19610203",
    "PatientBirthName": "Secretbirth",
    "PatientSex": "F",
    "PatientAge": "063Y",
    "PatientAddress": "Secretstreet 5",
    "PatientComments": "secretcomment",
    "StudyInstanceUID": "1.2.3.4.5.6.777",
    "SeriesInstanceUID": "1.2.3.4.5.6.778",
    "FrameOfReferenceUID": "1.2.3.4.5.6.779",
    "StudyDate": "20240506",
    "StudyTime": "070809",
    "SeriesDate": "20240507",
    "AcquisitionDate": "20240508",
    "AcquisitionTime": "080910",
    "ContentDate": "20240509",
    "StudyID": "SECRETSTUDY",
    "StudyDescription": "secret thorax",
    "SeriesDescription": "secret series",
    "ProtocolName": "secret protocol",
    "AccessionNumber": "SECRETACC",
    "ReferringPhysicianName": "Secretdoctor^A",
    "PerformingPhysicianName": "Secretdoctor^B",
    "OperatorsName": "Secretoperator",
    "InstitutionName": "Secret Hospital",
    "InstitutionAddress": "Secret Town",
    "StationName": "SECRETSTATION",
    "DeviceSerialNumber": "SECRETSERIAL",
    "ImageComments": "secret image comment",
    "RequestedProcedureDescription": "secret procedure",
}
KEPT = [
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "StudyInstanceUID",
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
]


@pytest.fixture
def source():
    """A radiograph's data set that is full of what must not be copied."""
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3.4.5"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.BitsStored, dataset.BitsAllocated, dataset.HighBit = 12, 16, 11
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 3, -1024, "US"
    dataset.WindowCenter, dataset.WindowWidth = 600, 1600
    dataset.VOILUTFunction, dataset.PresentationLUTShape = "SIGMOID", "INVERSE"
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [2, 0, 16], b"\0\0\1\0"
    dataset.VOILUTSequence = [table]
    dataset.add_new((0x6000, 0x3000), "OW", b"secret overlay")
    dataset.add_new((0x0009, 0x0010), "LO", "SECRET VENDOR")
    dataset.add_new((0x0009, 0x1001), "LO", "secret private")
    for name, value in SECRETS.items():
        setattr(dataset, name, value)
    return dataset


@pytest.fixture
def write(tmp_path, source):
    """Return a function that writes an image and reads the data set back."""

    def call(image=None, **options):
        path = tmp_path / "derived.dcm"
        if image is None:
            image = to_pixels(torch.rand(1, 8, 12), 16)
        write_derived(path, image, source, **{"scale": 4, "model": "srgan"} | options)
        return pydicom.dcmread(path)

    return call


def test_every_level_comes_back(tmp_path, write):
    levels = torch.arange(2**16).reshape(1, 256, 256)
    write(Pixels(levels.to(torch.uint16), 16))
    found = read_pixels(tmp_path / "derived.dcm")
    assert torch.equal(found.values.long(), levels) and found.bits == 16


def test_image_comes_back_to_rounding(tmp_path, write):
    image = torch.rand(1, 33, 21)
    write(to_pixels(image, 16))
    assert (read_image(tmp_path / "derived.dcm") - image).abs().max() <= 0.51 / 65535


def test_grey_of_8_bits_is_stretched_to_16(tmp_path, write):
    image = to_pixels(torch.rand(1, 7, 5), 8)
    assert write(image).BitsStored == 16
    assert torch.equal(read_image(tmp_path / "derived.dcm"), image.to_float())


@pytest.mark.parametrize("size", [(6, 4), (5, 3)])
def test_colour_is_rgb_of_8_bits(tmp_path, write, size):
    image = to_pixels(torch.rand(3, *size), 8)
    dataset = write(image)
    assert dataset.PhotometricInterpretation == "RGB" and dataset.SamplesPerPixel == 3
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (8, 8, 7)
    assert len(dataset.PixelData) % 2 == 0
    assert torch.equal(read_image(tmp_path / "derived.dcm"), image.to_float())


def test_colour_of_16_bits_is_rounded_to_8(tmp_path, write):
    image = torch.rand(3, 6, 4)
    write(to_pixels(image, 16))
    assert (read_image(tmp_path / "derived.dcm") - image).abs().max() < 0.51 / 255


def test_pixels_are_described_as_they_are(write):
    dataset = write()
    assert (dataset.Rows, dataset.Columns) == (8, 12)
    assert dataset.PhotometricInterpretation == "MONOCHROME2" and dataset.PixelRepresentation == 0
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 16, 15)


def test_image_is_said_to_be_synthetic_and_derived(write, source):
    dataset = write(model="srgan", scale=4)
    assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
    assert dataset.SOPClassUID == SecondaryCaptureImageStorage
    assert dataset.file_meta.MediaStorageSOPClassUID == SecondaryCaptureImageStorage
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert dataset.ConversionType == "SYN"
    for text in (dataset.DerivationDescription, dataset.ImageComments):
        assert "Synthetic" in text and "enlarged 4 times" in text
        assert "model srgan" in text and "Not for diagnosis" in text
    assert "not for diagnosis" in dataset.SeriesDescription
    (reference,) = dataset.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == source.SOPClassUID
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert dataset.Modality == "DX" and dataset.BodyPartExamined == "CHEST"
    assert dataset.ViewPosition == "PA" and list(dataset.PatientOrientation) == ["L", "F"]


def test_uids_are_new_and_valid_each_time(write, source):
    seen = []
    for _ in range(2):
        dataset = write()
        seen += [dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID]
    assert len(set(seen)) == 6 and all(uid.is_valid for uid in seen)
    assert not {source.SOPInstanceUID, SECRETS["StudyInstanceUID"]} & set(seen)


def test_nothing_of_the_patient_is_in_the_file(tmp_path, write):
    dataset = write()
    data = (tmp_path / "derived.dcm").read_bytes()
    for name, secret in SECRETS.items():
        if len(secret) > 3:  # shorter ones may occur by chance; see below
            assert secret.encode() not in data, name
    assert b"secret" not in data.lower()
    assert dataset.PatientName == "ANONYMOUS" and dataset.PatientID == "ANONYMOUS"
    for name in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber"):
        assert dataset[name].is_empty, name
    assert "PatientAge" not in dataset and "InstitutionName" not in dataset
    assert dataset.PatientIdentityRemoved == "YES"
    assert any("Built anew" in line for line in dataset.DeidentificationMethod)


@pytest.mark.parametrize("keep", [False, True])
def test_private_tags_overlays_and_the_source_s_grey_scale_are_not_copied(write, keep):
    dataset = write(keep_patient=keep)
    assert not any(element.tag.is_private for element in dataset.iterall())
    assert not any(0x6000 <= element.tag.group < 0x6100 for element in dataset)
    for name in [
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
        "VOILUTSequence",
        "VOILUTFunction",
        "PresentationLUTShape",
        "ModalityLUTSequence",
    ]:
        assert name not in dataset, name
    assert (dataset.WindowCenter, dataset.WindowWidth) == (32768, 65536)


def test_only_listed_attributes_are_kept_with_the_patient(tmp_path, write, source):
    dataset = write(keep_patient=True)
    for name in KEPT:
        assert dataset[name].value == source[name].value, name
    for name in set(SECRETS) - set(KEPT) - {"SeriesInstanceUID"}:
        assert name not in dataset or dataset[name].value != source[name].value, name
    assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
    assert "PatientIdentityRemoved" not in dataset
    assert "Not for diagnosis" in dataset.ImageComments


def test_names_in_other_character_sets_are_kept_as_utf_8(tmp_path, write, source):
    source.SpecificCharacterSet = "ISO_IR 100"
    source.PatientName = "Müller^Jürgen"
    dataset = write(keep_patient=True)
    assert dataset.PatientName == "Müller^Jürgen" and dataset.SpecificCharacterSet == "ISO_IR 192"
    assert "Müller^Jürgen".encode() in (tmp_path / "derived.dcm").read_bytes()


def test_source_that_was_anonymous_before_stays_so(write, source):
    source.PatientIdentityRemoved, source.DeidentificationMethod = "YES", "by hand"
    dataset = write(keep_patient=True)
    assert dataset.PatientIdentityRemoved == "YES" and dataset.DeidentificationMethod == "by hand"


@pytest.mark.parametrize(
    ("said", "burned_in", "removed"),
    [(None, None, "YES"), ("NO", "NO", "YES"), ("YES", "YES", "NO"), ("MAYBE", None, "YES")],
)
def test_burned_in_text_is_what_the_source_says(write, source, said, burned_in, removed):
    if said is not None:
        source.BurnedInAnnotation = said
    dataset = write()
    assert dataset.get("BurnedInAnnotation") == burned_in
    assert dataset.PatientIdentityRemoved == removed


SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize(
    ("scale", "spacing", "expected"),
    [
        (4, ["0.143", "0.143"], [0.03575, 0.03575]),
        (2, ["0.2", "0.1"], [0.1, 0.05]),
        (3, ["0.1", "0.1"], [0.1 / 3, 0.1 / 3]),
    ],
)
def test_spacing_is_divided_by_the_scale(write, source, name, scale, spacing, expected):
    setattr(source, name, spacing)
    dataset = write(scale=scale)
    assert [float(side) for side in dataset[name].value] == pytest.approx(expected, rel=1e-9)
    assert all(len(str(side)) <= 16 for side in dataset[name].value)
    assert not (set(SPACINGS) - {name}) & set(dataset.dir())


def raw(name, value):
    """Return an attribute as it lies in a file, of any content."""
    return RawDataElement(Tag(name), "DS", len(value), value, 0, False, True)


@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0\\0 ",
        b"0.1\\0 ",
        b"-1\\-1 ",
        b"0.143 ",
        b"0,143\\0,143",
        b"wide\\wide ",
        b"nan\\nan ",
        b"inf\\inf ",
        b"1\\1\\1 ",
        b"\\0.1",
        b"\xff\xff\\\xff",
    ],
)
def test_missing_zero_and_malformed_spacings_are_left_out(write, source, name, value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source[Tag(name)] = raw(name, value)
    dataset = write()
    assert not set(SPACINGS) & set(dataset.dir())
    assert dataset.Rows == 8


def test_aspect_ratio_stays_where_no_spacing_says_it(write, source):
    source.PixelAspectRatio = ["4", "3"]
    assert list(write().PixelAspectRatio) == [4, 3]
    source.PixelSpacing = ["0.4", "0.3"]
    assert "PixelAspectRatio" not in write()


def test_lossy_compression_is_not_forgotten(write, source):
    assert "LossyImageCompression" not in write()
    source.LossyImageCompression, source.LossyImageCompressionRatio = "01", "10"
    dataset = write()
    assert dataset.LossyImageCompression == "01" and dataset.LossyImageCompressionRatio == 10


def test_source_without_any_attribute_will_do(tmp_path):
    image = to_pixels(torch.rand(1, 4, 4), 16)
    for keep in (False, True):
        write_derived(
            tmp_path / "image.dcm", image, Dataset(), scale=2, model="m", keep_patient=keep
        )
        dataset = pydicom.dcmread(tmp_path / "image.dcm")
        assert dataset.StudyInstanceUID.is_valid and "SourceImageSequence" not in dataset
        assert dataset.Modality == "OT"


@pytest.mark.parametrize("keep", [False, True])
def test_real_radiograph(tmp_path, keep):
    original = pydicom.dcmread(get_testdata_file("RG1_UNCR.dcm", download=False))
    image = to_pixels(torch.rand(1, 16, 16), 16)
    path = tmp_path / "image.dcm"
    write_derived(path, image, original, scale=4, model="srgan", keep_patient=keep)
    dataset = pydicom.dcmread(path)
    assert torch.equal(read_pixels(path).values, image.values)
    assert list(original.PixelSpacing) == [0, 0] and "PixelSpacing" not in dataset
    assert (dataset.PatientID == original.PatientID) == keep
    for element in dataset.iterall():
        assert element.VR != "UN"
        element.value  # noqa: B018 (decodes it)


def test_model_with_a_long_name_fits(write):
    dataset = write(model="m" * 200)
    assert len(dataset.SeriesDescription) <= 64 and "m" * 200 in dataset.ImageComments


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((1, 65536, 1), np.uint16),
        np.zeros((2, 4, 4), np.uint16),
        np.zeros((4, 4), np.uint16),
        np.zeros((1, 0, 4), np.uint16),
        np.broadcast_to(np.uint16(0), (1, 50000, 50000)),
    ],
    ids=["too high", "two channels", "no channels", "empty", "too large"],
)
def test_impossible_images_are_refused(tmp_path, source, values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch, on memory that it must not write to
        image = Pixels(torch.from_numpy(values), 16)
    with pytest.raises(ImageError, match=r"65535 a side and 4 GiB|\(C, H, W\)"):
        write_derived(tmp_path / "image.dcm", image, source, scale=4, model="m")
    assert os.listdir(tmp_path) == []


def test_impossible_scale_is_refused(write):
    with pytest.raises(ConfigurationError, match="positive whole number, not 0"):
        write(scale=0)


def test_failed_write_keeps_the_old_file(tmp_path, write, monkeypatch):
    write()
    before = (tmp_path / "derived.dcm").read_bytes()

    def fail(*args):
        raise SRGANError("no space")

    monkeypatch.setattr(dicom, "write_atomically", fail)
    with pytest.raises(SRGANError, match="no space"):
        write()
    assert (tmp_path / "derived.dcm").read_bytes() == before
    assert os.listdir(tmp_path) == ["derived.dcm"]
