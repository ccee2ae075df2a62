"""What the notebooks' first cell looks at on Colab, in a moment: nothing here imports torch."""

import importlib.metadata
import os
import platform
import shutil
import subprocess

from packaging.requirements import Requirement

from srgan_lib.files import shared_folder

MEMORY = 4.0
"""GiB of main memory that the notebooks want."""

_SHOWN = ("torch", "torchvision", "numpy", "srgan-lib")


def check_runtime() -> None:
    """Print the GPU, the memory and the versions that are here, and which profile will run.

    What is not as it should be, and what to do about it, stands in a line of its own.
    """
    card, memory = graphics_card(), memory_size()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _SHOWN)
    print(f"GPU: {card or 'none'}")
    print(f"Memory: {memory:.1f} GiB")
    print(f"Versions: Python {platform.python_version()}, {versions}")
    if memory < MEMORY:
        print(f"Too little memory: the notebooks want {MEMORY:.0f} GiB.")
    for complaint in misfits():
        print(f"Does not fit: {complaint}.")
    if card:
        recipe = shared_folder("recipes", "colab_srgan.yaml") / "colab_*.yaml"
        print(f"Profile: colab. For longer training, srgan train takes {recipe}.")
    else:
        print("Profile: quick. For longer training choose Runtime > Change runtime type > T4 GPU.")
    print("The notebook itself computes on the processor: its networks are small.")


def graphics_card() -> str | None:
    """Return name and memory of the first NVIDIA GPU, as its driver tells, or None without one."""
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(told.stdout.splitlines()), "").strip() or None


def memory_size() -> float:
    """Return this machine's main memory in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def misfits(package: str = "srgan-lib") -> list[str]:
    """Return each package that is missing, or whose version another one cannot work with.

    Args:
        package: the installed package whose requirements are looked at, without its extras.
    """
    found = []
    for line in importlib.metadata.requires(package) or ():
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(
                f"{requirement.name} {version}, and {package} wants {requirement.specifier}"
            )
    return found
