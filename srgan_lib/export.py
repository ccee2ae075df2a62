"""Networks as ONNX files, which programs without PyTorch run: browsers, C++, other languages."""

import copy
import io
import logging
import os
import warnings
from contextlib import redirect_stdout

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from srgan_lib import __version__
from srgan_lib.architectures import GENERATORS
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.network import SRNetwork
from srgan_lib.degradation import resize_matrix
from srgan_lib.errors import ConfigurationError, SRGANError
from srgan_lib.files import write_atomically
from srgan_lib.noise import has_dice, noise_inputs

NOTICE = "Synthetic image, not for diagnosis."
"""What the file says of the images that it makes."""

_OPSET = 18


class PolyphaseInterpolation(nn.Module):
    """Enlarge by interpolation at any height and width: one convolution, then pixel shuffle.

    Equal to :class:`~srgan_lib.architectures.interpolation.Interpolation`, whose matrices are
    made for one size. Each of the ``scale`` x ``scale`` output pixels of an LR pixel has a kernel
    of its own, so they are channels of one convolution. At the border, where the kernel is cut
    off and the rest normalised, the zero-padded convolution of the image is divided by that of
    an image of ones: the part of the kernel that lies inside.

    Args:
        interpolation: what to be equal to.
        channels: number of channels of the images.
    """

    def __init__(self, interpolation: Interpolation, channels: int) -> None:
        super().__init__()
        scale, radius = interpolation.scale, interpolation.receptive_radius
        size = 2 * radius + 1
        # The rows of the middle pixel see all of the kernel: nothing is cut off there.
        matrix = resize_matrix(size, scale * size, interpolation.kernel)
        phases = matrix[scale * radius : scale * (radius + 1)]  # (scale, size)
        kernels = torch.einsum("ik,jl->ijkl", phases, phases)
        kernels = kernels.reshape(scale**2, 1, size, size).repeat(channels, 1, 1, 1)
        self.kernels: Tensor
        self.register_buffer("kernels", kernels)  # (channels scale^2, 1, size, size)
        self.scale, self.radius, self.channels = scale, radius, channels

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge LR (N, channels, H, W) to (N, channels, scale H, scale W)."""
        image = self._convolve(lr)
        inside = self._convolve(torch.ones_like(lr[:1]))
        return functional.pixel_shuffle(image / inside, self.scale)

    def _convolve(self, x: Tensor) -> Tensor:
        """Turn (N, channels, H, W) into (N, channels scale^2, H, W)."""
        return functional.conv2d(x, self.kernels, padding=self.radius, groups=self.channels)


def export_onnx(network: SRNetwork, path: str | os.PathLike) -> None:
    """Write a network as an ONNX file that takes any batch, height and width.

    Its input ``lr`` is float32 (N, C, H, W) in [0, 1], its output ``sr`` float32
    (N, C, scale H, scale W), not clamped. A network that throws dice has a second input,
    ``noise``, float32 (N, noise_channels, H, W), standard normal; :func:`srgan_lib.noise.noise_at`
    makes some. The file says that its images are synthetic.

    Args:
        network: one of :data:`~srgan_lib.architectures.GENERATORS`, or an
            :class:`~srgan_lib.architectures.interpolation.Interpolation`, which is exported for
            grey images. It is not changed.
        path: the file to write; it appears whole or not at all.

    Raises:
        ConfigurationError: a network of another kind.
        SRGANError: the packages of the extra ``onnx`` are missing, the export failed, or the
            file can't be written.
    """
    exported = _exportable(network)
    channels = network.channels or 1
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise SRGANError(
            f"The export to ONNX needs the package {error.name}. "
            'Install the extra: pip install "srgan_lib[onnx]"'
        ) from error
    # Names, not torch.export.Dim, whose range would have to be proven: where a side is one window
    # or crop, torch may lay memory out otherwise, and takes that for another network.
    free = {0: "batch", 2: "height", 3: "width"}
    names, examples = ["lr"], [torch.rand(2, channels, 12, 15)]
    properties = {
        "network": type(network).__name__,
        "channels": str(channels),
        "scale": str(network.scale),
        "input": "float32 (N, C, H, W) in [0, 1]",
        "notice": NOTICE,
    }
    if has_dice(network):
        names.append("noise")
        examples += noise_inputs(exported, examples[0])
        properties["noise_channels"] = str(network.noise_channels)
        properties["noise"] = "float32 (N, noise_channels, H, W), standard normal"
    level = logging.getLogger("torch.onnx").level
    try:
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        # Attention as plain products: the fused kernels keep memory in an order of their own.
        plain = sdpa_kernel(SDPBackend.MATH)
        with plain, warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # about the exporter's own inner workings
            program = torch.onnx.export(
                exported,
                tuple(examples),
                input_names=names,
                output_names=["sr"],
                dynamic_shapes=(free,) * len(names),
                opset_version=_OPSET,
                dynamo=True,
                verbose=False,
            )
        model = program.model_proto
        model.producer_name, model.producer_version = "srgan_lib", __version__
        model.doc_string = NOTICE
        onnx.helper.set_model_props(model, properties)
        onnx.checker.check_model(model)
        data = model.SerializeToString()
    except Exception as error:  # torch's exporter and ONNX raise errors of many kinds
        raise SRGANError(
            f"The export to ONNX failed ({type(error).__name__}: {error}). Versions of torch, "
            'onnx and onnxscript must fit together: pip install --upgrade "srgan_lib[onnx]"'
        ) from error
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    write_atomically(path, data)


def _exportable(network: SRNetwork) -> nn.Module:
    """Return a copy on the CPU, in float32 and evaluation mode, without fixed sizes."""
    if isinstance(network, Interpolation):
        return PolyphaseInterpolation(network, channels=1)
    if not isinstance(network, SRNetwork) or not network.differentiable:
        raise ConfigurationError(
            f"{type(network).__name__} can't be exported; "
            f"{', '.join(GENERATORS)} and Interpolation can."
        )
    channels, network = network.channels or 1, copy.deepcopy(network).cpu().float().eval()
    for name, part in list(network.named_modules()):
        if isinstance(part, Interpolation):
            network.set_submodule(name, PolyphaseInterpolation(part, channels))
    return network
