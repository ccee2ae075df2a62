"""One file for each architecture; models know nothing of training.

Everything that enlarges is called alike: LR (N, C, H, W) in, SR (N, C, scale H, scale W) out.
:mod:`srgan_lib.architectures.network` says what a network promises. Each module of this folder is
imported, so that its networks are known by their names; a new one takes no line here.
"""

import importlib
import pkgutil

from srgan_lib.architectures.discriminator import Discriminator
from srgan_lib.architectures.drcn import DRCN
from srgan_lib.architectures.espcn import ESPCN
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.ipt import IPT
from srgan_lib.architectures.neighbour_embedding import NeighbourEmbedding
from srgan_lib.architectures.network import NETWORKS, DiscriminatorNetwork, SRNetwork
from srgan_lib.architectures.patch_discriminator import PatchDiscriminator
from srgan_lib.architectures.rrdbnet import RRDBNet
from srgan_lib.architectures.srcnn import SRCNN
from srgan_lib.architectures.srresnet import SRResNet
from srgan_lib.architectures.swinir import SwinIR
from srgan_lib.architectures.vgg import VGGFeatures

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

GENERATORS: dict[str, type[SRNetwork]] = {
    name: network
    for name, network in sorted(NETWORKS.items())
    if issubclass(network, SRNetwork) and network.differentiable
}
"""The networks that are trained to enlarge, by their names."""

DISCRIMINATORS: dict[str, type[DiscriminatorNetwork]] = {
    name: network
    for name, network in sorted(NETWORKS.items())
    if issubclass(network, DiscriminatorNetwork)
}
"""The networks that judge, by their names."""

__all__ = [
    "DISCRIMINATORS",
    "DRCN",
    "ESPCN",
    "GENERATORS",
    "IPT",
    "NETWORKS",
    "SRCNN",
    "Discriminator",
    "DiscriminatorNetwork",
    "Interpolation",
    "NeighbourEmbedding",
    "PatchDiscriminator",
    "RRDBNet",
    "SRNetwork",
    "SRResNet",
    "SwinIR",
    "VGGFeatures",
]
