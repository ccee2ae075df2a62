"""Bad input: a share of what fuzz.py plays, all that it once found, and bombs by name."""

import io
import itertools
import json
import os
import struct
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import torch
from fuzz_targets import MANIFEST_FILES, TARGETS, dicom_seeds, image_seeds, judge, weights_seeds
from hypothesis import HealthCheck, Phase, given, settings
from typer.testing import CliRunner

from srgan_lib import crops, datasets, images, pretrained
from srgan_lib.architectures import SRResNet
from srgan_lib.cli import app
from srgan_lib.datasets import extract, open_dataset
from srgan_lib.errors import ConfigurationError, DatasetError, ImageError, SRGANError, WeightsError
from srgan_lib.images import read_dicom_header, read_pixels
from srgan_lib.pixels import coded_size
from srgan_lib.pretrained import load_network
from srgan_lib.recipes import read_recipe

CORPUS = Path(__file__).resolve().parent / "corpus"
SECONDS = 4  # for each target, and at least
LEAST = 10  # inputs, on however busy a machine


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    monkeypatch.setenv("SRGAN_MAX_PIXELS", "4000000")


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_end_in_success_or_in_a_sentence(name):
    target, end, played = TARGETS[name], time.monotonic() + SECONDS, itertools.count(1)

    @settings(
        max_examples=400,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs())
    def play(data):
        if next(played) <= LEAST or time.monotonic() < end:
            judge(target, data)

    play()


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_what_they_seem(name):
    """If most were refused, mutations would reach nothing that lies behind the first check."""
    taken = [judge(TARGETS[name], seed) for seed in TARGETS[name].seeds()]
    assert sum(taken) >= len(taken) / 2 - 1 and any(taken)


@pytest.mark.parametrize(
    "path",
    sorted(CORPUS.glob("*/*")),
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_what_was_once_found_stays_mended(path):
    judge(TARGETS[path.parent.name], path.read_bytes())


def test_judge_finds_what_is_no_error_of_the_library():
    target = TARGETS["images"]
    for error in (KeyError("x"), RecursionError(), SRGANError("short"), SRGANError("x" * 5000)):

        def play(data, error=error):
            raise error

        with pytest.raises(AssertionError):
            judge(type(target)("x", target.seeds, play), b"")


# Bombs


def seed_of(kind, **values):
    """Return a small DICOM file with these values."""
    dataset = pydicom.dcmread(io.BytesIO(dicom_seeds()[kind]))
    for name, value in values.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def coded(height, width):
    """Return a JPEG stream that says it is of another size than its file."""
    seed = next(s for s in image_seeds() if s[:2] == b"\xff\xd8")
    place = seed.index(b"\xff\xc0") + 5
    return seed[:place] + struct.pack(">HH", height, width) + seed[place + 4 :]


def tiff(compression, payload, height=9, width=12):
    """Write a grey TIFF by hand, of one strip."""
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1)]
    tags += [(273, 4, 200), (277, 3, 1), (278, 4, height), (279, 4, len(payload))]
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1) + struct.pack("<I" if kind == 4 else "<HH", *rest)
        for tag, kind, value in tags
        for rest in [(value,) if kind == 4 else (value, 0)]
    )
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head.ljust(200, b"\0") + payload


def deflated_bomb():
    """Return a DICOM file of 100 kB that would unpack to 100 MB."""
    meta = seed_of(-1).split(b"1.2.840.10008.1.2.1.99")[0] + b"1.2.840.10008.1.2.1.99"
    rest = seed_of(-1)[len(meta) :]
    meta += rest[: rest.index(b"\0") + 1] if rest[:1] == b"\0" else b""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return meta + packer.compress(bytes(10**8)) + packer.flush()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: seed_of(-6, Rows=60000, Columns=60000), "60000 x 60000 pixels, more than"),
        (deflated_bomb, "unpacks to more than 33,"),
        (lambda: coded(60000, 60000), "60000 x 60000 pixels, more than"),
        (lambda: tiff(7, coded(9000, 9000)), "a part of it has 9000 x 9000 pixels"),
        (lambda: tiff(34712, b"x"), "compression, JPEG2000, isn't read"),
        (lambda: tiff(1, b"x", 60000, 60000), "60000 x 60000 pixels, more than"),
    ],
    ids=["DICOM", "deflated DICOM", "JPEG", "JPEG in TIFF", "JPEG 2000 in TIFF", "TIFF"],
)
def test_bomb_is_refused_by_a_limit_with_little_memory(tmp_path, make, words):
    (tmp_path / "bomb").write_bytes(make())
    assert (tmp_path / "bomb").stat().st_size < 200_000
    with pytest.raises(ImageError, match=words):
        read_pixels(tmp_path / "bomb")


