"""Data sets of radiographs, one interface for all.

``open_dataset`` takes a name from :data:`DATASETS` or a folder of images, and gives a
:class:`Dataset`: a sequence of images that knows its patients, its source and its licence.
Splits are by patient, never by image, wherever patients are known.
"""

import csv
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pooch
import pydicom.data
from torch import Tensor
from tqdm.auto import tqdm

from srgan_lib.degradation import resize
from srgan_lib.errors import DatasetError, SRGANError, unknown_name
from srgan_lib.files import DATA_DIR_VARIABLE, in_data_dir, limit_from, locked
from srgan_lib.images import (
    IMAGE_SUFFIXES,
    Pixels,
    decoders_silenced,
    images_below,
    is_dicom,
    read_dicom_header,
    read_pixels,
    to_channels,
    to_pixels,
)

DATASETS = ("sample", "covid19-hannover", "covid19-radiography")
"""The names that :func:`open_dataset` knows."""

SPLITS = ("train", "validation", "test", "all")
"""The parts of a data set; ``"all"`` is the three others together."""

_HANNOVER_URL = "https://github.com/ml-workgroup/covid-19-image-repository/archive/ad7ab09.zip"
_HANNOVER_HOSTS = ("github.com", "codeload.github.com")
_KAGGLE_HANDLE = "tawsifurrahman/covid19-radiography-database"
_KAGGLE_CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
_SAMPLE_HASHES = {
    "RG1_UNCR.dcm": "946f28f48b9fbf360196a9b835c8fce83b0c654bf85a5107663c8a61df02e498",
    "RG3_UNCR.dcm": "6babfc42dd404213e1758d6dbb93648c248783cc23f593103fff4295c3374dfb",
}


MAX_UNPACKED = 2**30
"""Bytes that an archive may unpack to, unless the variable below says otherwise."""

MAX_UNPACKED_VARIABLE = "SRGAN_MAX_UNPACKED"
"""Environment variable: another limit."""


@dataclass(frozen=True)
class Record:
    """One image of a data set.

    Attributes:
        path: the image file.
        patient: the patient's pseudonymous id, or the image's name where none is known.
        name: a short name for tables and figures.
    """

    path: Path
    patient: str
    name: str


class Dataset(Sequence[Tensor]):
    """A sequence of images, read when they are asked for.

    Attributes:
        name: the name it was opened by.
        split: the part that this is, one of :data:`SPLITS`.
        records: one :class:`Record` for each image.
        source: where the images come from; name it wherever they, or what was trained on
            them, appear.
        licence: what may be done with them.
        channels: channels that images are converted to, or None to leave them as they are.
        width: images that are wider, in pixels, are scaled down to this, or None.
    """

    def __init__(
        self,
        name: str,
        split: str,
        records: Sequence[Record],
        source: str,
        licence: str,
        channels: int | None = 1,
        width: int | None = None,
    ) -> None:
        if not records:
            raise DatasetError(f"The {split!r} part of {name!r} holds no image.")
        self.name, self.split, self.records = name, split, tuple(records)
        self.source, self.licence = source, licence
        self.channels, self.width = channels, width

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tensor:
        """Return image ``index`` as a float tensor (C, H, W) in [0, 1]."""
        return self._convert(read_pixels(self.records[index].path)).to_float()

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    @property
    def patients(self) -> tuple[str, ...]:
        """The ids of the patients, each once, in the order of the records."""
        return tuple(dict.fromkeys(record.patient for record in self.records))

    def pixels(self, bits: int | None = None, progress: bool = False) -> list[Pixels]:
        """Read all images as integers, as a crop sampler wants them.

        Args:
            bits: 8 or 16; None keeps each image's own bit depth.
            progress: show a progress bar.
        """
        bar = tqdm(self.records, desc=f"reading {self.name}", unit="image", disable=not progress)
        images = (self._convert(read_pixels(record.path)) for record in bar)
        return [
            image if bits in (None, image.bits) else to_pixels(image.to_float(), bits)
            for image in images
        ]

    def _convert(self, image: Pixels) -> Pixels:
        """Bring an image to the channels and the width that were asked for."""
        channels, height, width = image.values.shape
        as_it_is = self.channels in (None, channels)
        if as_it_is and (self.width is None or width <= self.width):
            return image
        x = image.to_float() if as_it_is else to_channels(image.to_float(), self.channels)
        if self.width is not None and width > self.width:
            x = resize(x, (round(height * self.width / width), self.width))
        return to_pixels(x, image.bits)

    def __repr__(self) -> str:
        return (
            f"<Dataset {self.name!r}, {self.split}: {len(self)} images of "
            f"{len(self.patients)} patients>"
        )


