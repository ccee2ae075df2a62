"""Where data lies, and writing files so that a reader sees the old or the whole new one."""

import contextlib
import errno
import importlib.metadata
import os
import tempfile
from pathlib import Path

from srgan_lib.errors import SRGANError

DATA_DIR_VARIABLE = "SRGAN_DATA_DIR"
"""Environment variable: a folder that may hold data sets and weights, each under its name."""


def in_data_dir(name: str) -> Path | None:
    """Return the folder of this name under ``SRGAN_DATA_DIR``, if there is one."""
    root = os.environ.get(DATA_DIR_VARIABLE)
    return Path(root) / name if root and (Path(root) / name).is_dir() else None


def shared_folder(name: str, file: str) -> Path:
    """Return a folder of the repository's top level, such as ``results``.

    It lies beside the package, or is installed along with it.

    Args:
        name: the folder's name.
        file: the name of a file that it holds.

    Raises:
        SRGANError: an installation without it.
    """
    beside = Path(__file__).parent.parent / name
    if (beside / file).is_file():
        return beside
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for installed in importlib.metadata.files("srgan-lib") or ():
            if installed.parts[-3:] == ("srgan-lib", name, file):
                return Path(installed.locate()).resolve().parent
    raise SRGANError(f"The folder {name} is not installed; clone the repository to have it.")


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write ``data`` to ``path`` through a temporary file in the same folder.

    Args:
        path: the file to write; its folder is made if needed.
        data: the whole content.

    Raises:
        SRGANError: the file can't be written (no space, no permission, ...). A file that stood
            at ``path`` before is then untouched, and no temporary file stays behind.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            advice = f"no space is left on the disk ({len(data) / 2**20:.1f} MiB are needed)"
        else:
            advice = error.strerror or str(error)
        raise SRGANError(f"Could not write {path}: {advice}. Nothing was changed.") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _umask() -> int:
    """Return the process's umask: ``mkstemp`` ignores it and makes files private."""
    value = os.umask(0)
    os.umask(value)
    return value