def test_compressed_dicom_of_another_size_than_it_says_is_refused(tmp_path):
    frame = coded(30000, 30000)
    data = pydicom.dcmread(io.BytesIO(dicom_seeds()[-6]))
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    data.PixelData = pydicom.encaps.encapsulate([frame])
    data["PixelData"].VR = "OB"
    data.save_as(tmp_path / "bomb")
    with pytest.raises(ImageError, match="compressed pixels have 30000 x 30000"):
        read_pixels(tmp_path / "bomb")


def test_header_of_a_deflated_bomb_is_not_unpacked_either(tmp_path):
    (tmp_path / "bomb.dcm").write_bytes(deflated_bomb())
    with pytest.raises(ImageError, match="unpacks to more"):
        read_dicom_header(tmp_path / "bomb.dcm")
    assert len(open_dataset(tmp_path)) == 1  # it is named when it is read


@pytest.mark.parametrize("kind", ["jpeg", "jpegls", "jpeg2k"])
def test_coded_size_is_what_the_decoder_finds(kind):
    array = np.arange(9 * 12, dtype=np.uint8).reshape(9, 12)
    encode = {"jpeg": imagecodecs.jpeg8_encode, "jpegls": imagecodecs.jpegls_encode}
    stream = encode.get(kind, imagecodecs.jpeg2k_encode)(array)
    assert coded_size(stream) == (9, 12)
    assert coded_size(bytes(3) + stream) == (9, 12)
    with pytest.raises(ImageError, match="don't say their size"):
        coded_size(stream[:20])


def test_archive_bomb_is_refused_and_the_limit_can_be_raised(tmp_path, monkeypatch):
    content = bytes(10**6)
    digest = datasets.hashlib.sha256(content).hexdigest()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("top/x", content)
    monkeypatch.setenv("SRGAN_MAX_UNPACKED", "999999")
    with pytest.raises(DatasetError, match=r"more than 999,999 bytes.*SRGAN_MAX_UNPACKED"):
        extract(tmp_path / "a.zip", tmp_path / "out", {"x": digest})
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("SRGAN_MAX_UNPACKED", "1000000")
    extract(tmp_path / "a.zip", tmp_path / "out", {"x": digest})
    assert (tmp_path / "out" / "x").read_bytes() == content


def test_archive_that_lies_about_its_size_is_held_to_the_limit(tmp_path, monkeypatch):
    size = 5 * 10**7
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("top/x", bytes(size))
    data = (tmp_path / "a.zip").read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 9))
    (tmp_path / "a.zip").write_bytes(data)
    monkeypatch.setenv("SRGAN_MAX_UNPACKED", "1000000")
    tracemalloc.start()
    with pytest.raises(DatasetError):
        extract(tmp_path / "a.zip", tmp_path / "out", {"x": "0" * 64})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 5
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["top/../../x", "/etc/x", "top\\..\\x"])
def test_archive_with_a_name_that_climbs_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        for file, content in MANIFEST_FILES.items():
            zipped.writestr(f"top/{file}", content)
        zipped.writestr(zipfile.ZipInfo(name), b"x")
    digests = {f: datasets.hashlib.sha256(c).hexdigest() for f, c in MANIFEST_FILES.items()}
    with pytest.raises(DatasetError, match="a name outside of its folder"):
        extract(tmp_path / "a.zip", tmp_path / "out", digests)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0", "-1", "x", "1e6", "9" * 30, "²"])
def test_limit_that_is_no_number_is_named(tmp_path, monkeypatch, text):
    (tmp_path / "a.png").write_bytes(image_seeds()[1])
    monkeypatch.setenv("SRGAN_MAX_PIXELS", text)
    with pytest.raises(ConfigurationError, match="SRGAN_MAX_PIXELS must be a positive whole"):
        read_pixels(tmp_path / "a.png")


def test_limit_reaches_the_command_line_and_can_be_raised_there(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(image_seeds()[1])
    monkeypatch.chdir(tmp_path)
    for limit, status in (("107", 1), ("108", 0)):
        monkeypatch.setenv("SRGAN_MAX_PIXELS", limit)
        result = CliRunner().invoke(app, ["upscale", "a.png", "--model", "nearest"])
        assert result.exit_code == status, result.output
        advice = "set the environment variable SRGAN_MAX_PIXELS to 108"
        assert (advice in result.output) == bool(status)


# Devices, pipes, names


def test_pipe_and_device_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", "/dev/zero"):
        with pytest.raises(ImageError, match="a device or a pipe"):
            read_pixels(path)
        with pytest.raises(ConfigurationError, match="a device or a pipe"):
            read_recipe(path)
        assert not images.is_dicom(path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "\udce9"])
