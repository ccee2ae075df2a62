"""What untrusted bytes can reach, each as a target with seeds: for fuzz.py and test_fuzz.py.

A target plays one input against the library. The input must end in success or in an error of the
library, with a sentence; anything else that is raised is a finding.
"""

import contextlib
import io
import json
import os
import random
import struct
import tempfile
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest import mock

import imagecodecs
import numpy as np
import PIL.Image
import pydicom
import tifffile
import torch
import yaml
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from typer.testing import CliRunner

from srgan_lib import checkpoints, cli, datasets, dicom, images, pretrained, recipes, runs
from srgan_lib.architectures import ESPCN, Discriminator, PatchDiscriminator, SRResNet, SwinIR
from srgan_lib.errors import SRGANError
from srgan_lib.hardware import make_accelerator

MAX_PIXELS = 4_000_000
"""The limit on images while fuzzing; what memory may grow by is stated for it."""

_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
_INPUT = _FOLDER / "input"


@dataclass(frozen=True)
class Target:
    """One way into the library.

    Attributes:
        name: its name.
        seeds: makes whole inputs, to be mutated.
        play: gives an input to the library.
        repair: mends sums and lengths in a mutated input, so that it gets beyond them.
        strategy: whole inputs made by hypothesis, where the format has a grammar.
    """

    name: str
    seeds: Callable[[], list[bytes]]
    play: Callable[[bytes], None]
    repair: Callable[[bytes], bytes] = field(default=lambda data: data)
    strategy: st.SearchStrategy[bytes] | None = None

    def inputs(self) -> st.SearchStrategy[bytes]:
        """Return mutated seeds, and generated inputs where there is a strategy."""
        seeds = self.seeds()
        mutated = st.builds(
            lambda number, key: mutate(seeds, number, key, self.repair),
            st.integers(0, len(seeds) - 1),
            st.integers(0, 2**48 - 1),
        )
        return mutated if self.strategy is None else st.one_of(self.strategy, mutated)


