"""Where data lies, and writing files so that a reader sees the old or the whole new one."""

import contextlib
import errno
import importlib.metadata
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from srgan_lib.errors import ConfigurationError, SRGANError

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


def limit_from(variable: str, default: int) -> int:
    """Return a limit that an environment variable may set.

    Args:
        variable: the variable's name.
        default: the limit where it isn't set, or empty.

    Raises:
        ConfigurationError: the variable holds no positive whole number.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise ConfigurationError(
            f"{variable} must be a positive whole number, such as {default}, not {text[:40]!r}."
        )
    return int(text)


def read_whole(path: str | os.PathLike, limit: int) -> bytes:
    """Return a file's content.

    Args:
        path: the file.
        limit: the most bytes that it may have.

    Raises:
        OSError: it can't be read, is larger, or is no regular file: a pipe may never end.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is a device or a pipe, not a file")
            data = file.read(limit + 1)
    except ValueError as error:  # a null byte in the path
        raise OSError(errno.EINVAL, "its name is not one that a file can have") from error
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than the {limit:,} bytes that are read")
    return data


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe without a writer, too, which would be waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextlib.contextmanager
def locked(path: str | os.PathLike, waiting: str = "") -> Iterator[None]:
    """Hold a lock file; it is free again when this process ends, however it ends.

    A file system or an operating system without such locks goes without.

    Args:
        path: the lock file; made if it isn't there, and left there.
        waiting: what to print before waiting for another process that holds it; empty not to
            wait.

    Raises:
        BlockingIOError: another process holds it, and nobody is to wait.
        OSError: the file can't be made.
    """
    with open(path, "w") as file:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waiting:
                raise
            print(waiting, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # no locks here
            pass
        yield


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