def test_names_that_no_file_can_have_are_refused(name):
    with pytest.raises(ImageError):
        read_pixels(f"{name}.png")
    with pytest.raises(ConfigurationError):
        read_recipe(name)
    with pytest.raises(WeightsError):
        load_network(f"{name}.safetensors")
    with pytest.raises(SRGANError):
        open_dataset(f"./{name}")


def test_file_larger_than_any_image_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("SRGAN_MAX_PIXELS", "100")
    (tmp_path / "a.png").write_bytes(bytes(2**20 + 801))
    with pytest.raises(ImageError, match="more than the 1,049,376 bytes"):
        read_pixels(tmp_path / "a.png")


# Weights and recipes that ask for too much


def header(network, **arguments):
    metadata = {"network": network, "arguments": json.dumps(arguments)}
    text = json.dumps({"__metadata__": metadata}).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("SRResNet", {"blocks": 10**9}),
        ("SRResNet", {"width": 10**6}),
        ("SRResNet", {"blocks": 1024, "width": 1024}),  # 80 GB
        ("SwinIR", {"depths": [500] * 500}),
        ("Discriminator", {"grid": 10**30}),
        ("NeighbourEmbedding", {"examples": 10**12}),
    ],
)
def test_weights_that_ask_for_a_huge_network_are_refused_at_once(tmp_path, network, arguments):
    (tmp_path / "w.safetensors").write_bytes(header(network, **arguments))
    began = time.monotonic()
    with pytest.raises(WeightsError):
        load_network(tmp_path / "w.safetensors")
    assert time.monotonic() - began < 30


def test_network_of_refused_weights_never_takes_memory(tmp_path, monkeypatch):
    (tmp_path / "w.safetensors").write_bytes(header("SRResNet", blocks=1, width=8))
    devices = []

    def build(**arguments):
        devices.append(torch.empty(0).device.type)
        return SRResNet(**arguments)

    monkeypatch.setitem(pretrained.NETWORKS, "SRResNet", build)
    with pytest.raises(WeightsError, match="is missing in it"):
        load_network(tmp_path / "w.safetensors")
    assert devices == ["meta"]


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(weights_seeds()[0])
    network = load_network(path)
    data = bytearray(weights_seeds()[0])
    data[-4:] = struct.pack("<f", float("nan"))
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="not finite"):
        load_network(path)
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_recipe_of_aliases_or_of_great_length_is_refused(tmp_path):
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]" for n in range(1, 12)]
    (tmp_path / "r.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigurationError, match="it uses an alias"):
        read_recipe(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text("stage: [" + "x, " * 30000 + "x]")
    with pytest.raises(ConfigurationError, match="more than the 65,536 bytes"):
        read_recipe(tmp_path / "r.yaml")


def test_recipe_with_a_long_wrong_value_is_answered_shortly(tmp_path):
    (tmp_path / "r.yaml").write_text(f"stage: {'x' * 60000}\ncrops_per_epoch: 16")
    with pytest.raises(ConfigurationError) as caught:
        read_recipe(tmp_path / "r.yaml")
    assert len(str(caught.value)) < 1000


# Folders


def test_dicom_files_without_an_image_are_passed_over_in_folders(tmp_path):
    report = pydicom.dcmread(io.BytesIO(dicom_seeds()[-6]))
    for name in ("PixelData", "Rows", "Columns"):
        delattr(report, name)
    report.save_as(tmp_path / "report.dcm")
    (tmp_path / "image.dcm").write_bytes(dicom_seeds()[-6])
    (tmp_path / "damaged.dcm").write_bytes(dicom_seeds()[-6][:140])
    names = [record.name for record in open_dataset(tmp_path).records]
    assert names == ["damaged.dcm", "image.dcm"]
    with pytest.raises(ImageError, match="holds no pixel data"):
        read_pixels(tmp_path / "report.dcm")


def test_memory_of_a_container_counts(tmp_path, monkeypatch):
    whole = crops.device_memory("cpu")
    monkeypatch.setattr(crops, "_CONTAINER_LIMITS", (tmp_path / "memory.max", tmp_path / "other"))
    assert crops.device_memory("cpu") >= whole
    (tmp_path / "memory.max").write_text("max\n")
    assert crops.device_memory("cpu") >= whole
    (tmp_path / "memory.max").write_text("12345\n")
    assert crops.device_memory("cpu") == 12345