def judge(target: Target, data: bytes) -> bool:
    """Play an input; return whether the library took it.

    Raises:
        AssertionError: it ended in another way than success or an error of the library.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            target.play(data)
        taken = True
    except SRGANError as error:
        text = str(error)
        assert len(text) > 20 and text.rstrip().endswith((".", ")", ":")), f"no sentence: {text!r}"
        assert len(text) < 3000, f"{len(text)} characters are no sentence: {text[:200]!r}"
        taken = False
    except Exception as error:
        raise AssertionError("".join(traceback.format_exception(error))) from None
    assert "Traceback" not in said.getvalue(), said.getvalue()
    return taken


_NUMBERS = (0, 1, 2, 3, 7, 8, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536)
_NUMBERS += (2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def mutate(
    seeds: list[bytes], number: int, key: int, repair: Callable[[bytes], bytes] = lambda data: data
) -> bytes:
    """Return a seed with one to six changes that follow from ``key`` alone."""
    chance = random.Random(key)
    data = bytearray(seeds[number])
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 6))):
        place = chance.randrange(len(data) + 1)
        if chance.random() < 0.5:  # headers stand at the front
            place = min(place, chance.randrange(600))
        size = chance.choice((1, 1, 2, 4, 8, 16, 64, 300))
        match chance.randrange(9):
            case 0:
                data[place : place + 1] = bytes([chance.randrange(256)])
            case 1 if place < len(data):
                data[place] ^= 1 << chance.randrange(8)
            case 2 | 3:
                width = chance.choice((1, 2, 2, 4, 4, 8))
                value = chance.choice(_NUMBERS) % 256**width
                data[place : place + width] = value.to_bytes(
                    width, chance.choice(("little", "big"))
                )
            case 4:
                del data[place : place + size]
            case 5:
                data[place:place] = data[place : place + size]
            case 6:
                data[place:place] = chance.randbytes(size)
            case 7:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                data[place : place + size] = other[start : start + size]
            case _:
                if chance.random() < 0.3:
                    del data[place:]
    changed = bytes(data)
    return repair(changed) if chance.random() < 0.7 else changed


def _written(data: bytes, suffix: str = "") -> Path:
    path = _INPUT.with_suffix(suffix)
    path.write_bytes(data)
    return path


# Images


@cache
def image_seeds() -> list[bytes]:
    """Return small PNG, JPEG and TIFF files of many kinds."""
    chance = np.random.default_rng(0)
    grey = chance.integers(0, 256, (9, 12), dtype=np.uint8)
    colour = chance.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    deep = chance.integers(0, 65536, (9, 12), dtype=np.uint16)
    alpha = chance.integers(0, 256, (9, 12, 4), dtype=np.uint8)

    def pillow(array: np.ndarray, kind: str, mode: str = "", **options: object) -> bytes:
        picture = PIL.Image.fromarray(array)
        buffer = io.BytesIO()
        (picture.convert(mode) if mode else picture).save(buffer, kind, **options)
        return buffer.getvalue()

    def tiff(array: np.ndarray, **options: object) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, **options)
        return buffer.getvalue()

    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    seeds = [pillow(grey, "PNG", mode) for mode in ("1", "L", "LA", "P")]
    seeds += [pillow(colour, "PNG"), pillow(alpha, "PNG"), pillow(grey, "PNG", transparency=3)]
    seeds += [imagecodecs.png_encode(deep), imagecodecs.png_encode(np.stack([deep] * 3, -1))]
    seeds += [pillow(grey, "JPEG"), pillow(colour, "JPEG", exif=exif)]
    seeds += [pillow(colour, "JPEG", progressive=True), pillow(alpha, "JPEG", "CMYK")]
    seeds += [tiff(array, photometric="minisblack") for array in (grey, deep)]
    seeds += [tiff(colour, photometric="rgb", compression=c) for c in ("zlib", "lzma", "zstd")]
    seeds += [tiff(colour, photometric="rgb", compression="jpeg"), tiff(grey / 255.0)]
    seeds += [tiff(deep, tile=(16, 16), byteorder=">"), tiff(deep, bigtiff=True, rowsperstrip=2)]
    seeds += [pillow(grey, "TIFF", "P"), pillow(colour, "TIFF", compression="tiff_lzw")]
    seeds += [pillow(colour, "TIFF", compression="packbits"), pillow(alpha, "TIFF")]
    return seeds


def mend_png(data: bytes) -> bytes:
    """Write the checksum of each chunk of a PNG file anew."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    mended, place = data[:8], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        body = data[place + 4 : place + 8 + length]
        mended += data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return mended + data[place:]


def play_image(data: bytes) -> None:
    images.read_pixels(_written(data))


# DICOM


@cache
def dicom_seeds() -> list[bytes]:
    """Return small DICOM files: plain, of each compression, with look-up tables, and no image."""
    names = ("JPGLosslessP14SV1_1s_1f_8b", "MR_small_RLE", "MR_small_jp2klossless")
    names += ("MR_small_jpeg_ls_lossless", "MR_small_bigendian", "MR_small_implicit")
    names += ("SC_jpeg_no_color_transform", "rtplan", "image_dfl")
    paths = [get_testdata_file(f"{name}.dcm", download=False) for name in names]
    seeds = [Path(path).read_bytes() for path in paths if path]
    chance = np.random.default_rng(0)
    for number in range(6):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        syntax = "1.2.840.10008.1.2.1.99" if number == 5 else "1.2.840.10008.1.2.1"
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
        dataset.PatientName, dataset.PatientID = "Planted^Name", "Planted 7"
        dataset.Rows, dataset.Columns = 5, 6
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
        dataset.PixelRepresentation = number % 2
        dataset.PixelSpacing = [0.2, 0.2]
        if number == 1:
            dataset.RescaleSlope, dataset.RescaleIntercept = "2", "-100"
            dataset.WindowCenter, dataset.WindowWidth = "1000", "500"
        if number in (2, 3):
            item = pydicom.Dataset()
            item.LUTDescriptor = [16, 0, 16]
            item.LUTData = bytes(range(32))
            item["LUTData"].VR = "OW"
            name = "VOILUTSequence" if number == 2 else "ModalityLUTSequence"
            if number == 3:
                item.ModalityLUTType = "US"
            setattr(dataset, name, [item])
        pixels = chance.integers(0, 4096, (5, 6), dtype=np.uint16)
        if number == 4:
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
            dataset.PlanarConfiguration = 0
            dataset.BitsAllocated = dataset.BitsStored = 8
            dataset.HighBit = 7
            pixels = chance.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        dataset.PixelData = pixels.tobytes()
        dataset["PixelData"].VR = "OW"
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        seeds.append(buffer.getvalue())
    return seeds


