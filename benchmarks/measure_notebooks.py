"""Run each notebook in a fresh kernel; write its time and peak memory, and the pages that show it.

The notebooks themselves stay as they are. Measure on a machine that does nothing else.

    python benchmarks/measure_notebooks.py [--note "What a reader must know."]
"""

import argparse
import json
import platform
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
import page
import psutil
import torch
from nbclient import NotebookClient

from srgan_lib.files import write_atomically
from srgan_lib.hardware import describe_hardware

NOTEBOOKS = sorted((page.ROOT / "notebooks").glob("*.ipynb"))
PACKAGES = ("srgan-lib", "torch", "torchvision", "numpy", "scipy", "matplotlib", "accelerate")
PACKAGES += ("torchmetrics", "pydicom", "safetensors", "ipykernel", "nbclient", "jupyter-book")
PAUSE = 0.1  # seconds between two looks at the memory


def resident(process: psutil.Process) -> int:
    """Return the resident memory of a process and its children, in bytes."""
    total = 0
    try:
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def measure(path: Path) -> dict[str, float | int]:
    """Run a notebook from top to bottom, as a reader would.

    Returns:
        ``seconds``, from the kernel's start to the last cell's end, and ``peak``, the most bytes
        that the kernel and its children held together.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        # Without a kernel's warning that it listens on this machine's own ports.
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    over = threading.Event()
    peak = 0

    def watch(process: psutil.Process) -> None:
        nonlocal peak
        while not over.wait(PAUSE):
            peak = max(peak, resident(process))

    start = time.perf_counter()
    with client.setup_kernel():
        kernel = psutil.Process(client.km.provisioner.pid)
        watcher = threading.Thread(target=watch, args=(kernel,))
        watcher.start()
        try:
            for number, cell in enumerate(notebook.cells):
                client.execute_cell(cell, number)
            seconds = time.perf_counter() - start
        finally:
            over.set()
            watcher.join()
    return {"seconds": round(seconds, 1), "peak": peak}


def machine() -> dict[str, Any]:
    """Return what the notebooks ran on: the kind of machine, not its name."""
    described = describe_hardware()
    return {
        "processor": described["processor"],
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": psutil.virtual_memory().total,
        "gpu": described["gpu"],
        "system": described["system"],
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure all notebooks, one after the other, and write the results and the pages."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--note", default="", help="a sentence to print above the table")
    chosen = parser.parse_args(arguments)
    measured = {}
    for path in NOTEBOOKS:
        measured[path.stem] = measure(path)
        seconds, peak = measured[path.stem].values()
        print(f"{path.stem}: {seconds:.0f} s, {peak / 2**30:.2f} GiB", flush=True)
    results = {
        "machine": machine(),
        "versions": {"Python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        "note": chosen.note,
        "notebooks": measured,
    }
    write_atomically(page.NOTEBOOK_RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    page.main()


if __name__ == "__main__":
    main()
