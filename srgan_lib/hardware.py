"""What to compute on, and how precisely.

Accelerate takes longer to load than PyTorch, so only :func:`make_accelerator` loads it.
"""

import importlib.metadata
import platform
from typing import TYPE_CHECKING

import torch

from srgan_lib.errors import ConfigurationError, unknown_name

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = ("auto", "bf16", "fp16", "no")
"""Names of the precisions; ``"no"`` is float32, ``"auto"`` what :func:`best_precision` says."""


def best_device() -> torch.device:
    """Return the first CUDA GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def best_precision(device: torch.device | str | None = None) -> str:
    """Return the fastest precision that training is stable in on a device.

    - bfloat16 on CUDA GPUs from Ampere on (compute capability 8.0), and on CPUs whose
      instruction set has it (AVX512-BF16; without it bfloat16 is slower than float32);
    - float16 with a loss scaler on older CUDA GPUs, Colab's T4 among them;
    - float32 on all else.

    Args:
        device: the device, or None for :func:`best_device`.

    Returns:
        ``"bf16"``, ``"fp16"`` or ``"no"``.
    """
    device = best_device() if device is None else torch.device(device)
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    has_units = (
        device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.cpu._is_avx512_bf16_supported()
    )
    return "bf16" if has_units else "no"


def make_accelerator(precision: str = "auto", device: torch.device | None = None) -> "Accelerator":
    """Return Hugging Face's Accelerator for this process.

    Under ``accelerate launch`` or ``notebook_launcher`` each process gets the accelerator of its
    own device; alone, a process is all there is. A process has one accelerator at a time: what
    was made for another precision or device must not be used on.

    Args:
        precision: a name from :data:`PRECISIONS`.
        device: what to compute on when alone, or None for :func:`best_device`.

    Raises:
        ConfigurationError: an unknown precision, or float16 on a CPU.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, is_initialized

    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    device = best_device() if device is None else torch.device(device)
    if precision == "auto":
        precision = best_precision(device)
    if precision == "fp16" and device.type != "cuda":
        raise ConfigurationError(
            "float16 needs a CUDA GPU: its loss scaler has none to run on here. "
            'Take "auto", "bf16" or "no".'
        )
    if is_initialized():  # Accelerate keeps one precision and one device for a whole process
        state = AcceleratorState()
        alone = state.num_processes == 1
        if state.mixed_precision != precision or (alone and state.device.type != device.type):
            AcceleratorState._reset_state(reset_partial_state=alone)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # alone, Accelerate takes the current GPU
    return Accelerator(
        mixed_precision=precision,
        cpu=device.type == "cpu",
        # Each process keeps batch norm's buffers as they are: SyncBatchNorm makes them agree.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def describe_hardware() -> dict[str, str | int]:
    """Return what a run is made on: processor, threads, GPU, versions."""
    described: dict[str, str | int] = {
        "processor": _processor_name(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": importlib.metadata.version("accelerate"),
    }
    return described


def _processor_name() -> str:
    """Return the processor's name as Linux gives it, else what Python knows."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