def play_dicom(data: bytes) -> None:
    """Read the pixels and the header, and write what is derived, with the patient and without."""
    path = _written(data, ".dcm")
    pixels = images.read_pixels(path)
    if not images.is_dicom(path):
        return
    header = images.read_dicom_header(path)
    small = images.Pixels(pixels.values[:, :8, :8].clone(), pixels.bits)
    for keep in (False, True):
        dicom.write_derived(
            _FOLDER / "out.dcm", small, header, scale=4, model="srgan", keep_patient=keep
        )
    datasets.open_dataset(_FOLDER / "dicom" if (_FOLDER / "dicom").is_dir() else _only(path))


def _only(path: Path) -> Path:
    folder = _FOLDER / "dicom"
    folder.mkdir()
    (folder / "input.dcm").symlink_to(path)
    return folder


# Recipes


@cache
def recipe_seeds() -> list[bytes]:
    root = Path(__file__).resolve().parent.parent
    seeds = [path.read_bytes() for path in sorted((root / "recipes").glob("*.yaml"))]
    return [*seeds, b"a: &a [x]\nb: *a\n", b"stage: content\ncrops_per_epoch: 1e3\n", b"? [1]\n: 2"]


def play_recipe(data: bytes) -> None:
    recipe = recipes.read_recipe(_written(data, ".yaml"))
    assert recipes.check_recipe(yaml.safe_load(recipes.write_recipe(recipe))) == recipe


def _recipes() -> st.SearchStrategy[bytes]:
    parts = (recipes.Recipe, recipes.DataPart, recipes.VariationPart, recipes.LossPart)
    parts += (recipes.DiscriminatorPart, *recipes._GENERATOR_PARTS.values())
    keys = sorted({name for part in parts for name in part.model_fields})
    words = ["content", "adversarial", "cosine", "srresnet", "vgg16", "relu5_4", "../x", "sample"]
    words += [*recipes.GENERATORS, "PatchDiscriminator", "paired", "ranked"]
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([*_NUMBERS, -1, 10**30, 4, 16, 32, 96]),
        st.floats(),
        st.text(max_size=12),
        st.sampled_from(words),
    )
    values = st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.sampled_from(keys) | st.text(max_size=5), inner, max_size=5),
        ),
        max_leaves=12,
    )
    base = {"stage": "content", "crops_per_epoch": 16}

    def dump(changes: dict[str, object], whole: bool) -> bytes:
        return yaml.safe_dump(base | changes if whole else changes).encode()

    return st.builds(
        dump, st.dictionaries(st.sampled_from(keys), values, max_size=6), st.booleans()
    )


# Weights and checkpoints


def _mend_safetensors(data: bytes) -> bytes:
    """Write the header's length anew: it reaches to the last brace before the tensors."""
    end = data.rfind(b"}}", 0, len(data)) + 2
    for mark in (b"]}}", b"]},"):
        if mark in data:
            end = data.rfind(b"}", 0, data.rfind(mark) + 3) + 1
    if end < 10:
        return data
    padding = -(end - 8) % 8
    header = data[8:end] + b" " * padding
    return len(header).to_bytes(8, "little") + header + data[end:].lstrip(b" ")


@cache
def weights_seeds() -> list[bytes]:
    torch.manual_seed(0)
    networks = [
        SRResNet(blocks=1, width=2, end_kernel=3),
        ESPCN(widths=(2, 2)),
        SRResNet(blocks=1, width=2, end_kernel=3, noise=True),
        Discriminator(width=1, grid=1),
        PatchDiscriminator(width=1),
        SwinIR(width=4, depths=(1,), heads=2, window=2),
    ]
    seeds = []
    for network in networks:
        checkpoints.save_weights(network, _FOLDER / "seed.safetensors")
        seeds.append((_FOLDER / "seed.safetensors").read_bytes())
    checkpoints.save_weights(networks[0], _FOLDER / "seed.safetensors", half=True)
    return [*seeds, (_FOLDER / "seed.safetensors").read_bytes()]


