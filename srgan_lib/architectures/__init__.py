"""One file for each architecture; models know nothing of training.

Everything that enlarges is called alike: LR (N, C, H, W) in, SR (N, C, scale H, scale W) out.
"""

from srgan_lib.architectures.discriminator import Discriminator
from srgan_lib.architectures.interpolation import Interpolation
from srgan_lib.architectures.srresnet import SRResNet
from srgan_lib.architectures.vgg import VGGFeatures

__all__ = ["Discriminator", "Interpolation", "SRResNet", "VGGFeatures"]
