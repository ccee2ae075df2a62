"""Writing files: the old content or the whole new one, whatever fails on the way."""

import errno
import os
import stat
import tempfile

import pytest

from srgan_lib.errors import SRGANError
from srgan_lib.files import write_atomically


def fail(code):
    def call(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return call


def test_new_file_holds_exactly_the_data_in_folders_made_for_it(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, b"\0new\r\n\xff")
    assert path.read_bytes() == b"\0new\r\n\xff"
    assert os.listdir(path.parent) == ["file.bin"]


def test_existing_file_is_replaced_also_by_a_shorter_one(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"long old content")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_reader_that_has_the_old_file_open_keeps_all_of_it(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_atomically(path, b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("existing", [True, False])
def test_full_disk_leaves_the_old_state_and_says_so(tmp_path, monkeypatch, call, existing):
    path = tmp_path / "file.bin"
    if existing:
        path.write_bytes(b"old")
    monkeypatch.setattr(os, call, fail(errno.ENOSPC))
    with pytest.raises(SRGANError, match=r"file\.bin: no space is left on the disk \(2\.0 MiB"):
        write_atomically(path, b"\0" * 2**21)
    assert os.listdir(tmp_path) == (["file.bin"] if existing else [])
    assert not existing or path.read_bytes() == b"old"


def test_failure_in_the_middle_of_writing_leaves_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    real = os.fdopen

    def half(descriptor, mode):
        file = real(descriptor, mode, buffering=0)

        class Half:
            def __enter__(self):
                return self

            def __exit__(self, *args):
                file.close()

            def write(self, data):
                file.write(data[:2])
                raise OSError(errno.ENOSPC, "full")

        return Half()

    monkeypatch.setattr(os, "fdopen", half)
    with pytest.raises(SRGANError, match="Nothing was changed"):
        write_atomically(path, b"new content")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_data_is_on_the_disk_before_the_name_changes(tmp_path, monkeypatch):
    order = []
    for call in ("fsync", "replace"):
        real = getattr(os, call)
        monkeypatch.setattr(
            os, call, lambda *args, call=call, real=real: (order.append(call), real(*args))
        )
    write_atomically(tmp_path / "file.bin", b"x")
    assert order == ["fsync", "replace"]


def test_other_failures_name_their_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "mkstemp", fail(errno.EACCES))
    with pytest.raises(SRGANError, match="Permission denied"):
        write_atomically(tmp_path / "file.bin", b"x")


def test_folder_in_the_file_s_place_is_refused_and_kept(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(SRGANError, match="taken"):
        write_atomically(tmp_path / "taken", b"x")
    assert os.listdir(tmp_path) == ["taken"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask_and_leave_it_as_it_was(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "file.bin", b"x")
        after = os.umask(umask)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.bin").stat().st_mode) == mode
    assert after == umask