def play_weights(data: bytes) -> None:
    pretrained.load_network(_written(data, ".safetensors"))


def _weights() -> st.SearchStrategy[bytes]:
    """Make files whose header asks for all kinds of networks."""
    names = sorted(pretrained.NETWORKS)
    numbers = st.one_of(
        st.sampled_from([*_NUMBERS, -1, 4, 10**30]), st.floats(), st.text(max_size=3)
    )
    values = st.one_of(numbers, st.lists(numbers, max_size=4), st.booleans(), st.none())
    keys = ["channels", "scale", "width", "widths", "blocks", "growth", "depth", "depths", "heads"]
    keys += ["window", "patch", "crop", "grid", "recursions", "examples", "kernel", "scales", "x"]
    keys += ["noise", "bits"]

    def build(network: str, arguments: object) -> bytes:
        text = json.dumps(
            {"__metadata__": {"network": network, "arguments": json.dumps(arguments)}}
        )
        return len(text).to_bytes(8, "little") + text.encode()

    return st.builds(
        build,
        st.sampled_from(names),
        st.one_of(st.dictionaries(st.sampled_from(keys), values, max_size=5), values),
    )


@cache
def _run() -> runs._Run:
    """Return a run on the CPU that states can be given to."""
    folder = _FOLDER / "images"
    folder.mkdir(exist_ok=True)
    for number in range(10):
        images.write_image(folder / f"{number}.png", torch.full((1, 16, 16), number / 10))
    recipe = recipes.check_recipe(
        {
            "stage": "content",
            "data": {"name": str(folder), "crop_size": 8},
            "generator": {"blocks": 1, "width": 2, "end_kernel": 3},
            "crops_per_epoch": 2,
            "batch_size": 2,
            "precision": "no",
        }
    )
    accelerator = make_accelerator("no", torch.device("cpu"))
    return runs._Run(recipe, _FOLDER / "run", accelerator, False)


@cache
def checkpoint_seeds() -> list[bytes]:
    run, path = _run(), _FOLDER / "seed.safetensors"
    seeds = []
    for state in (run._state(), {"a": [1, (2.5, None)], "b": {3: torch.ones(2)}}):
        checkpoints.save_state(state, path)
        seeds.append(path.read_bytes())
    return seeds


def mend_checkpoint(data: bytes) -> bytes:
    """Mend the length, and sign the content anew where it can be read."""
    data = _mend_safetensors(data)
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        tensors = checkpoints.load(data)
        metadata = header["__metadata__"]
        metadata["sha256"] = checkpoints._digest(metadata["state"], tensors)
        return checkpoints.save(tensors, metadata)
    except Exception:
        return data


def play_checkpoint(data: bytes) -> None:
    path = _written(data, ".safetensors")
    _run()._go_on_from(checkpoints.load_state(path), path)


# Archives

MANIFEST_FILES = {"data.csv": b"a,b\n" * 50, "png/x.png": bytes(range(256)) * 4}
_MANIFEST = {name: datasets.hashlib.sha256(d).hexdigest() for name, d in MANIFEST_FILES.items()}


@cache
def zip_seeds() -> list[bytes]:
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as zipped:
            for name, content in MANIFEST_FILES.items():
                zipped.writestr(f"top/{name}", content)
            if method == zipfile.ZIP_STORED:
                zipped.writestr("top/../../climbs", b"x")
        seeds.append(buffer.getvalue())
    return seeds


def play_zip(data: bytes) -> None:
    folder = _FOLDER / "unpacked"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets.extract(_written(data, ".zip"), folder, _MANIFEST)
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == set(_MANIFEST)
    datasets.shutil.rmtree(folder)


# Command lines


