"""Super-resolution GANs for chest radiographs, written to be read.

The modules follow the path of an image: :mod:`~srgan_lib.images` reads it,
:mod:`~srgan_lib.datasets` and :mod:`~srgan_lib.crops` serve it,
:mod:`~srgan_lib.degradation` shrinks it, :mod:`~srgan_lib.architectures` enlarges it again,
:mod:`~srgan_lib.losses` and :mod:`~srgan_lib.training` teach a network to do so,
:mod:`~srgan_lib.metrics` and :mod:`~srgan_lib.evaluation` measure the result, and
:mod:`~srgan_lib.figures` draws it.

Every image is a float tensor in [0, 1] of shape (C, H, W), or (N, C, H, W) in batches.
Outputs are synthetic images and not for diagnosis.
"""

import warnings

# tqdm.auto, which pooch and kagglehub import too, warns at import in a kernel without ipywidgets.
# Its bars are then drawn as text, which is all that is wanted.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.1.0"
