"""Downloads from a server that plays each fault, and two processes that want the same folder."""

import contextlib
import csv
import hashlib
import http.server
import io
import multiprocessing
import os
import signal
import stat
import threading
import time
import zipfile
from pathlib import Path

import pytest
import torch

from srgan_lib import datasets
from srgan_lib.datasets import open_dataset
from srgan_lib.errors import DatasetError
from srgan_lib.files import locked
from srgan_lib.images import write_image

PROCESSES = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """The files of a small data set of Hannover's form."""
    folder = tmp_path_factory.mktemp("made")
    ids = [f"{number:08x}" for number in range(44)]
    for number, name in enumerate(ids):
        write_image(folder / f"{name}.png", torch.full((1, 8, 8), number / 255))
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["patient_id", "image_id"])
    rows.writerows([number % 22, name] for number, name in enumerate(ids))
    files = {f"png/{name}.png": (folder / f"{name}.png").read_bytes() for name in ids}
    return files | {"data.csv": table.getvalue().encode()}


def pack(contents, *more):
    """Return an archive, with any more members as pairs of what zipfile takes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, data in contents.items():
            zipped.writestr(f"top/{name}", data)
        for name, data in more:
            zipped.writestr(name, data)
    return buffer.getvalue()


def link(name):
    """Return a member that is a symbolic link."""
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return member, "/etc/hostname"


class Server(http.server.ThreadingHTTPServer):
    """Answers with one archive, and with the fault that is set."""

    archive, fault, asked = b"", "", 0


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, data = self.server, self.server.archive
        server.asked += 1
        port = server.server_address[1]
        away = {
            "redirected elsewhere": f"http://localhost:{port}/other.zip",
            "redirected for ever": f"http://127.0.0.1:{port}/again.zip",
            "redirected": f"http://127.0.0.1:{port}/other.zip",
        }
        if server.fault in away and self.path != "/other.zip":
            self.send_response(302)
            self.send_header("Location", away[server.fault])
            self.end_headers()
            return
        if server.fault == "not found":
            self.send_error(404)
            return
        if server.fault == "slow":
            time.sleep(1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if server.fault == "interrupted":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        if server.fault == "hangs half-way":
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            server.asked = 100
            time.sleep(5)
            return
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(contents, tmp_path, monkeypatch):
    """A server, and a library that downloads from it into a cache of its own."""
    manifest = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    monkeypatch.setattr(datasets, "_read_manifest", lambda: manifest)
    monkeypatch.setattr(datasets, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("SRGAN_DATA_DIR", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    made = Server(("127.0.0.1", 0), Answer)
    made.archive = pack(contents)
    monkeypatch.setattr(datasets, "_HANNOVER_HOSTS", ("127.0.0.1",))
    url = f"http://127.0.0.1:{made.server_address[1]}/ad7ab09.zip"
    monkeypatch.setattr(datasets, "_HANNOVER_URL", url)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def corrupted(contents):
    return pack(contents)[:-200] + bytes(200)


FAULTS = {
    "interrupted": (None, "failed"),
    "not found": (None, "404"),
    "redirected elsewhere": (None, "it was redirected to http://localhost"),
    "redirected for ever": (None, "redirects"),
    "another page": (lambda contents: b"<html>Please sign in</html>", "can't be extracted"),
    "corrupted": (corrupted, "can't be extracted|not the file"),
    "another content": (lambda c: pack(c | {"data.csv": b"x"}), "not the file that was published"),
    "a file missing": (lambda c: pack({"data.csv": c["data.csv"]}), "is missing in the archive"),
    "climbs": (lambda c: pack(c, ("top/../../evil", b"x")), "outside of its folder"),
    "absolute": (lambda c: pack(c, ("/tmp/evil", b"x")), "outside of its folder"),
    "link in a file's place": (
        lambda c: pack({n: d for n, d in c.items() if n != "data.csv"}, link("top/data.csv")),
        "not the file that was published",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_installs_nothing_and_the_next_try_succeeds(server, contents, tmp_path, fault):
    make, words = FAULTS[fault]
    server.fault = fault
    if make is not None:
        server.archive = make(contents)
    with pytest.raises(DatasetError, match=words):
        open_dataset("covid19-hannover")
    assert os.listdir(tmp_path / "cache") == [".lock"]
    assert os.listdir(tmp_path) == ["cache"]
    server.fault, server.archive = "", pack(contents)
    assert len(open_dataset("covid19-hannover")) == 44


def test_redirection_to_the_publisher_s_own_host_is_followed(server):
    server.fault = "redirected"
    assert len(open_dataset("covid19-hannover")) == 44
    assert server.asked == 2


def test_redirection_from_https_to_http_is_refused():
    class Response:
        is_redirect, url = True, "https://github.com/x.zip"
        headers = {"location": "http://codeload.github.com/x.zip"}  # noqa: RUF012

    with pytest.raises(DatasetError, match="redirected to http://codeload"):
        datasets._check_redirect(Response())
    Response.headers = {"location": "https://codeload.github.com/x.zip"}
    datasets._check_redirect(Response())


def test_link_elsewhere_in_the_archive_is_never_made(server, contents, tmp_path):
    server.archive = pack(contents, link("top/png/link"), link("link"))
    assert len(open_dataset("covid19-hannover")) == 44
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_symlink()]


def download(said):
    """Download in a process of its own; tell what it printed and how many images there are."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        count = len(open_dataset("covid19-hannover"))
    said.put((count, out.getvalue()))


def test_of_two_processes_one_downloads_and_the_other_waits(server):
    server.fault = "slow"
    said = PROCESSES.Queue()
    both = [PROCESSES.Process(target=download, args=(said,)) for _ in range(2)]
    for process in both:
        process.start()
    found = [said.get(timeout=60) for _ in both]
    for process in both:
        process.join(60)
    assert [count for count, _ in found] == [44, 44]
    assert server.asked == 1
    words = sorted(text for _, text in found)
    assert words[0].startswith("Downloading the COVID-19")
    assert words[1].startswith("Waiting for another program, which is downloading")


def test_what_a_killed_download_left_is_removed_by_the_next(server, tmp_path):
    server.fault = "hangs half-way"
    process = PROCESSES.Process(target=download, args=(PROCESSES.Queue(),))
    process.start()
    end = time.monotonic() + 60
    while server.asked < 100 and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert any(name.startswith(".download-") for name in os.listdir(tmp_path / "cache"))
    server.fault, server.asked = "", 0
    assert len(open_dataset("covid19-hannover")) == 44
    assert sorted(os.listdir(tmp_path / "cache")) == [".lock", "covid19-hannover"]


def test_cache_that_can_not_be_written_is_an_error_with_advice(server, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr(datasets, "cache_folder", lambda: tmp_path / "file")
    with pytest.raises(DatasetError, match=r"can't be kept in .*SRGAN_DATA_DIR"):
        open_dataset("covid19-hannover")


def hold(path, told):
    with locked(path):
        told.set()
        time.sleep(60)


def test_lock_of_a_killed_process_is_free_again(tmp_path):
    told = PROCESSES.Event()
    process = PROCESSES.Process(target=hold, args=(tmp_path / ".lock", told))
    process.start()
    assert told.wait(30)
    with pytest.raises(BlockingIOError), locked(tmp_path / ".lock"):
        pass
    process.kill()
    process.join()
    with locked(Path(tmp_path / ".lock")):
        pass
