"""VGG features, the eyes of the perceptual loss (Simonyan & Zisserman 2014)."""

import os
from collections.abc import Iterable
from contextlib import nullcontext
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from srgan_lib.errors import ConfigurationError, ImageError, WeightsError, unknown_name
from srgan_lib.files import in_data_dir
from srgan_lib.pixels import to_channels

_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)
_SHIPPED_UP_TO = "relu3_3"
_HOW_TO_GET = (
    'Use weights="imagenet" (torchvision downloads them, once), or name a file of them with '
    "weights=PATH."
)


class VGGFeatures(nn.Module):
    """The activations of one layer of a trained, frozen VGG network.

    Layers are named ``reluB_C``: after the activation of convolution C in block B, before its
    pooling; or ``convB_C``: before the activation, as ESRGAN takes them (Wang et al. 2018,
    section 3.3), since deep layers have few features left after it. SRGAN's VGG22 is ``relu2_2``
    and its VGG54 ``relu5_4`` of VGG19 (Ledig et al. 2017, section 2.2.1). The ImageNet
    normalisation is inside, grey images are replicated to three channels, and only the layers up
    to the named one are built.

    Two families of weights are about. The original ones, made in Caffe, are rescaled by 1/12.75
    in the SRGAN paper; the ones shipped here are of that family. torchvision trained its own,
    whose activations have another scale. :attr:`rescale` is the factor that fits.

    Args:
        layer: name of the layer.
        network: ``"vgg16"`` or ``"vgg19"`` (the paper's).
        weights: ``"shipped"`` (VGG16 through relu3_3, inside this package, no download),
            ``"original"`` (all of the original VGG16, from ``vgg16-imagenet`` in the folder that
            the environment variable ``SRGAN_DATA_DIR`` names), ``"imagenet"`` (torchvision
            downloads them, about 550 MB), or the path of a ``.safetensors`` or ``.pth`` file
            with torchvision's names.
        rescale: factor that the losses apply to the features. Default: 1/12.75 for the shipped
            and the original weights, 1 for all others.

    Raises:
        ConfigurationError: an unknown network or layer.
        WeightsError: weights that are not at hand, damaged, or of another network; the message
            says how to get the right ones.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        layer: str = "relu2_2",
        network: str = "vgg16",
        weights: str | os.PathLike = "shipped",
        rescale: float | None = None,
    ) -> None:
        super().__init__()
        if network not in _CONVOLUTIONS:
            raise unknown_name("network", network, _CONVOLUTIONS)
        names = layer_names(network)
        if layer not in names:
            raise unknown_name(f"layer of {network}", layer, names)
        self.layer, self.network = layer, network
        self.layers = _build(network, layer)
        state = _read_weights(network, layer, weights)
        wanted = self.layers.state_dict()
        try:
            missing = [key for key in wanted if key not in state]
            if missing:
                raise WeightsError(f"{missing[0]!r} is missing.")
            self.layers.load_state_dict({key: state[key].float() for key in wanted})
        except (WeightsError, RuntimeError) as error:
            raise WeightsError(
                f"The weights {weights} don't hold {network} through {layer}: {error} "
                + _HOW_TO_GET
            ) from error
        if rescale is None:
            rescale = 1 / 12.75 if weights in ("shipped", "original") else 1.0
        self.rescale = rescale
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "VGGFeatures":
        """Stay in evaluation mode: the network is frozen."""
        return super().train(False)

    def forward(self, image: Tensor) -> Tensor:
        """Turn images (N, 1 or 3, H, W) in [0, 1] into features (N, C, H / s, W / s).

        C and s follow from the layer's block: 64 and 1, 128 and 2, 256 and 4, 512 and 8,
        512 and 16. The features are not rescaled. Under float16 autocast they are computed in
        float32, since the original weights' activations overflow float16.
        """
        return self.activations(image, (self.layer,))[self.layer]

    def activations(self, image: Tensor, layers: Iterable[str]) -> dict[str, Tensor]:
        """Return the activations of several layers, none deeper than :attr:`layer`.

        Args:
            image: (N, 1 or 3, H, W) in [0, 1].
            layers: names of layers.

        Raises:
            ConfigurationError: a layer that is unknown or deeper than :attr:`layer`.
            ImageError: another shape.
        """
        if image.ndim != 4:
            raise ImageError(f"VGG takes (N, C, H, W), not {tuple(image.shape)}.")
        wanted = self.check_layers(layers)
        x = (to_channels(image, 3) - self.mean) / self.std
        device = image.device.type
        half = torch.is_autocast_enabled(device) and (
            torch.get_autocast_dtype(device) == torch.float16
        )
        found = {}
        with torch.autocast(device, enabled=False) if half else nullcontext():
            x = x.float() if half else x
            for number, layer in enumerate(self.layers):
                x = layer(x)
                if number in wanted:
                    found[wanted[number]] = x
        return found

    def check_layers(self, layers: Iterable[str]) -> dict[int, str]:
        """Return layers by their place in the network.

        Raises:
            ConfigurationError: a layer that is unknown or deeper than :attr:`layer`.
        """
        names = layer_names(self.network)
        known = names[: names.index(self.layer) + 1]
        places = [i for i, layer in enumerate(self.layers) if not isinstance(layer, nn.MaxPool2d)]
        at = dict(zip(known, places, strict=True))
        for layer in layers:
            if layer not in at:
                raise unknown_name(f"layer of {self.network} up to {self.layer}", layer, known)
        return {at[layer]: layer for layer in layers}

    def extra_repr(self) -> str:
        return f"{self.network}, {self.layer}"


def layer_names(network: str) -> tuple[str, ...]:
    """Return the names of a network's layers, first to last: each before and after its ReLU.

    Args:
        network: ``"vgg16"`` or ``"vgg19"``.
    """
    counts = _CONVOLUTIONS[network]
    places = [f"{b}_{c}" for b, n in enumerate(counts, 1) for c in range(1, n + 1)]
    return tuple(f"{kind}{place}" for place in places for kind in ("conv", "relu"))


def _build(network: str, layer: str) -> nn.Sequential:
    """Build the layers up to the named one, numbered as torchvision numbers them."""
    layers: list[nn.Module] = []
    channels = 3
    for block, (count, width) in enumerate(zip(_CONVOLUTIONS[network], _WIDTHS, strict=True), 1):
        for convolution in range(1, count + 1):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            channels = width
            if layer == f"conv{block}_{convolution}":
                return nn.Sequential(*layers)
            layers.append(nn.ReLU())
            if layer == f"relu{block}_{convolution}":
                return nn.Sequential(*layers)
        layers.append(nn.MaxPool2d(2))
    raise ConfigurationError(f"{network} has no layer {layer!r}.")


def _read_weights(network: str, layer: str, weights: str | os.PathLike) -> dict[str, Tensor]:
    """Return the state dict of ``torchvision.models.vggNN().features`` from where it was named."""
    if weights == "shipped":
        names = layer_names("vgg16")
        if network != "vgg16" or names.index(layer) > names.index(_SHIPPED_UP_TO):
            raise WeightsError(
                f"This package ships VGG16 through {_SHIPPED_UP_TO} only, not {network} "
                f"{layer}. " + _HOW_TO_GET
            )
        return load_file(str(files("srgan_lib") / "weights" / "vgg16_features_fp16.safetensors"))
    if weights == "original":
        folder = in_data_dir("vgg16-imagenet")
        path = (folder or Path()) / "vgg16_features_fp16.safetensors"
        if network != "vgg16" or folder is None or not path.is_file():
            raise WeightsError(
                "The original weights are those of VGG16, in vgg16-imagenet/"
                "vgg16_features_fp16.safetensors under the folder that SRGAN_DATA_DIR names; "
                f"they are not there, or not for {network}. {_HOW_TO_GET}"
            )
        weights = path
    if weights == "imagenet":
        import torchvision  # slow to import

        if network == "vgg16":
            source = torchvision.models.VGG16_Weights.IMAGENET1K_V1
        else:
            source = torchvision.models.VGG19_Weights.IMAGENET1K_V1
        try:
            state = source.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"torchvision could not download the weights of {network}: {error}. Check the "
                'network, name a file with weights=PATH, or use weights="shipped" with VGG16 '
                f"through {_SHIPPED_UP_TO}."
            ) from error
    else:
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(f"There is no file {path}. {_HOW_TO_GET}")
        try:
            if path.suffix == ".safetensors":
                state = load_file(str(path))
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # the two readers raise errors of many kinds
            raise WeightsError(f"Could not read weights from {path}: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise WeightsError(f"{weights} holds no dictionary of tensors. {_HOW_TO_GET}")
    return {key.removeprefix("features."): value for key, value in state.items()}
