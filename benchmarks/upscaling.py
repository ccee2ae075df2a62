"""Time the enlarging of one image: what `srgan upscale` does against plain PyTorch and ONNX."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import public_style
import torch
from common import Setting, Trial, main
from torch import Tensor

from srgan_lib.architectures import SRResNet
from srgan_lib.datasets import open_dataset
from srgan_lib.export import export_onnx
from srgan_lib.images import read_image, write_image
from srgan_lib.pretrained import load_network
from srgan_lib.tiling import upscale_tiled

SIDE, QUICK_SIDE = 512, 48


def network(setting: Setting) -> SRResNet:
    """Return the network that comes with the library, in evaluation mode."""
    if setting.quick:
        return SRResNet(blocks=1, width=4, bicubic_skip=True).eval()
    return load_network("srresnet")


def prepare(setting: Setting) -> None:
    """Write the image, the middle of a chest radiograph, and the network as ONNX."""
    side = QUICK_SIDE if setting.quick else SIDE
    chest = open_dataset("sample", "train", width=640)[0]
    top, left = ((size - side) // 2 for size in chest.shape[1:])
    write_image(setting.folder / "lr.png", chest[:, top : top + side, left : left + side])
    if find_spec("onnx") and find_spec("onnxscript"):
        export_onnx(network(setting), setting.folder / "network.onnx")


def trials(setting: Setting) -> list[Trial]:
    """One trial: from a float image in [0, 1] on the CPU to the integers that a file holds."""

    def repeat(enlarge: Callable[[Tensor], Any]) -> Iterator[None]:
        lr = read_image(setting.folder / "lr.png")
        yield
        while True:
            enlarge(lr)
            yield

    def ours() -> Iterator[None]:
        generator = network(setting).to(setting.device)
        return repeat(lambda lr: upscale_tiled(generator, lr, bits=8))

    def eager() -> Iterator[None]:
        generator = public_style.contiguous(network(setting)).to(setting.device)
        return repeat(lambda lr: upscale_eagerly(generator, lr))

    def onnx() -> Iterator[None]:
        session = open_session(setting)
        # The memory that its first run asks for is kept for all others.
        upscale_by_onnx(session, read_image(setting.folder / "lr.png"))
        return repeat(lambda lr: upscale_by_onnx(session, lr))

    others = {"PyTorch, float32, contiguous": eager}
    reason = why_not_onnx(setting)
    if not reason:
        others["onnxruntime, float32"] = onnx
    side = QUICK_SIDE if setting.quick else SIDE
    return [
        Trial(
            f"{side} × {side} to {4 * side} × {4 * side}",
            ours,
            others,
            warm=setting.count(0, 3),
            units=setting.count(1, 10),
            remarks=[reason] if reason else [],
        )
    ]


def upscale_eagerly(generator: SRResNet, lr: Tensor) -> Tensor:
    """Enlarge an image in one piece, as public code does; uint8 (C, H, W) on the CPU."""
    with torch.no_grad():
        sr = generator(lr[None].to(next(generator.parameters()).device))[0]
    return sr.clamp(0, 1).mul(255).round().to(torch.uint8).cpu()


def open_session(setting: Setting) -> Any:
    """Return onnxruntime's session for the network, with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = setting.folder / "network.onnx"
    return onnxruntime.InferenceSession(path, options, providers=[provider(setting)])


def upscale_by_onnx(session: Any, lr: Tensor) -> np.ndarray:
    """Enlarge an image in one piece; uint8 (C, H, W)."""
    (sr,) = session.run(None, {"lr": lr[None].numpy()})
    return (sr[0].clip(0, 1) * 255).round().astype("uint8")


def provider(setting: Setting) -> str:
    """Return onnxruntime's name for the device."""
    return {"cpu": "CPU", "cuda": "CUDA"}[setting.device.type] + "ExecutionProvider"


def why_not_onnx(setting: Setting) -> str:
    """Return the reason to leave onnxruntime out, empty if there is none."""
    missing = [x for x in ("onnx", "onnxscript", "onnxruntime") if find_spec(x) is None]
    if missing:
        return f"onnxruntime was left out: {missing[0]} is missing (the extra `onnx`)."
    import onnxruntime

    if provider(setting) not in onnxruntime.get_available_providers():
        return f"onnxruntime was left out: as installed, it has no {provider(setting)}."
    return ""


if __name__ == "__main__":
    main(__file__, prepare, trials)
