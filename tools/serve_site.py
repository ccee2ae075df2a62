"""Serve the built site on localhost, with text compressed as web hosts send it."""

import contextlib
import functools
import gzip
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TEXT = {".html", ".css", ".js", ".mjs", ".json", ".svg", ".txt", ".ipynb"}


@functools.lru_cache(maxsize=512)
def compressed(path: Path, modified: int) -> bytes:
    return gzip.compress(path.read_bytes(), 6, mtime=0)


class SiteHandler(SimpleHTTPRequestHandler):
    """Files of one folder; a browser that takes gzip gets text in it, as from GitHub Pages."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            path /= "index.html"
        takes_gzip = "gzip" in self.headers.get("Accept-Encoding", "")
        if not (takes_gzip and path.suffix in TEXT and path.is_file()):
            super().do_GET()
            return
        body = compressed(path, path.stat().st_mtime_ns)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing: a page asks for dozens of files."""


def site_server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of one folder on localhost; port 0 takes a free one."""
    handler = functools.partial(SiteHandler, directory=str(folder))
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        site_server(Path(sys.argv[1]), int(sys.argv[2])).serve_forever()
