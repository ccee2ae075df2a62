"""The patient stays unnamed: a planted name goes through every command, and must not come out."""

import json
import logging
import shutil
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from typer.testing import CliRunner

from srgan_lib import cli
from srgan_lib.errors import SRGANError
from srgan_lib.images import read_dicom_header, read_pixels

WORDS = ("PLANTED", "Q77031", "19470605", "0815Q")
PATIENT = {
    "PatientName": "PLANTED^NAME",
    "PatientID": "Q77031",
    "PatientBirthDate": "19470605",
    "OtherPatientIDs": "Q77031B",
    "PatientAddress": "1 PLANTED Street",
    "PatientComments": "PLANTED comment",
    "AccessionNumber": "0815Q",
    "InstitutionName": "PLANTED Hospital",
    "ReferringPhysicianName": "PLANTED^DOCTOR",
    "StudyDescription": "of PLANTED",
    "SeriesDescription": "of PLANTED",
    "ImageComments": "PLANTED",
    "DerivationDescription": "PLANTED",
    "StudyDate": "19470605",
    "BodyPartExamined": "CHEST",
}


def write(path, number=0, side=40, **values):
    """Write a DICOM image of a patient whose name must not be seen."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, f"1.2.{number}"
    dataset.StudyInstanceUID, dataset.Modality = "1.2.3.4", "DX"
    for name, value in (PATIENT | {"PatientID": f"Q77031-{number}"}).items():
        setattr(dataset, name, value)
    dataset.add_new(0x00091001, "LO", "PLANTED private")
    dataset.Rows = dataset.Columns = side
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    pixels = np.random.default_rng(number).integers(0, 4096, (side, side), dtype=np.uint16)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in values.items():
        setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of ten patients; nothing else may come to name them."""
    monkeypatch.chdir(tmp_path)
    for number in range(10):
        write(tmp_path / "study" / f"{number}.dcm", number)
    return tmp_path


@pytest.fixture
def srgan(folder, caplog):
    """Run a command; return all that it said, on the screen and in logs."""
    caplog.set_level(logging.DEBUG)

    def call(*words, code=0):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            result = CliRunner().invoke(cli.app, [str(word) for word in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        said = [str(warning.message) for warning in warned]
        return result.output + caplog.text + "".join(said)

    return call


def assert_unnamed(said, folder):
    """Search what was said, and the names and bytes of all files outside of study/."""
    for path in folder.rglob("*"):
        if path.is_file() and "study" not in path.relative_to(folder).parts:
            said += str(path) + path.read_bytes().decode("latin-1")
    for word in WORDS:
        assert word not in said, word


def test_the_planted_name_is_there_and_the_search_finds_it(folder):
    header = pydicom.dcmread(folder / "study" / "0.dcm")
    assert header.PatientName == PATIENT["PatientName"]
    shutil.copy(folder / "study" / "0.dcm", folder / "copy")
    with pytest.raises(AssertionError, match="PLANTED"):
        assert_unnamed("", folder)


@pytest.mark.parametrize("format", ["dcm", "png", "tiff", "jpg", None])
def test_upscale_names_nobody(srgan, folder, format):
    options = ["--format", format] if format else []
    if format == "jpg":
        options += ["--tile", 16]
    code = 1 if format == "jpg" else 0  # JPEG holds no 16 bits: an error for each file
    said = srgan("upscale", "study", "--model", "bicubic", "--out", "out", *options, code=code)
    assert code or len(list((folder / "out").iterdir())) == 10
    assert_unnamed(said, folder)


def test_upscale_names_the_patient_when_asked(srgan, folder):
    srgan("upscale", "study/0.dcm", "--model", "bicubic", "--out", "out", "--keep-patient")
    kept = pydicom.dcmread(folder / "out" / "0_x4.dcm")
    assert kept.PatientName == PATIENT["PatientName"]


def test_train_and_its_figures_name_nobody(srgan, folder):
    (folder / "tiny.yaml").write_text(
        "stage: content\ncrops_per_epoch: 2\nbatch_size: 2\nepochs: 1\nprecision: 'no'\n"
        "data: {name: study, crop_size: 16}\n"
        "generator: {blocks: 1, width: 2, end_kernel: 3}\n"
    )
    said = srgan("train", "tiny.yaml", "--folder", "run", "--device", "cpu")
    assert (folder / "run" / "generator.safetensors").exists()
    assert list((folder / "run" / "samples").glob("*.png"))
    assert_unnamed(said, folder)


def test_evaluate_data_and_info_name_nobody(srgan, folder):
    said = srgan("evaluate", "--model", "bicubic", "--data", "study", "--out", "r.json")
    said += srgan("data", "study")
    said += srgan("info")
    images = json.loads((folder / "r.json").read_text())["data"]["images"]
    assert {image["patient"] for image in images} < {f"patient {n}" for n in range(1, 11)}
    assert_unnamed(said, folder)


def test_export_names_nobody(srgan, folder):
    pytest.importorskip("onnxscript")
    said = srgan("export", "--model", "bicubic", "--out", "x.onnx")
    assert_unnamed(said, folder)


@pytest.mark.parametrize(
    "values",
    [
        {"WindowCenter": "PLANTED", "WindowWidth": "PLANTED"},
        {"RescaleSlope": "PLANTED", "RescaleIntercept": "0"},
        {"PhotometricInterpretation": "PLANTED"},
        {"NumberOfFrames": "PLANTED"},
        {"PixelSpacing": ["PLANTED", "1"]},
        {"PatientBirthDate": "PLANTED", "StudyDate": "PLANTED", "PatientAge": "PLANTED"},
        {"SOPInstanceUID": "PLANTED"},
        {"PixelData": b"PLANTED "},
        {"SpecificCharacterSet": "PLANTED"},
        {"LossyImageCompression": "01", "LossyImageCompressionMethod": "PLANTED name"},
    ],
    ids=lambda values: next(iter(values)),
)
def test_error_and_warning_about_a_wrong_value_do_not_quote_it(srgan, folder, values, caplog):
    shutil.rmtree(folder / "study")
    plain = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        path = write_raw(folder / "study" / "x.dcm", values)
    finally:
        pydicom.config.settings.writing_validation_mode = plain
    caplog.clear()  # of what pydicom said while the file was made
    said = ""
    for read in (read_pixels, read_dicom_header):
        try:
            read(path)
        except SRGANError as error:
            said += chain(error)
    result = CliRunner().invoke(cli.app, ["upscale", str(path), "--model", "nearest"])
    assert result.exit_code in (0, 1)
    assert_unnamed(said + result.output + caplog.text, folder)


def write_raw(path, values):
    """Write values that break the rules of their attributes: put in as bytes of another's."""
    marks = {}
    for name, value in values.items():
        text = (
            value
            if isinstance(value, bytes)
            else "\\".join(value if isinstance(value, list) else [value]).encode()
        )
        marks[name] = text + b" " * (len(text) % 2)
    plain = {name: value for name, value in values.items() if name == "PixelData"}
    write(path, **plain)
    dataset = pydicom.dcmread(path)
    for name, text in marks.items():
        if name == "PixelData":
            continue
        tag = pydicom.datadict.tag_for_keyword(name)
        vr = pydicom.datadict.dictionary_VR(tag)
        dataset._dict[pydicom.tag.Tag(tag)] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(tag), vr, len(text), text, 0, False, True
        )
    dataset.save_as(path)
    assert any(text in path.read_bytes() for text in marks.values())
    return path


def chain(error):
    """Return what a traceback would show of an error and of those behind it."""
    said = ""
    while error is not None:
        said += f"{type(error).__name__}: {error}\n"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return said
