"""The command ``srgan``: data, training, evaluation, enlarging and export from a terminal.

Modules that need PyTorch are imported inside the commands, so that ``--help`` answers at once.
"""

import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from srgan_lib.errors import ConfigurationError, ImageError, SRGANError, unknown_name

if TYPE_CHECKING:
    import torch

    from srgan_lib.architectures import SRNetwork


SCALE = 4
"""The scale of the interpolations; a network brings its own."""

_NOTICE = (
    "Note: what the network adds is synthetic. Fine texture may be invented. Not for diagnosis."
)
_DEVIATION_GAIN = 10  # a deviation of 1 / 10 of the range is white
_OUTPUT_SUFFIXES = {".tif": ".tif", ".tiff": ".tiff", ".dcm": ".dcm", ".dicom": ".dcm"}


class _Group(TyperGroup):
    """The commands; an error on bad input becomes one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        if hasattr(sys.stdout, "reconfigure"):
            # A file's name need not be text that the terminal can show.
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except SRGANError as error:
            _complain(error)
            raise typer.Exit(1) from error
        except MemoryError as error:
            _complain("Not enough memory.")
            raise typer.Exit(1) from error
        except OSError as error:  # a file or folder that can't be looked at
            _complain(f"{error.filename or 'Input or output'}: {error.strerror or error}.")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interrupt:
            print(f"\nInterrupted. {interrupt}".rstrip(), file=sys.stderr)
            raise typer.Exit(130) from interrupt


class Format(StrEnum):
    """File formats to write enlarged images in."""

    png = "png"
    tiff = "tiff"
    jpg = "jpg"
    dcm = "dcm"


class Precision(StrEnum):
    """Precisions to enlarge in."""

    auto = "auto"
    bf16 = "bf16"
    no = "no"


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help and errors, also in a log
    pretty_exceptions_enable=False,
    help="Super-resolution GANs for chest radiographs. Results are not for diagnosis.",
)

DeviceOption = Annotated[
    str | None,
    typer.Option(help="cpu, cuda or cuda:1; the first GPU if there is one, by default."),
]


def main() -> None:
    """Run the command; exit with 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
    try:
        app(prog_name="srgan")
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="A data set's name, or a folder of images.")],
    split: Annotated[
        str | None, typer.Option(help="Only this part: train, validation, test or all.")
    ] = None,
) -> None:
    """Open a data set, downloading it if need be, and say what is in it.

    \b
    srgan data sample
    srgan data covid19-hannover --split test
    """
    from srgan_lib.datasets import SPLITS, open_dataset
    from srgan_lib.errors import DatasetError

    whole = open_dataset(name, split or "all")
    print(whole.name)
    for part in [split] if split else SPLITS:
        try:
            opened = whole if part == whole.split else open_dataset(name, part)
            images, patients = len(opened), len(opened.patients)
        except DatasetError:  # the whole could be opened, so this part is empty
            images, patients = 0, 0
        print(f"  {part + ':':<12}{images} images of {patients} patients")
    print(f"  {'source:':<12}{whole.source}")
    print(f"  {'licence:':<12}{whole.licence}")


