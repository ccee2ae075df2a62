"""One file for each architecture; models know nothing of training.

Everything that enlarges is called alike: LR (N, C, H, W) in, SR (N, C, scale H, scale W) out.
"""

from srgan_lib.architectures.discriminator import Discriminator
from srgan_lib.architectures.drcn import DRCN
from srgan_lib.architectures.espcn import ESPCN
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.ipt import IPT
from srgan_lib.architectures.neighbour_embedding import NeighbourEmbedding
from srgan_lib.architectures.patch_discriminator import PatchDiscriminator
from srgan_lib.architectures.rrdbnet import RRDBNet
from srgan_lib.architectures.srcnn import SRCNN
from srgan_lib.architectures.srresnet import SRResNet
from srgan_lib.architectures.swinir import SwinIR
from srgan_lib.architectures.vgg import VGGFeatures

GENERATORS = {
    network.__name__: network for network in (SRCNN, ESPCN, DRCN, SRResNet, RRDBNet, SwinIR, IPT)
}
"""The networks that are trained to enlarge, by their names, in the order of their papers."""

DISCRIMINATORS = {network.__name__: network for network in (Discriminator, PatchDiscriminator)}
"""The networks that judge, by their names."""

__all__ = [
    "DISCRIMINATORS",
    "DRCN",
    "ESPCN",
    "GENERATORS",
    "IPT",
    "SRCNN",
    "Discriminator",
    "Interpolation",
    "NeighbourEmbedding",
    "PatchDiscriminator",
    "RRDBNet",
    "SRResNet",
    "SwinIR",
    "VGGFeatures",
]
