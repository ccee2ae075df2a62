"""Data sets: splits by patient, archives that can't do harm, downloads that fail cleanly."""

import csv
import hashlib
import os
import stat
import zipfile
from pathlib import Path

import kagglehub
import numpy as np
import PIL.Image
import pooch
import pydicom
import pytest
import torch
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from srgan_lib import datasets
from srgan_lib.architectures import Interpolation
from srgan_lib.datasets import Dataset, Record, extract, open_dataset, split_by_patient
from srgan_lib.degradation import crop_to_multiple, degrade
from srgan_lib.errors import ConfigurationError, DatasetError, ImageError
from srgan_lib.images import read_pixels, to_channels, write_image
from srgan_lib.metrics import psnr


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path_factory):
    """Let no test download anything, nor see what was downloaded before."""

    def refuse(*args, **kwargs):
        raise ConnectionError("no network in tests")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    monkeypatch.setattr(kagglehub, "dataset_download", refuse)
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets, "cache_folder", lambda: cache)
    monkeypatch.delenv("SRGAN_DATA_DIR", raising=False)


@pytest.fixture(scope="session")
def hannover():
    """The folder of the real data set, if it is at hand."""
    folder = Path(os.environ.get("SRGAN_DATA_DIR") or "nowhere") / "covid19-hannover"
    if not folder.is_dir():
        pytest.skip("SRGAN_DATA_DIR names no folder that holds covid19-hannover")
    return folder.resolve()


def records(patients):
    """Make a record, without a file, for each patient's id in the list."""
    return [Record(Path(f"{n}.png"), patient, str(n)) for n, patient in enumerate(patients)]


def folder_of_images(folder, names, size=(8, 10), channels=1):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / name, torch.full((channels, *size), number / 255))
    return folder


# Splits


def test_no_patient_stands_on_two_sides_and_no_image_is_lost():
    given = records([f"p{n % 13}" for n in range(100)])
    parts = split_by_patient(given, test=3, validation=2)
    patients = {side: {record.patient for record in part} for side, part in parts.items()}
    assert [len(patients[side]) for side in ("test", "validation", "train")] == [3, 2, 8]
    assert patients["test"].isdisjoint(patients["validation"] | patients["train"])
    assert patients["validation"].isdisjoint(patients["train"])
    assert sorted(r.name for part in parts.values() for r in part) == sorted(r.name for r in given)
    for part in parts.values():
        assert part == [record for record in given if record in part]  # in their given order


def test_split_goes_by_the_hash_of_the_patient_s_id_and_nothing_else():
    ids = [f"patient {n}" for n in range(20)]
    order = sorted(ids, key=lambda name: hashlib.sha256(name.encode("utf-8")).hexdigest())
    parts = split_by_patient(records(ids[::-1]), test=4, validation=3)
    assert {record.patient for record in parts["test"]} == set(order[:4])
    assert {record.patient for record in parts["validation"]} == set(order[4:7])
    assert order[:4] != ids[:4]


# The sample


