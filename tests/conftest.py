"""What several test modules use."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from serve_site import site_server
from webpages import CHROMIUM, CHROMIUM_ARGS, SITE, WIDE


def pytest_report_header() -> str:
    """Say what torch computes with: another set of instructions adds up in another order."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"torch: {torch.__version__}, {capability}, {torch.get_num_threads()} threads"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def one_thread():
    """Let torch compute on one thread: processes that compare their bits share the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def noise_images(tmp_path_factory) -> Path:
    """A folder of ten small images to train on."""
    folder = tmp_path_factory.mktemp("images")
    chance = np.random.default_rng(0)
    for number in range(10):
        values = chance.integers(0, 256, (48, 48), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def site() -> Path:
    """The built site; its absence is a failure only where it was asked for."""
    if not (SITE / "index.html").is_file():
        if os.environ.get("SRGAN_REQUIRE_SITE"):
            pytest.fail("The site is not built.")
        pytest.skip("the site is not built: make book")
    return SITE


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served on localhost."""
    with site_server(site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; where none is installed, the test is skipped.

    For one module: while it lives, its event loop keeps other tests from running theirs.
    """
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page of a wide window, light."""
    page = browser.new_page(viewport=WIDE, color_scheme="light")
    yield page
    page.close()