_COMMANDS = (
    "upscale a.png --model bicubic --out out --overwrite",
    "upscale folder --model nearest --tile 3 --format png --overwrite",
    "upscale a.png b.dcm --model tiny.safetensors --precision no --device cpu --overwrite",
    "upscale b.dcm --model lanczos --format dcm --keep-patient --overwrite --out=out",
    "train recipe.yaml --folder run --time-budget 15m --device cpu",
    "train --family --time-budget 1.5h",
    "evaluate --model bicubic --data folder --split test --out r.json",
    "evaluate --family --cost",
    "export --model tiny.safetensors --out x.onnx",
    "data folder --split train",
    "data sample",
    "info tiny.safetensors",
    "info srgan",
    "info",
    "--help",
)


def argument_seeds() -> list[bytes]:
    return [command.replace(" ", "\0").encode() for command in _COMMANDS]


def _arguments() -> st.SearchStrategy[bytes]:
    words = sorted({word for command in _COMMANDS for word in command.split()})
    words += [
        "nowhere.png",
        "recipe",
        "",
        "-",
        "--",
        "-1",
        "0",
        "1e400",
        "cuda:9",
        "all",
        "x" * 5000,
    ]
    word = st.one_of(st.sampled_from(words), st.text(max_size=20), st.integers().map(str))
    return st.lists(word, max_size=8).map(
        lambda line: "\0".join(line).encode(errors="surrogatepass")
    )


def _command_folder() -> Path:
    """Return a folder with what the commands name, and nothing that a command left there."""
    folder = _FOLDER / "cli"
    datasets.shutil.rmtree(folder, ignore_errors=True)
    datasets.shutil.copytree(_command_files(), folder)
    return folder


@cache
def _command_files() -> Path:
    folder = _FOLDER / "files"
    (folder / "folder").mkdir(parents=True)
    for name in ("a.png", "folder/c.png", "folder/d.tif"):
        images.write_image(folder / name, torch.rand(1, 6, 7))
    (folder / "b.dcm").write_bytes(dicom_seeds()[-6])
    (folder / "recipe.yaml").write_bytes(b"stage: content\ncrops_per_epoch: 16\n")
    (folder / "tiny.safetensors").write_bytes(weights_seeds()[0])
    return folder


def play_arguments(data: bytes) -> None:
    """Run a command line as the shell would pass it; what takes long is left out.

    Training, measuring and exporting are stood in for: their own input is fuzzed elsewhere. No
    path may leave the folder, since the commands write.
    """
    words = [word.decode(errors="surrogateescape") for word in data.split(b"\0")]
    words = [word.replace("..", "__").replace("=/", "=").lstrip("/") for word in words]

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network here")

    before = Path.cwd()
    os.chdir(_command_folder())
    try:
        with contextlib.ExitStack() as stack:
            for place in ("srgan_lib.runs.train", "srgan_lib.family.train_family"):
                stack.enter_context(mock.patch(place, lambda *_, **__: True))
            stack.enter_context(mock.patch("srgan_lib.results.measure", _measure))
            stack.enter_context(mock.patch("srgan_lib.export.export_onnx", _export))
            stack.enter_context(mock.patch("pooch.retrieve", refuse))
            stack.enter_context(mock.patch("kagglehub.dataset_download", refuse))
            stack.enter_context(mock.patch.dict(os.environ, {"SRGAN_DATA_DIR": ""}))
            result = CliRunner().invoke(cli.app, words, prog_name="srgan")
    finally:
        os.chdir(before)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in (0, 1, 2), result.output
    assert "Traceback" not in result.output, result.output
    if result.exit_code == 1:
        assert "Error: " in result.output, result.output


def _measure(models: list[str], dataset: object, **_: object) -> dict[str, object]:
    for model in models:
        if model not in cli._interpolations():
            pretrained.load_network(model)
    return {"methods": {}}


def _export(network: object, path: Path) -> None:
    images.write_atomically(path, b"onnx")


TARGETS = {
    target.name: target
    for target in (
        Target("images", image_seeds, play_image, mend_png),
        Target("dicom", dicom_seeds, play_dicom),
        Target("recipes", recipe_seeds, play_recipe, strategy=_recipes()),
        Target("checkpoints", checkpoint_seeds, play_checkpoint, mend_checkpoint),
        Target("weights", weights_seeds, play_weights, _mend_safetensors, _weights()),
        Target("archives", zip_seeds, play_zip),
        Target("arguments", argument_seeds, play_arguments, strategy=_arguments()),
    )
}