def open_dataset(
    name: str | os.PathLike = "sample",
    split: str = "all",
    *,
    channels: int | None = 1,
    width: int | None = None,
    patient_of: Callable[[Path], str] | None = None,
) -> Dataset:
    """Open a data set by its name, or any folder of images.

    - ``"sample"``: two real radiographs that come with the package ``pydicom-data``; no
      network. The chest is for training, the extremity, of another patient, for testing;
      there is no validation part.
    - ``"covid19-hannover"``: 243 chest radiographs of 71 COVID-19 patients. Found in the folder
      that ``SRGAN_DATA_DIR`` names, or downloaded once, about 50 MB. The official split sorts
      the patients by the SHA-256 of their id: 14 for testing, 7 for validation, 50 for training.
    - ``"covid19-radiography"``: about 21,000 chest radiographs of 299 x 299 in four classes,
      from Kaggle. Found in ``SRGAN_DATA_DIR`` or downloaded. It does not say which images belong
      to one patient, so its split, 10 % validation and 20 % test by image, can leak.
    - a folder: all images in it and in the folders below. Split like the former, by
      ``patient_of``.

    Args:
        name: a name from :data:`DATASETS`, or the path of a folder.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
        channels: 1 for grey, 3 for RGB, None to leave images as they are.
        width: scale wider images down to this width, by antialiased bicubic.
        patient_of: for a folder: returns the patient's id for a file. Without it, DICOM files
            with the same PatientID belong together, and any other file counts as a patient of
            its own.

    Raises:
        DatasetError: missing, incomplete or altered images, a failed download, an empty part.
        ConfigurationError: an unknown name or split.
    """
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    if name == "sample":
        parts = _sample()
        source = "pydicom-data: RG1_UNCR.dcm (chest) and RG3_UNCR.dcm (extremity), NEMA WG-04"
        licence = "public test images of the DICOM standard, shipped by pydicom-data"
    elif name == "covid19-hannover":
        parts = _hannover()
        source = (
            "COVID-19 Image Repository, Institute for Diagnostic and Interventional Radiology, "
            "Hannover Medical School, DOI 10.6084/m9.figshare.12275009"
        )
        licence = "CC BY 3.0"
    elif name == "covid19-radiography":
        parts = _radiography()
        source = f"COVID-19 Radiography Database, Kaggle: {_KAGGLE_HANDLE}"
        licence = "see the data set's page on Kaggle"
    elif str(name) and os.path.isdir(name):
        records = _images_below(Path(name), patient_of)
        patients = {record.patient for record in records}
        parts = split_by_patient(records, len(patients) // 5, len(patients) // 10)
        if split != "all" and not parts[split]:
            raise DatasetError(
                f"The {split!r} part of {str(name)!r} holds no image: its patients are too few, "
                f"{len(patients)}; ten are needed for all parts. DICOM files of one PatientID "
                "are of one patient."
            )
        source, licence = str(name), "that of your own images"
    elif isinstance(name, os.PathLike) or os.sep in name:
        raise DatasetError(f"There is no folder {name}.")
    else:
        raise unknown_name("data set", name, DATASETS)
    if split == "all":
        records = [record for part in parts.values() for record in part]
        records.sort(key=lambda record: record.path)
    else:
        records = parts[split]
    return Dataset(str(name), split, records, source, licence, channels, width)


def split_by_patient(
    records: Sequence[Record], test: int, validation: int
) -> dict[str, list[Record]]:
    """Divide images so that no patient stands on two sides.

    Patients are sorted by the hexadecimal SHA-256 of their id, an order that anybody can
    reproduce and nobody can choose.

    Args:
        records: the images.
        test: number of patients, the first in that order, for testing.
        validation: number of patients, the next ones, for validation.

    Returns:
        The records under ``"train"``, ``"validation"`` and ``"test"``, in their given order.
    """
    ids = {record.patient for record in records}
    order = sorted(ids, key=lambda patient: hashlib.sha256(patient.encode()).hexdigest())
    side = dict.fromkeys(order[:test], "test")
    side |= dict.fromkeys(order[test : test + validation], "validation")
    parts: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    for record in records:
        parts[side.get(record.patient, "train")].append(record)
    return parts


def cache_folder() -> Path:
    """Return the folder that downloads are kept in."""
    return Path(pooch.os_cache("srgan_lib"))


def _sample() -> dict[str, list[Record]]:
    records = []
    for file, digest in _SAMPLE_HASHES.items():
        path = pydicom.data.get_testdata_file(file, download=False)
        if path is None:
            raise DatasetError(f"{file} is missing: install the package pydicom-data.")
        _check_hash(Path(path), Path(path).read_bytes(), digest)
        records.append(Record(Path(path), Path(path).stem, Path(path).stem))
    return {"train": records[:1], "validation": [], "test": records[1:]}


def _hannover() -> dict[str, list[Record]]:
    manifest = _read_manifest()
    folder = in_data_dir("covid19-hannover")
    if folder is None:
        folder = cache_folder() / "covid19-hannover"
        if not folder.is_dir():
            _install_hannover(folder, manifest)
    for file, digest in manifest.items():
        try:
            data = (folder / file).read_bytes()
        except OSError as error:
            raise DatasetError(
                f"{folder / file} can't be read ({error.strerror}). Delete {folder} and open "
                "the data set again to download it anew."
            ) from error
        _check_hash(folder / file, data, digest)
    rows = csv.DictReader(io.StringIO((folder / "data.csv").read_text(encoding="utf-8")))
    records = [
        Record(folder / "png" / f"{row['image_id']}.png", row["patient_id"], row["image_id"])
        for row in rows
    ]
    return split_by_patient(sorted(records, key=lambda record: record.name), 14, 7)


def _read_manifest() -> dict[str, str]:
    """Return the SHA-256 of each file of covid19-hannover by its relative path."""
    text = (files("srgan_lib") / "covid19_hannover.sha256").read_text(encoding="utf-8")
    return {file: digest for digest, file in (line.split("  ") for line in text.splitlines())}


def _install_hannover(folder: Path, manifest: dict[str, str]) -> None:
    """Download the data set, or wait for the process that does."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        waiting = f"Waiting for another program, which is downloading to {folder}"
        with locked(folder.parent / ".lock", waiting):
            for left in folder.parent.glob(".download-*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            if not folder.is_dir():
                _download_hannover(folder, manifest)
    except OSError as error:
        raise DatasetError(
            f"The data set can't be kept in {folder}: {error.strerror or error}. Make room or set "
            f"{DATA_DIR_VARIABLE} to a folder that holds covid19-hannover."
        ) from error


def _download_hannover(folder: Path, manifest: dict[str, str]) -> None:
    """Download the archive, and move its files in place once each has the right hash."""
    print(
        "Downloading the COVID-19 Image Repository of Hannover Medical School "
        f"(CC BY 3.0) to {folder}"
    )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".download-") as temporary:
        try:
            archive = pooch.retrieve(
                _HANNOVER_URL,
                known_hash=None,  # GitHub may pack anew; every file inside is checked instead
                fname="archive.zip",
                path=temporary,
                downloader=pooch.HTTPDownloader(
                    progressbar=True, hooks={"response": _check_redirect}
                ),
            )
        except Exception as error:  # requests, urllib3 and pooch raise errors of many kinds
            raise DatasetError(
                f"The download of {_HANNOVER_URL} failed: {error}. Check the network and try "
                f"again, or set {DATA_DIR_VARIABLE} to a folder that holds covid19-hannover."
            ) from error
        extract(Path(archive), Path(temporary) / "files", manifest)
        os.replace(Path(temporary) / "files", folder)


def _check_redirect(response: Any, **_: Any) -> None:
    """Follow a redirection to the publisher's hosts only, and never from https to http."""
    if response.is_redirect:
        before = urlsplit(response.url)
        after = urlsplit(urljoin(response.url, response.headers["location"]))
        if after.hostname not in _HANNOVER_HOSTS or (before.scheme, after.scheme) == (
            "https",
            "http",
        ):
            raise DatasetError(f"it was redirected to {after.scheme}://{after.netloc}")


def extract(archive: Path, folder: Path, manifest: dict[str, str]) -> None:
    """Take the files of a manifest, and nothing else, out of a zip archive.

    Names in the archive are only compared, never used as paths, so an archive can't write
    anywhere else. Its single top folder is ignored, and links are never followed or made.

    Args:
        archive: the zip file.
        folder: where to put the files; made here, and removed again if anything is wrong.
        manifest: the SHA-256 of each file by its relative path.

    Raises:
        DatasetError: a damaged archive, a missing file, or one with another hash; a name that
            climbs out of the folder; more bytes than :data:`MAX_UNPACKED`.
    """
    try:
        left = limit = limit_from(MAX_UNPACKED_VARIABLE, MAX_UNPACKED)
        with zipfile.ZipFile(archive) as zipped:
            members = {name.partition("/")[2]: name for name in zipped.namelist()}
            for name in members.values():
                if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                    raise DatasetError(
                        f"The archive {archive.name} holds {name!r}, a name outside of its folder."
                    )
            for file, digest in manifest.items():
                if file not in members:
                    raise DatasetError(f"{file} is missing in the archive {archive.name}.")
                with zipped.open(members[file]) as member:
                    data = member.read(left + 1)  # more is never unpacked, whatever it says
                left -= len(data)
                if left < 0:
                    raise DatasetError(
                        f"The archive {archive.name} unpacks to more than {limit:,} bytes. If you "
                        f"trust it, set the environment variable {MAX_UNPACKED_VARIABLE} to more."
                    )
                _check_hash(Path(file), data, digest)
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                (folder / file).write_bytes(data)
    except SRGANError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception as error:  # zipfile and zlib raise errors of many kinds on broken archives
        shutil.rmtree(folder, ignore_errors=True)
        raise DatasetError(f"The archive {archive.name} can't be extracted: {error}.") from error


def _radiography() -> dict[str, list[Record]]:
    folder = in_data_dir("covid19-radiography")
    if folder is None:
        import kagglehub  # slow to import

        try:
            folder = Path(kagglehub.dataset_download(_KAGGLE_HANDLE))
        except Exception as error:  # kagglehub and requests raise errors of many kinds
            raise DatasetError(
                f"The download of {_KAGGLE_HANDLE} from Kaggle failed: {error}. Check the "
                f"network, or download it by hand and set {DATA_DIR_VARIABLE} to the folder "
                "that holds it as covid19-radiography."
            ) from error
    records: list[Record] = []
    for kind in _KAGGLE_CLASSES:
        found = sorted(folder.glob(f"**/{kind}/images/*.png"))
        if not found:
            raise DatasetError(f"{folder} holds no images in {kind}/images; is it complete?")
        records += [Record(path, path.stem, path.stem) for path in found]
    return split_by_patient(records, len(records) // 5, len(records) // 10)


def _images_below(folder: Path, patient_of: Callable[[Path], str] | None) -> list[Record]:
    paths = images_below(folder)
    if not paths:
        raise DatasetError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
    names = [path.relative_to(folder).as_posix() for path in paths]
    if patient_of:
        patients = [patient_of(path) for path in paths]
    else:
        ids: dict[str, str] = {}  # numbered, since a PatientID must not reach a results file
        patients = []
        for path, name in zip(paths, names, strict=True):
            known = _patient_id(path)
            patients.append(ids.setdefault(known, f"patient {len(ids) + 1}") if known else name)
    return [Record(*fields) for fields in zip(paths, patients, names, strict=True)]


def _patient_id(path: Path) -> str:
    """Return the PatientID of a DICOM file; empty if it has none or is something else."""
    if not is_dicom(path):
        return ""
    try:
        header = read_dicom_header(path, ["PatientID"])
        with decoders_silenced():
            return str(header.get("PatientID") or "").strip()
    except Exception:  # a damaged file is named when it is read
        return ""


def _check_hash(path: Path, data: bytes, digest: str) -> None:
    if hashlib.sha256(data).hexdigest() != digest:
        raise DatasetError(
            f"{path} is not the file that was published: its SHA-256 is not {digest[:12]}... "
            "Delete it and get the data set again."
        )