@app.command()
def train(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe, a YAML file.")] = None,
    family: Annotated[
        bool, typer.Option("--family", help="Train all networks of chapter 8, one by one.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="The run folder; runs/<name of the recipe> by default.")
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option(help="Save and stop after this time: 90s, 15m, 1.5h.")
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Train by a recipe, or go on with a run that was interrupted.

    \b
    srgan train recipes/srresnet.yaml
    srgan train recipes/srresnet.yaml --time-budget 15m --folder runs/first
    srgan train --family
    """
    seconds = None if time_budget is None else parse_duration(time_budget)
    if family == (recipe is not None):
        raise typer.BadParameter("Name a recipe, or give --family; one of the two.")

    from accelerate import PartialState

    from srgan_lib.family import train_family
    from srgan_lib.recipes import read_recipe
    from srgan_lib.runs import train as train_by

    chosen = None if device is None else _device(device)
    folder = folder or Path("runs") / ("family" if recipe is None else recipe.stem)
    if recipe is None:
        finished = train_family(folder, time_budget=seconds, device=chosen)
    else:
        finished = train_by(read_recipe(recipe), folder, time_budget=seconds, device=chosen)
    if not PartialState().is_main_process:
        return
    if finished:
        print(f"Finished: {folder if recipe is None else folder / 'generator.safetensors'}")
    else:
        print(f"Stopped and saved. To go on, run the same command again with --folder {folder}")


@app.command()
def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model's name, a weights file or an interpolation; may be repeated."),
    ] = None,
    data: Annotated[str, typer.Option(help="A data set's name, or a folder.")] = "covid19-hannover",
    split: Annotated[str, typer.Option(help="train, validation, test or all.")] = "test",
    channels: Annotated[
        int, typer.Option(help="1 for grey, 3 for colour; images are converted to it.")
    ] = 1,
    family: Annotated[
        bool, typer.Option("--family", help="All methods of chapter 8, before any --model.")
    ] = False,
    cost: Annotated[
        bool, typer.Option("--cost", help="Parameters, multiply-adds, time and memory, too.")
    ] = False,
    throws: Annotated[
        int, typer.Option(min=0, help="Measure the dice by so many throws, 2 or more; 0 for not.")
    ] = 0,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = Path("results.json"),
    device: DeviceOption = None,
) -> None:
    """Measure models on a data set, print a table and write all numbers as JSON.

    Without --model and --family: bicubic, srresnet and srgan. Of a model that throws dice, the
    throw with seed 0 is measured; --throws adds the PSNR of the mean of the throws, and whether
    their spread says how wrong they are. With --channels 3, PSNR and SSIM are those of luma
    (BT.601, 16 to 235), as published tables have them; a network for grey images enlarges red,
    green and blue alone, each as a grey image.

    \b
    srgan evaluate --out results.json
    srgan evaluate --model bicubic --model runs/first/generator.safetensors --data sample
    srgan evaluate --family --cost --split validation
    srgan evaluate --model srgan --throws 32
    srgan evaluate --model bicubic --data Set5 --split all --channels 3
    """
    if channels not in (1, 3):
        raise typer.BadParameter(f"--channels must be 1 or 3, not {channels}.")

    from srgan_lib.datasets import open_dataset
    from srgan_lib.pretrained import FAMILY
    from srgan_lib.results import cost_table, measure, results_table, throws_table, write_results

    if throws == 1:
        raise typer.BadParameter("--throws takes 0, or 2 and more.")
    models = [*(FAMILY if family else ()), *(model or ())] or ["bicubic", "srresnet", "srgan"]
    opened = open_dataset(data, split, channels=channels)
    results = measure(
        models, opened, device=_device(device), cost=cost, throws=throws, progress=True
    )
    write_results(results, out)
    print(results_table(results))
    if throws:
        print(throws_table(results))
    if cost:
        print(cost_table(results))
    print(f"Written: {out}")


@app.command()
def upscale(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="IN", help="Images (PNG, JPEG, TIFF, DICOM), or folders of them."),
    ],
    model: Annotated[
        str, typer.Option(help="A model's name, a weights file or an interpolation.")
    ] = "srgan",
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("upscaled"),
    format: Annotated[
        Format | None, typer.Option(help="The format to write; the input's by default.")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(min=1, help="Side of a tile in pixels; smaller takes less memory.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="bf16 is fast on some devices; no is float32.")
    ] = Precision.auto,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**32 - 1, help="Of the dice, for a model that throws some."),
    ] = 0,
    samples: Annotated[
        int | None,
        typer.Option(min=2, help="Write so many throws, their mean and their deviation."),
    ] = None,
    device: DeviceOption = None,
    keep_patient: Annotated[
        bool, typer.Option("--keep-patient", help="Keep the patient's data in DICOM files.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
) -> None:
    """Enlarge images. NAME.png becomes NAME_x4.png in the folder --out.

    The bit depth stays, and so does the format, but that JPEG becomes PNG. Folders are searched
    with all that is below them, and come out as they are laid out. DICOM files come out
    anonymous, and marked as derived. A file that can't be enlarged is named; the others go on.

    A model that throws dice gives the same image for the same --seed. With --samples 8, NAME.png
    becomes NAME_x4_throw1.png to NAME_x4_throw8.png, of the seeds that begin with --seed;
    NAME_x4_mean.png, their mean; and NAME_x4_deviation.png, ten times their standard deviation at
    each pixel: white where it is a tenth of the whole range or more.

    \b
    srgan upscale chest.png
    srgan upscale study/ more/ --model srgan --out enlarged
    srgan upscale chest.dcm --format png --tile 128
    srgan upscale chest.png --seed 5 --samples 8
    """
    from tqdm import tqdm

    from srgan_lib.noise import check_dice

    network = _load(model).to(_device(device))
    if samples is not None:
        check_dice(network)
    if os.path.exists(out) and not os.path.isdir(out):
        raise SRGANError(f"{out} is a file; --out must name a folder.")
    if model not in _interpolations():
        print(_NOTICE, file=sys.stderr)
    found, failures = _find_images(inputs, out)
    sources = {path.resolve() for path, _ in found}
    targets: dict[Path, Path] = {}
    enlarged = 0
    for failure in failures:
        _complain(failure)
    with tqdm(found, desc="enlarging", unit="image", disable=None) as bar:
        for path, relative in bar:
            try:
                target = out / _output_name(path, relative, network.scale, format)
                written = [target] if samples is None else _sample_names(target, samples)
                for name in written:
                    _check_target(name, path, sources, targets, overwrite)
                _upscale_file(
                    path, written, network, model, tile, precision.value, seed, keep_patient
                )
                targets |= {name.resolve(): path for name in written}
                enlarged += 1
            except (SRGANError, MemoryError) as error:
                if isinstance(error, MemoryError):
                    error = SRGANError(f"{path}: not enough memory for an image of this size.")
                failures.append(error)
                with bar.external_write_mode(file=sys.stderr):
                    _complain(error if str(path) in str(error) else f"{path}: {error}")
    print(f"Enlarged {enlarged} of {len(found)} images to {out}")
    if failures:
        raise SRGANError(f"{len(failures)} of the inputs could not be enlarged; see above.")


@app.command()
def export(
    model: Annotated[str, typer.Option(help="A model's name, or a weights file.")],
    out: Annotated[Path, typer.Option(help="The ONNX file to write.")],
) -> None:
    """Write a model as ONNX, for any height and width. Needs the extra srgan_lib[onnx].

    \b
    srgan export --model srgan --out srgan.onnx
    """
    from srgan_lib.export import export_onnx

    export_onnx(_load(model), out)
    print(f"Written: {out} ({out.stat().st_size / 2**20:.1f} MiB)")


@app.command()
def info(
    weights: Annotated[
        str | None, typer.Argument(help="A model's name or a weights file, to describe it.")
    ] = None,
) -> None:
    """Show versions, device and models; or what a weights file holds.

    \b
    srgan info
    srgan info runs/first/generator.safetensors
    """
    from srgan_lib.pretrained import PRETRAINED, load_network, weights_path

    if weights is not None:
        network = load_network(weights)
        print(weights_path(weights))
        print(f"  architecture: {type(network).__name__}")
        for name, value in network.arguments.items():
            print(f"    {name}: {value}")
        print(f"  parameters: {sum(parameter.numel() for parameter in network.parameters()):,}")
        return

    from srgan_lib import __version__
    from srgan_lib.hardware import best_device, best_precision, describe_hardware

    print(f"srgan_lib: {__version__}")
    for name, value in describe_hardware().items():
        print(f"{name}: {value}")
    print(f"device: {best_device()}")
    print(f"precision: {best_precision()}")
    print("models:")
    for name in PRETRAINED:
        path = weights_path(name)
        size = f"{path.stat().st_size / 2**20:.1f} MiB" if path.is_file() else "missing"
        print(f"  {name} ({size})")
    print(f"interpolations: {', '.join(_interpolations())}")


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as ``90s``, ``15m`` or ``1.5h``.

    Raises:
        ConfigurationError: text of another form, or no time at all.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise ConfigurationError(
            f"{text!r} is no duration. Give a number and its unit: 90s, 15m or 1.5h."
        )
    return seconds


def _complain(error: object) -> None:
    """Print an error as one line."""
    print("Error:", " ".join(str(error).split()), file=sys.stderr)


def _interpolations() -> tuple[str, ...]:
    from srgan_lib.degradation import KERNELS

    return KERNELS


def _device(name: str | None) -> "torch.device":
    """Return a device that is there.

    Raises:
        ConfigurationError: an unknown device, or one that this machine doesn't have.
    """
    import torch

    from srgan_lib.hardware import best_device

    if name is None:
        return best_device()
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise unknown_name("device", name, ("cpu", "cuda"))
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"There is no device {name!r} here: PyTorch sees {torch.cuda.device_count()} CUDA "
            "GPUs. Leave --device out, or take cpu."
        )
    return device


def _load(model: str) -> "SRNetwork":
    """Return an interpolation or a generator by its name or its weights file."""
    from srgan_lib.architectures import Interpolation
    from srgan_lib.pretrained import PRETRAINED, load_generator

    if model in _interpolations():
        return Interpolation(model, SCALE).eval()
    if model not in PRETRAINED and not model.endswith(".safetensors"):
        raise unknown_name("model", model, (*PRETRAINED, *_interpolations()))
    return load_generator(model)


def _find_images(
    inputs: list[Path], out: Path
) -> tuple[list[tuple[Path, Path]], list[SRGANError | MemoryError]]:
    """Return files, each with its place below the folder it was found in, and what is missing.

    Where ``out`` lies inside a folder, it is passed over: its images were enlarged before.
    """
    from srgan_lib.images import IMAGE_SUFFIXES, images_below

    found: list[tuple[Path, Path]] = []
    missing: list[SRGANError | MemoryError] = []
    for given in inputs:
        if not os.path.isdir(given):
            found.append((given, Path(given.name)))
            continue
        inside = given.resolve() in out.resolve().parents
        below = [
            (path, path.relative_to(given))
            for path in images_below(given)
            if not (inside and out.resolve() in path.resolve().parents)
        ]
        if not below:
            missing.append(ImageError(f"{given} holds no image ({', '.join(IMAGE_SUFFIXES)})."))
        found += below
    return found, missing


def _output_name(path: Path, relative: Path, scale: int, format: Format | None) -> Path:
    """Return ``relative`` with the scale in its name and the ending of what is written."""
    from srgan_lib.images import IMAGE_SUFFIXES, is_dicom

    if format is not None:
        suffix = f".{format.value}"
    elif is_dicom(path):
        suffix = ".dcm"
    else:
        suffix = _OUTPUT_SUFFIXES.get(path.suffix.lower(), ".png")
        suffix = ".png" if suffix == ".dcm" else suffix  # named so, and is none
    known = path.suffix.lower() in IMAGE_SUFFIXES  # in 1.2.840.7, .7 is no ending
    return relative.with_name(f"{relative.stem if known else relative.name}_x{scale}{suffix}")


def _sample_names(target: Path, samples: int) -> list[Path]:
    """Return the names of so many throws, of their mean and of their deviation."""
    digits = len(str(samples))
    kinds = [f"throw{k:0{digits}}" for k in range(1, samples + 1)] + ["mean", "deviation"]
    return [target.with_name(f"{target.stem}_{kind}{target.suffix}") for kind in kinds]


def _check_target(
    target: Path, path: Path, sources: set[Path], targets: dict[Path, Path], overwrite: bool
) -> None:
    """Refuse to write over an input, over another image's result, or, unasked, over any file."""
    place = target.resolve()
    if place in targets:
        raise ImageError(f"{path}: {target} was just made from {targets[place]}.")
    if place in sources:
        raise ImageError(f"{path}: {target} is itself among the inputs; take another --out.")
    if target.exists() and not overwrite:
        raise ImageError(f"{path}: {target} is there already; --overwrite replaces it.")


def _upscale_file(
    path: Path,
    targets: list[Path],
    network: "SRNetwork",
    model: str,
    tile: int | None,
    precision: str,
    seed: int,
    keep_patient: bool,
) -> None:
    """Enlarge one file to one target, or to throws, their mean and their deviation."""
    import pydicom
    import torch

    from srgan_lib.dicom import notice, write_derived
    from srgan_lib.images import (
        Pixels,
        is_dicom,
        read_dicom_header,
        read_pixels,
        to_pixels,
        write_pixels,
    )
    from srgan_lib.noise import has_dice
    from srgan_lib.tiling import upscale_tiled

    pixels = read_pixels(path)
    as_dicom = targets[0].suffix == ".dcm"
    bits = 8 if as_dicom and pixels.values.shape[0] == 3 else 16 if as_dicom else pixels.bits
    name = Path(model).stem if model.endswith(".safetensors") else model
    source = read_dicom_header(path) if as_dicom and is_dicom(path) else pydicom.Dataset()

    def throw(seed: int) -> "Pixels":
        values = upscale_tiled(
            network,
            pixels.to_float(),
            bits=bits,
            tile=tile,
            precision=precision,
            progress=sys.stderr.isatty(),
            seed=seed,
        )
        return Pixels(values, bits)

    def write(target: Path, image: "Pixels", what: str) -> None:
        if not as_dicom:
            write_pixels(target, image, notice(network.scale, name, what))
            return
        write_derived(
            target,
            image,
            source,
            scale=network.scale,
            model=name,
            what=what,
            keep_patient=keep_patient,
        )

    if len(targets) == 1:
        write(targets[0], throw(seed), f"the throw with seed {seed}" if has_dice(network) else "")
        return
    # One throw at a time; mean and sum of squared differences are kept up to date (Welford 1962).
    count = len(targets) - 2
    mean = squares = torch.zeros(())
    for k, target in enumerate(targets[:count]):
        image = throw(seed + k)
        write(target, image, f"throw {k + 1} of {count}, seed {(seed + k) % 2**32}")
        values = image.to_float()
        difference = values - mean
        mean = mean + difference / (k + 1)
        squares = squares + difference * (values - mean)
    which = f"{count} throws, seeds from {seed}"
    write(targets[-2], to_pixels(mean.clamp(0, 1), bits), f"the mean of {which}")
    deviation = (squares / (count - 1)).sqrt()
    scaled = to_pixels((_DEVIATION_GAIN * deviation).clamp(0, 1), bits)
    write(
        targets[-1],
        scaled,
        f"the deviation of {which}; grey is {_DEVIATION_GAIN} times the standard deviation, and "
        "no radiograph",
    )


if __name__ == "__main__":
    main()
