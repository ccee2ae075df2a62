"""What a network promises to the rest of the library, and the register of all of them."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from srgan_lib.architectures.checks import check_form
from srgan_lib.errors import ConfigurationError

NETWORKS: dict[str, type["Network"]] = {}
"""The networks that recipes and weights can name: each by the name of its class."""


class Network(nn.Module):
    """A network that can be built again from its name and its arguments.

    A class that derives from this one is entered in :data:`NETWORKS` as soon as it is defined;
    ``named=False`` keeps out what has no weights that could name it.

    Attributes:
        arguments: what the constructor was called with, as JSON can hold it; saved along with the
            weights.
        channels: of the images, 1 (grey) or 3 (RGB).

    Raises:
        ConfigurationError: another module has a class of this name, when a class is defined.
    """

    arguments: dict[str, Any]
    channels: int | None

    def __init_subclass__(cls, *, named: bool = True) -> None:
        super().__init_subclass__()
        if not named:
            return
        other = NETWORKS.get(cls.__name__, cls).__module__
        if other != cls.__module__:
            raise ConfigurationError(f"{other} has a network {cls.__name__} already; rename yours.")
        NETWORKS[cls.__name__] = cls


class SRNetwork(Network, named=False):
    """A network that enlarges: LR (N, C, H, W) in, SR (N, C, scale H, scale W) out.

    This is all that tiling, export, cost, checkpoints, evaluation, recipes and training ask. Where
    there is a default, a network without its own says nothing wrong by it; the two properties
    have none.

    Args:
        arguments: ``locals()``, as the first thing in the network's own constructor: what stands
            there beside ``self`` is what the constructor was called with.

    Attributes:
        channels: of the images; None for a network that takes any number.
        scale: how many times larger each side gets.
        offered_scales: the scales that there are; None where the network checks for itself.
        stride: an image may be cut at multiples of this, in LR pixels, without a change.
        adds_to_bicubic: whether what the layers give is added to the bicubic image, so that they
            may compute in bfloat16.
        noise_channels: channels of the noise that ``forward`` takes beside LR, at LR's size; 0
            for a network that throws no dice.
        differentiable: whether torch computes all of it: then recipes can train it, its
            multiply-adds can be counted, and it can be exported.
        gives_each: whether ``forward(lr, each=True)`` also returns the images on the way, which
            stage one then compares with HR.
        small: arguments of a form that computes in a moment, for trials.

    Raises:
        ConfigurationError: an impossible number of channels, or a scale that isn't offered.
    """

    scale: int
    offered_scales: ClassVar[tuple[int, ...] | None] = (2, 3, 4)
    stride = 1
    adds_to_bicubic = False
    noise_channels = 0
    differentiable: ClassVar[bool] = True
    gives_each: ClassVar[bool] = False
    small: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.arguments = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in arguments.items()
            if name not in ("self", "__class__")
        }
        self.channels, self.scale = self.arguments.get("channels"), self.arguments["scale"]
        if self.channels is not None and self.offered_scales is not None:
            check_form(self.channels, self.scale, self.offered_scales)

    @property
    def receptive_radius(self) -> int:
        """No LR pixel that is more rows or columns away changes an LR pixel's SR pixels.

        Holds in evaluation mode: in training, batch norm looks at the whole image.
        """
        raise NotImplementedError(f"{type(self).__name__} must say its receptive_radius.")

    @property
    def working_width(self) -> int:
        """Channels of its widest features for each SR pixel: what memory grows with."""
        raise NotImplementedError(f"{type(self).__name__} must say its working_width.")

    def complete(self, state: dict[str, Tensor], arguments: dict[str, Any]) -> None:
        """Turn the weights of a simpler form, which mean the same in this one, into its own.

        Args:
            state: weights by their names, perhaps of another form; changed in place.
            arguments: what the other network was made with; changed in place.
        """


class DiscriminatorNetwork(Network, named=False):
    """A network that judges: images (N, C, H, W) in, logits out.

    Attributes:
        sees_lr: whether ``forward`` takes the LR images as well, and the constructor their
            ``scale``.
    """

    sees_lr: ClassVar[bool] = False


def start_at_zero(layer: nn.Conv2d) -> None:
    """Let a layer give nothing at first: a network that adds to the bicubic image starts as it."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