def test_sample_holds_two_radiographs_of_different_patients():
    train, test, whole = (open_dataset("sample", split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(whole)) == (1, 1, 2)
    assert [tuple(image.shape) for image in whole] == [(1, 1955, 1841), (1, 1760, 1760)]
    assert set(train.patients).isdisjoint(test.patients)
    assert whole.source and whole.licence
    with pytest.raises(DatasetError, match="'validation' part of 'sample' holds no image"):
        open_dataset("sample", "validation")


def test_altered_sample_is_refused(monkeypatch):
    monkeypatch.setitem(datasets._SAMPLE_HASHES, "RG1_UNCR.dcm", "0" * 64)
    with pytest.raises(DatasetError, match=r"RG1_UNCR\.dcm is not the file that was published"):
        open_dataset("sample")


def test_missing_sample_says_which_package_to_install(monkeypatch):
    monkeypatch.setattr(datasets.pydicom.data, "get_testdata_file", lambda *a, **k: None)
    with pytest.raises(DatasetError, match="install the package pydicom-data"):
        open_dataset("sample")


# Names


@pytest.mark.parametrize(
    ("name", "near"),
    [("covid19-hanover", "covid19-hannover"), ("smaple", "sample"), ("radiography", "covid19-rad")],
)
def test_unknown_name_suggests_the_nearest(name, near):
    with pytest.raises(ConfigurationError, match=f"Unknown data set.*Did you mean '{near}"):
        open_dataset(name)


def test_an_empty_name_does_not_open_the_current_folder():
    with pytest.raises(ConfigurationError, match="Unknown data set ''"):
        open_dataset("")


def test_unknown_split_suggests_the_nearest():
    with pytest.raises(ConfigurationError, match=r"Unknown split 'valid'.*'validation'"):
        open_dataset("sample", "valid")


@pytest.mark.parametrize("name", [Path("nowhere"), "nowhere/at/all"])
def test_missing_folder_is_no_unknown_name(name):
    with pytest.raises(DatasetError, match="There is no folder nowhere"):
        open_dataset(name)


# Folders


def test_folder_gives_the_images_in_it_and_below_in_order(tmp_path):
    names = ["b.png", "a.PNG", "c/d.jpg", "c/e.tif"]
    folder_of_images(tmp_path, names)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    found = open_dataset(tmp_path)
    assert [record.name for record in found.records] == ["a.PNG", "b.png", "c/d.jpg", "c/e.tif"]
    assert len(found.patients) == 4
    assert [round(float(image.mean()) * 255) for image in found] == [1, 0, 2, 3]
    assert "4 images of 4 patients" in repr(found)


def test_folder_finds_dicom_files_by_their_content(tmp_path):
    folder_of_images(tmp_path, ["a.png"])
    for name in ("IM0001", "DICOMDIR"):  # 128 bytes that mean nothing, and the mark
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    (tmp_path / "empty").touch()
    assert [record.name for record in open_dataset(tmp_path).records] == ["IM0001", "a.png"]


def test_dicom_files_of_a_folder_belong_to_their_patients_who_stay_unnamed(tmp_path):
    folder_of_images(tmp_path, ["0.png"])
    for name, patient in (("1.dcm", "Planted 7"), ("2", "Other"), ("3", "Planted 7"), ("4", "")):
        dataset = pydicom.Dataset()
        dataset.PatientID = patient
        dataset.Rows = 1  # an image has it; DICOM files without are passed over
        dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.save_as(tmp_path / name, enforce_file_format=True)
    (tmp_path / "5").write_bytes(bytes(128) + b"DICM" + b"damaged")
    found = open_dataset(tmp_path)
    expected = ["0.png", "patient 1", "patient 2", "patient 1", "4", "5"]
    assert [record.patient for record in found.records] == expected
    assert "Planted" not in repr(found) + str(found.records)
    named = open_dataset(tmp_path, patient_of=lambda path: path.name[:1])
    assert [record.patient for record in named.records] == list("012345")


def test_folder_is_split_by_patient_of(tmp_path):
    folder_of_images(tmp_path, [f"p{n % 10}-{n}.png" for n in range(30)])
    parts = {
        split: open_dataset(tmp_path, split, patient_of=lambda path: path.name.split("-")[0])
        for split in ("train", "validation", "test", "all")
    }
    assert [len(part.patients) for part in parts.values()] == [7, 1, 2, 10]
    assert [len(part) for part in parts.values()] == [21, 3, 6, 30]
    assert not set(parts["train"].patients) & set(parts["test"].patients)
    assert not set(parts["validation"].patients) & set(parts["test"].patients)
    assert not set(parts["validation"].patients) & set(parts["train"].patients)


def test_folder_without_images_and_one_too_small_to_split_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no image"):
        open_dataset(tmp_path)
    folder_of_images(tmp_path, ["a.png", "b.png"])
    with pytest.raises(DatasetError, match=r"'test' part .* patients are too few, 2; ten"):
        open_dataset(tmp_path, "test")


def test_broken_image_names_its_file(tmp_path):
    folder_of_images(tmp_path, ["a.png"])
    (tmp_path / "b.png").write_bytes(b"broken")
    found = open_dataset(tmp_path)
    found[0]
    with pytest.raises(ImageError, match=r"b\.png"):
        found[1]


# Channels, width and bit depth


def test_channels_are_converted_or_left(tmp_path):
    write_image(tmp_path / "image.png", torch.tensor([1.0, 0, 0]).view(3, 1, 1).expand(3, 8, 8))
    assert open_dataset(tmp_path, channels=None)[0].shape == (3, 8, 8)
    assert open_dataset(tmp_path, channels=3)[0].shape == (3, 8, 8)
    grey = open_dataset(tmp_path)[0]
    assert grey.shape == (1, 8, 8)
    assert torch.equal(grey, torch.full((1, 8, 8), round(0.299 * 255) / 255))


def test_grey_is_replicated_for_three_channels(tmp_path):
    folder_of_images(tmp_path, ["a.png", "b.png"])
    assert (
        open_dataset(tmp_path, channels=3)[1].tolist() == torch.full((3, 8, 10), 1 / 255).tolist()
    )


def test_wider_images_are_scaled_down_and_narrower_ones_left(tmp_path):
    folder_of_images(tmp_path, ["a.png"], size=(30, 40))
    assert open_dataset(tmp_path, width=20)[0].shape == (1, 15, 20)
    assert open_dataset(tmp_path, width=40)[0].shape == (1, 30, 40)
    assert open_dataset(tmp_path, width=50)[0].shape == (1, 30, 40)


@pytest.mark.parametrize(("bits", "depths"), [(None, [8, 16]), (8, [8, 8]), (16, [16, 16])])
def test_pixels_come_at_the_bit_depth_asked_for(tmp_path, bits, depths):
    write_image(tmp_path / "a.png", torch.full((1, 8, 8), 0.4), 8)
    write_image(tmp_path / "b.png", torch.full((1, 8, 8), 0.4), 16)
    found = open_dataset(tmp_path).pixels(bits)
    assert [image.bits for image in found] == depths
    for image in found:
        assert image.values.unique().tolist() == [{8: 102, 16: 26214}[image.bits]]


def test_data_set_is_a_sequence(tmp_path):
    folder_of_images(tmp_path, ["a.png", "b.png"])
    found = open_dataset(tmp_path)
    assert len(found) == 2 and len(list(found)) == 2
    assert torch.equal(found[-1], found[1])
    with pytest.raises(IndexError):
        found[2]


def test_data_set_without_records_is_refused():
    with pytest.raises(DatasetError, match="holds no image"):
        Dataset("x", "all", [], "", "")


# covid19-radiography


def kaggle_folder(root):
    """Make the layout of the Kaggle archive, masks included, with ten images of each class."""
    top = root / "COVID-19_Radiography_Dataset"
    for kind in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        for part in ("images", "masks"):
            folder_of_images(
                top / kind / part, [f"{kind}-{n}.png" for n in range(10)], size=(299, 299)
            )
    (top / "COVID.metadata.xlsx").write_bytes(b"")
    return root


def test_radiography_finds_the_images_of_all_classes_and_no_masks(tmp_path, monkeypatch):
    kaggle_folder(tmp_path / "covid19-radiography")
    monkeypatch.setenv("SRGAN_DATA_DIR", str(tmp_path))
    found = open_dataset("covid19-radiography")
    assert len(found) == 40
    assert {record.path.parent.name for record in found.records} == {"images"}
    assert found[0].shape == (1, 299, 299)
    sizes = [len(open_dataset("covid19-radiography", s)) for s in ("train", "validation", "test")]
    assert sizes == [28, 4, 8]


def test_radiography_is_downloaded_where_no_folder_is_named(tmp_path, monkeypatch):
    folder = kaggle_folder(tmp_path / "versions" / "5")
    asked = []
    monkeypatch.setattr(
        kagglehub, "dataset_download", lambda handle: (asked.append(handle), str(folder))[1]
    )
    assert len(open_dataset("covid19-radiography")) == 40
    assert asked == ["tawsifurrahman/covid19-radiography-database"]


def test_radiography_s_failed_download_says_what_to_do():
    with pytest.raises(DatasetError, match=r"no network in tests.*SRGAN_DATA_DIR"):
        open_dataset("covid19-radiography")


def test_incomplete_radiography_names_the_missing_class(tmp_path, monkeypatch):
    folder = kaggle_folder(tmp_path / "covid19-radiography")
    for path in folder.glob("**/Normal/images/*.png"):
        path.unlink()
    monkeypatch.setenv("SRGAN_DATA_DIR", str(tmp_path))
    with pytest.raises(DatasetError, match="no images in Normal/images"):
        open_dataset("covid19-radiography")


# covid19-hannover from a made archive

PATIENTS = 24


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A small data set of Hannover's form; its manifest stands in for the real one."""
    folder = tmp_path / "made"
    ids = [f"{n:08x}" for n in range(2 * PATIENTS)]
    folder_of_images(folder, [f"png/{name}.png" for name in ids])
    with (folder / "data.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["patient_id", "image_id", "projection"])
        rows.writerows([n % PATIENTS, name, "ap"] for n, name in enumerate(ids))
    contents = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    monkeypatch.setattr(datasets, "_read_manifest", lambda: manifest)
    return contents, manifest


def pack(path, contents, top="repository-ad7ab09/"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in contents.items():
            zipped.writestr(top + name, data)
    return path


def serve(monkeypatch, contents):
    """Let the download give an archive of these contents; return the list of calls."""
    calls = []

    def retrieve(url, known_hash, fname, path, downloader):
        calls.append(url)
        return str(pack(Path(path) / fname, contents))

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    return calls


def test_downloaded_archive_is_checked_kept_and_not_downloaded_twice(made, monkeypatch, capsys):
    contents, _ = made
    calls = serve(monkeypatch, contents | {"README.md": b"more"})
    first = open_dataset("covid19-hannover")
    second = open_dataset("covid19-hannover")
    assert len(calls) == 1 and "ad7ab09" in calls[0]
    assert len(first) == len(second) == 2 * PATIENTS and len(first.patients) == PATIENTS
    assert torch.equal(first[5], torch.full((1, 8, 10), 5 / 255))
    assert "CC BY 3.0" in capsys.readouterr().out
    assert sorted(os.listdir(datasets.cache_folder())) == [".lock", "covid19-hannover"]
    folder = datasets.cache_folder() / "covid19-hannover"
    kept = {path.name for path in folder.rglob("*") if path.is_file()}
    assert kept == {Path(name).name for name in contents}  # what wasn't asked for isn't kept


def test_split_of_the_archive_takes_14_and_7_patients(made, monkeypatch):
    serve(monkeypatch, made[0])
    parts = [open_dataset("covid19-hannover", s) for s in ("test", "validation", "train")]
    assert [len(part.patients) for part in parts] == [14, 7, PATIENTS - 21]
    assert [len(part) for part in parts] == [28, 14, 2 * (PATIENTS - 21)]


@pytest.mark.parametrize("fault", ["network", "altered", "missing", "no archive"])
def test_failed_download_installs_nothing_and_the_next_try_succeeds(made, monkeypatch, fault):
    contents, _ = made
    victim = next(name for name in contents if name.endswith("7.png"))
    if fault == "altered":
        serve(monkeypatch, contents | {victim: contents[victim] + b"x"})
    elif fault == "missing":
        serve(monkeypatch, {name: data for name, data in contents.items() if name != victim})
    elif fault == "no archive":

        def retrieve(url, known_hash, fname, path, downloader):
            (Path(path) / fname).write_bytes(b"<html>Not found</html>")
            return str(Path(path) / fname)

        monkeypatch.setattr(pooch, "retrieve", retrieve)
    with pytest.raises(DatasetError):
        open_dataset("covid19-hannover")
    assert os.listdir(datasets.cache_folder()) == [".lock"]
    serve(monkeypatch, contents)
    assert len(open_dataset("covid19-hannover")) == 2 * PATIENTS


def test_failed_download_names_address_reason_and_way_out():
    with pytest.raises(DatasetError) as caught:
        open_dataset("covid19-hannover")
    for part in ("ad7ab09.zip", "no network in tests", "SRGAN_DATA_DIR"):
        assert part in str(caught.value)


def test_altered_and_missing_files_on_the_disk_are_refused_by_name(made, monkeypatch, tmp_path):
    contents, _ = made
    for name, data in contents.items():
        (tmp_path / "covid19-hannover" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "covid19-hannover" / name).write_bytes(data)
    monkeypatch.setenv("SRGAN_DATA_DIR", str(tmp_path))
    assert len(open_dataset("covid19-hannover")) == 2 * PATIENTS  # and no download
    victim = tmp_path / "covid19-hannover" / "png" / "00000003.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-1] + b"x")
    with pytest.raises(DatasetError, match=r"00000003\.png is not the file"):
        open_dataset("covid19-hannover")
    victim.unlink()
    with pytest.raises(DatasetError, match=r"00000003\.png can't be read"):
        open_dataset("covid19-hannover")


def test_data_folder_without_the_data_set_is_passed_over(made, monkeypatch, tmp_path):
    calls = serve(monkeypatch, made[0])
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("SRGAN_DATA_DIR", str(tmp_path / "empty"))
    open_dataset("covid19-hannover")
    assert len(calls) == 1


# Archives

GOOD = {"data.csv": b"a,b\n", "png/x.png": bytes(range(256)) * 8}
GOOD_MANIFEST = {name: hashlib.sha256(data).hexdigest() for name, data in GOOD.items()}


def test_extraction_takes_the_manifest_s_files_and_nothing_else(tmp_path):
    archive = pack(tmp_path / "a.zip", GOOD | {"other.sh": b"rm"})
    with zipfile.ZipFile(archive, "a") as zipped:
        link = zipfile.ZipInfo("top/link")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc")
    extract(archive, tmp_path / "deep" / "out", GOOD_MANIFEST)
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if not p.is_dir()}
    assert found == {"a.zip", "deep/out/data.csv", "deep/out/png/x.png"}
    assert (tmp_path / "deep/out/png/x.png").read_bytes() == GOOD["png/x.png"]


def test_link_in_a_file_s_place_is_not_followed(tmp_path):
    archive = pack(tmp_path / "a.zip", {"data.csv": GOOD["data.csv"]})
    with zipfile.ZipFile(archive, "a") as zipped:
        link = zipfile.ZipInfo("repository-ad7ab09/png/x.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc/hostname")
    with pytest.raises(DatasetError, match=r"png/x\.png is not the file that was published"):
        extract(archive, tmp_path / "out", GOOD_MANIFEST)
    assert not (tmp_path / "out").exists()


def damaged_archives():
    names = list(GOOD)
    return {
        "missing file": lambda data, zipped: pack(zipped, {names[0]: GOOD[names[0]]}),
        "wrong content": lambda data, zipped: pack(zipped, GOOD | {names[1]: b"other"}),
        "cut in half": lambda data, zipped: zipped.write_bytes(data[: len(data) // 2]),
        "empty": lambda data, zipped: zipped.write_bytes(b""),
        "no zip": lambda data, zipped: zipped.write_bytes(b"PK\3\4 no zip"),
        "flipped bytes": lambda data, zipped: zipped.write_bytes(_flip(data)),
        "not there": lambda data, zipped: zipped.unlink(),
    }


def _flip(data):
    """Spoil the compressed bytes of the second file, so that zlib itself fails."""
    start = data.index(b"png/x.png") + len(b"png/x.png")
    return data[:start] + b"\xff" * 12 + data[start + 12 :]


@pytest.mark.parametrize("fault", damaged_archives())
def test_damaged_archive_is_refused_and_leaves_nothing_behind(tmp_path, fault):
    archive = pack(tmp_path / "a.zip", GOOD)
    damaged_archives()[fault](archive.read_bytes(), archive)
    with pytest.raises(DatasetError):
        extract(archive, tmp_path / "out", GOOD_MANIFEST)
    assert not (tmp_path / "out").exists()


# The real data set


def test_manifest_names_243_images_and_the_table_by_their_sha_256():
    manifest = datasets._read_manifest()
    assert len(manifest) == 244 and "data.csv" in manifest
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for digest in manifest.values())
    assert sum(name.startswith("png/") and name.endswith(".png") for name in manifest) == 243


def test_official_split_follows_its_rule(hannover, monkeypatch):
    monkeypatch.setenv("SRGAN_DATA_DIR", str(hannover.parent))
    with (hannover / "data.csv").open(encoding="utf-8", newline="") as file:
        patient = {row["image_id"]: row["patient_id"] for row in csv.DictReader(file)}
    order = sorted(set(patient.values()), key=lambda p: hashlib.sha256(p.encode()).hexdigest())
    expected = {"test": order[:14], "validation": order[14:21], "train": order[21:]}
    sizes = {}
    for split, patients in expected.items():
        found = open_dataset("covid19-hannover", split)
        assert {record.path.stem for record in found.records} == {
            image for image, of in patient.items() if of in patients
        }
        assert all(patient[record.name] == record.patient for record in found.records)
        sizes[split] = (len(found), len(found.patients))
    assert sizes == {"train": (180, 50), "validation": (10, 7), "test": (53, 14)}


def test_interpolation_on_the_test_images_reaches_the_known_psnr(hannover, monkeypatch):
    monkeypatch.setenv("SRGAN_DATA_DIR", str(hannover.parent))
    records = open_dataset("covid19-hannover", "test").records
    found = {"nearest": [], "bilinear": [], "bicubic": [], "bicubic by Pillow": []}
    for record in records:
        pixels = read_pixels(record.path)
        assert pixels.bits == 8
        hr = crop_to_multiple(to_channels(pixels.to_float(), 1), 4)
        lr = degrade(hr)
        for kernel in ("nearest", "bilinear", "bicubic"):
            found[kernel].append(psnr(Interpolation(kernel)(lr[None])[0], hr))
        found["bicubic by Pillow"].append(psnr_by_pillow(record.path))
    means = {kernel: float(np.mean(values)) for kernel, values in found.items()}
    expected = {"nearest": 30.43, "bilinear": 31.11, "bicubic": 31.48, "bicubic by Pillow": 31.47}
    assert means == pytest.approx(expected, abs=0.01)


def psnr_by_pillow(path):
    """Measure bicubic as Pillow does it, with nothing of this library."""
    bicubic = PIL.Image.Resampling.BICUBIC
    with PIL.Image.open(path) as file:
        image = file.convert("L")
    image = image.crop((0, 0, image.width // 4 * 4, image.height // 4 * 4))
    sr = image.resize((image.width // 4, image.height // 4), bicubic).resize(image.size, bicubic)
    error = (np.asarray(sr).astype(float) - np.asarray(image))[4:-4, 4:-4]
    return 10 * np.log10(255**2 / (error**2).mean())
