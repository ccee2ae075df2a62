"""The page "Try it on your image": the networks in the reader's browser against the library's."""

import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from imagecodecs import png_encode
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from pydicom.data import get_testdata_file
from try_it import describe
from typer.testing import CliRunner
from webpages import NARROW, SITE, WIDE, WIDTH, listen

from srgan_lib.architectures import Interpolation, SRResNet
from srgan_lib.checkpoints import save_weights
from srgan_lib.cli import app
from srgan_lib.dicom import notice
from srgan_lib.export import export_onnx
from srgan_lib.images import read_image, read_pixels, to_pixels
from srgan_lib.pretrained import load_network, weights_path
from srgan_lib.tiling import upscale_tiled

STATIC = SITE / "_static"
MODELS = STATIC / "try_it" / "models"
# A page whose tiles are so small that the test images need several.
TILED = "/book/try_it.html?tile=20"
PATIENCE = 120_000  # ms; what takes a second may take long on a busy machine

chance = np.random.default_rng(5)


def noise(*shape: int, levels: int = 256, dtype: type = np.uint8) -> np.ndarray:
    """Smooth structure and some noise, as in a radiograph."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    wave = np.sin(rows / 3)[..., None] * np.cos(columns / 4)[..., None]
    values = 0.5 + 0.4 * wave + 0.1 * chance.standard_normal((*shape[:2], *(shape[2:] or (1,))))
    return (values.clip(0, 1) * (levels - 1)).round().astype(dtype).reshape(shape)


def dicom(path: Path, array: np.ndarray, stored: int, **attributes: object) -> Path:
    """Write a grey DICOM file."""
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    for name in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        if name in dataset:
            delattr(dataset, name)
    dataset.set_pixel_data(array, "MONOCHROME2", stored)
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of every kind that the page reads, named for their kind."""
    folder = tmp_path_factory.mktemp("try_it")

    def save(name: str, array: np.ndarray, mode: str | None = None, **options: object) -> None:
        image = Image.fromarray(array)
        (image.convert(mode) if mode else image).save(folder / name, **options)

    save("grey.png", noise(17, 22))
    save("colour.png", noise(13, 16, 3))
    save("alpha.png", noise(12, 14, 4))
    save("bits.png", noise(15, 12), "1")
    save("palette.png", noise(16, 12, 3), "P")
    # Of 16 bits, one of which shows what a tile's surroundings of 12 pixels would leave out.
    tiled = noise(21, 93, levels=65536, dtype=np.uint16)
    (folder / "many_tiles.png").write_bytes(png_encode(tiled))
    (folder / "deep.png").write_bytes(png_encode(noise(14, 19, levels=65536, dtype=np.uint16)))
    (folder / "deep_colour.png").write_bytes(
        png_encode(noise(12, 13, 3, levels=65536, dtype=np.uint16))
    )
    save("photo.jpg", noise(24, 17), quality=90)
    turned = Image.Exif()
    turned[0x0112] = 6  # turn by 90 degrees to show
    save("turned.jpg", noise(18, 25, 3), quality=80, exif=turned)
    twelve = noise(16, 18, levels=4096, dtype=np.uint16)
    dicom(folder / "plain.dcm", twelve, 12)
    dicom(folder / "windowed.dcm", twelve, 12, WindowCenter="1800", WindowWidth="2500")
    dicom(
        folder / "inverted.dcm",
        noise(15, 17),
        8,
        PhotometricInterpretation="MONOCHROME1",
        RescaleSlope="-2",
        RescaleIntercept="10",
        WindowCenter=["-240", "1"],
        WindowWidth=["400", "1"],
    )
    dicom(
        folder / "signed.dcm",
        (twelve.astype(np.int32) * 16 - 32768).astype(np.int16),
        16,
        RescaleSlope="0.5",
        RescaleIntercept="-100",
        WindowCenter="900",
        WindowWidth="9000",
        VOILUTFunction="SIGMOID",
    )
    return folder


KINDS = {
    "grey.png": "srresnet",
    "many_tiles.png": "srgan",
    "colour.png": "srresnet",
    "alpha.png": "srgan",
    "bits.png": "srresnet",
    "palette.png": "srgan",
    "deep.png": "srresnet",
    "deep_colour.png": "srgan",
    "photo.jpg": "srresnet",
    "turned.jpg": "srgan",
    "plain.dcm": "srresnet",
    "windowed.dcm": "srgan",
    "inverted.dcm": "srresnet",
    "signed.dcm": "srgan",
}


@pytest.fixture(scope="module")
def expected(folder: Path) -> Path:
    """What ``srgan upscale`` makes of them, as PNG."""
    out = folder / "expected"
    for model in ("srresnet", "srgan"):
        upscale([folder / name for name in KINDS if KINDS[name] == model], model, out)
    return out


def upscale(files: list[Path], model: str, out: Path, *options: str) -> None:
    arguments = ["upscale", *map(str, files), "--model", model, "--out", str(out), *options]
    result = CliRunner().invoke(app, [*arguments, "--format", "png", "--precision", "no"])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def opened(browser: Browser, address: str) -> Iterator[tuple[Page, list[str]]]:
    """The page, opened once: its worker keeps the networks; and what it must not have done."""
    opened = browser.new_page(viewport=WIDE)
    complaints = listen(opened, address)
    opened.goto(address + TILED, wait_until="networkidle")
    yield opened, complaints
    opened.close()


def part(page: Page, name: str):
    return page.locator(f'[data-part="{name}"]')


def enlarge(page: Page, file: object, model: str = "srresnet") -> None:
    part(page, "file").set_input_files(file)
    page.locator(f"input[value={model}]").check()
    part(page, "start").click()


def finished(page: Page) -> None:
    """Wait for the result; an error sentence ends the wait, and the test."""
    ends = '[data-part="outcome"]:not([hidden]), [data-part="alert"]:not(:empty)'
    page.locator(ends).first.wait_for(timeout=PATIENCE)
    assert part(page, "alert").inner_text() == ""


def downloaded(page: Page) -> tuple[str, bytes]:
    with page.expect_download() as download:
        part(page, "download").click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def as_rgb(path: Path) -> np.ndarray:
    """The pixels of a file as three channels of integers, and its bit depth's name."""
    values = read_pixels(path).values.numpy().astype(np.int64)
    return np.broadcast_to(values, (3, *values.shape[1:]))


@pytest.mark.parametrize("name", KINDS)
def test_result_equals_the_command_to_one_grey_level(
    opened: tuple[Page, list[str]], folder: Path, expected: Path, tmp_path: Path, name: str
) -> None:
    page, complaints = opened
    enlarge(page, folder / name, KINDS[name])
    finished(page)
    filename, data = downloaded(page)
    assert filename == f"{Path(name).stem}_x4.png"
    here, there = tmp_path / "page.png", expected / filename
    here.write_bytes(data)
    assert read_pixels(here).bits == read_pixels(there).bits
    mine, theirs = as_rgb(here), as_rgb(there)
    assert mine.shape == theirs.shape
    assert abs(mine - theirs).max() <= 1
    assert Image.open(here).text["Comment"] == Image.open(there).text["Comment"]
    assert notice(4, KINDS[name])[:70] in Image.open(here).text["Comment"]
    assert complaints == []


@pytest.fixture(scope="module")
def dice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network that throws dice, named srgan, and its settings."""
    folder = tmp_path_factory.mktemp("dice")
    torch.manual_seed(0)
    network = SRResNet(
        blocks=1, width=8, batch_norm=False, bicubic_skip=True, end_kernel=3, noise=True
    )
    for name, parameter in network.named_parameters():
        if name.startswith("last") or "gain" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    save_weights(network.eval(), folder / "srgan.safetensors")
    export_onnx(load_network(str(folder / "srgan.safetensors")), folder / "srgan.onnx")
    settings = json.loads((MODELS / "settings.json").read_text(encoding="utf-8"))
    settings["models"]["srgan"] = describe(network, "srgan")
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["many_tiles.png", "colour.png"])
def test_dice_are_those_of_the_command_and_thrown_again_in_place(
    page: Page, address: str, folder: Path, dice: Path, tmp_path: Path, name: str
) -> None:
    complaints = listen(page, address)
    for file in ("srgan.onnx", "settings.json"):
        page.context.route(
            f"**/models/{file}",
            lambda route, request: route.fulfill(path=dice / request.url.rsplit("/", 1)[1]),
        )
    page.goto(address + TILED, wait_until="networkidle")
    enlarge(page, folder / name, "srgan")
    finished(page)
    results = []
    for seed in (0, 1):
        expect(part(page, "facts")).to_contain_text(f"the throw with seed {seed}", timeout=PATIENCE)
        filename, data = downloaded(page)
        stem = Path(name).stem
        assert filename == (f"{stem}_x4_seed{seed}.png" if seed else f"{stem}_x4.png")
        here, out = tmp_path / f"{seed}.png", tmp_path / str(seed)
        here.write_bytes(data)
        upscale([folder / name], str(dice / "srgan.safetensors"), out, "--seed", str(seed))
        there = out / f"{stem}_x4.png"
        mine, theirs = as_rgb(here), as_rgb(there)
        assert mine.shape == theirs.shape and abs(mine - theirs).max() <= 1
        assert Image.open(here).text["Comment"] == Image.open(there).text["Comment"]
        assert f"the throw with seed {seed}" in Image.open(here).text["Comment"]
        results.append(mine)
        wipe = part(page, "compare").locator("image-wipe")
        if seed:  # the same spot is seen, as large as before
            assert wipe.locator("output").text_content() == "2.0×"
        else:
            wipe.get_by_role("button", name="Zoom in").click()
        part(page, "again").focus()
        page.keyboard.press("Enter")
        expect(part(page, "outcome")).to_be_visible()  # the last result stays meanwhile
        assert page.evaluate("document.activeElement.dataset.part") == "again"
    assert (results[0] != results[1]).mean() > 0.5
    assert complaints == []


def test_network_without_dice_is_not_thrown_again(
    opened: tuple[Page, list[str]], folder: Path
) -> None:
    page, _ = opened
    enlarge(page, folder / "grey.png", "srresnet")
    finished(page)
    expect(part(page, "again")).to_be_hidden()
    assert "throw" not in part(page, "facts").inner_text()


def test_bicubic_beside_it_equals_the_library_s(
    opened: tuple[Page, list[str]], folder: Path, tmp_path: Path
) -> None:
    page, _ = opened
    enlarge(page, folder / "grey.png")
    finished(page)
    figures = part(page, "compare").locator("figure")
    assert figures.locator("figcaption").all_inner_texts() == ["Bicubic", "SRResNet"]
    data = page.evaluate(
        """() => {
            const image = document.querySelector('[data-part="compare"] img');
            const [width, height] = [image.naturalWidth, image.naturalHeight];
            const context = new OffscreenCanvas(width, height).getContext("2d");
            context.drawImage(image, 0, 0);
            const { data } = context.getImageData(0, 0, width, height);
            return [height, width, [...data.filter((_, i) => i % 4 === 0)]];
        }"""
    )
    mine = np.array(data[2]).reshape(1, data[0], data[1])
    lr = read_image(folder / "grey.png")
    theirs = to_pixels(upscale_tiled(Interpolation("bicubic", 4), lr)).values.numpy().astype(int)
    assert abs(mine - theirs).max() <= 1


def test_progress_goes_tile_by_tile(opened: tuple[Page, list[str]], folder: Path) -> None:
    page, _ = opened
    page.evaluate(
        """() => {
            window.said = [];
            const status = document.querySelector('[data-part="status"]');
            new MutationObserver(() => window.said.push(status.textContent))
                .observe(status, { childList: true });
        }"""
    )
    enlarge(page, folder / "many_tiles.png")
    expect(part(page, "bar")).to_be_visible()
    finished(page)
    said = page.evaluate("window.said")
    # 21 x 93 in tiles of 20 without surroundings: 2 x 5.
    assert [text for text in said if "tiles" in text] == [
        f"{done} of 10 tiles computed." for done in range(11)
    ]
    assert said[-1] == "Done."
    expect(part(page, "bar")).to_be_hidden()


def test_page_stays_responsive_and_can_cancel(
    opened: tuple[Page, list[str]], folder: Path, tmp_path: Path
) -> None:
    page, complaints = opened
    Image.fromarray(noise(128, 128)).save(tmp_path / "large.png")
    page.evaluate(
        """() => {
            window.longest = 0;
            let before = performance.now();
            setInterval(() => {
                const now = performance.now();
                window.longest = Math.max(window.longest, now - before);
                before = now;
            }, 10);
        }"""
    )
    enlarge(page, tmp_path / "large.png")
    expect(part(page, "status")).to_have_text(re.compile("^[2-9] of"), timeout=PATIENCE)
    assert page.evaluate("window.longest") < 200
    part(page, "cancel").click()
    expect(part(page, "status")).to_have_text("Cancelled.")
    expect(part(page, "bar")).to_be_hidden()
    expect(part(page, "outcome")).to_be_hidden()
    assert page.evaluate("document.activeElement.dataset.part") == "start"
    enlarge(page, folder / "grey.png")  # and goes on after that
    finished(page)
    assert complaints == []


def files_to_refuse(folder: Path) -> dict[str, tuple[bytes, str]]:
    png = (folder / "grey.png").read_bytes()
    plain = (folder / "plain.dcm").read_bytes()
    compressed = Path(get_testdata_file("JPEG2000.dcm")).read_bytes()
    colour = Path(get_testdata_file("SC_rgb_small_odd.dcm")).read_bytes()
    inks = io.BytesIO()
    Image.new("CMYK", (8, 8)).save(inks, "JPEG")
    wide = io.BytesIO()
    Image.new("L", (2049, 8)).save(wide, "PNG")
    big = io.BytesIO()
    Image.new("L", (1100, 1000)).save(big, "PNG")
    return {
        "nonsense.png": (b"not an image at all", "not a PNG, JPEG or DICOM image"),
        "nothing.png": (b"", "empty"),
        "cut.png": (png[:120], "damaged or cut short"),
        "cut.jpg": ((folder / "photo.jpg").read_bytes()[:40], "damaged or cut short"),
        "cut.dcm": (plain[:-100], "damaged or cut short"),
        "big.png": (big.getvalue(), r"1100 × 1000 pixels; this page takes up to 1,048,576"),
        "wide.png": (wide.getvalue(), "2048 a side"),
        "inks.jpg": (inks.getvalue(), "CMYK"),
        "compressed.dcm": (compressed, r"1\.2\.840\.10008\.1\.2\.4\.9.*srgan upscale"),
        "colour.dcm": (colour, "RGB .*srgan upscale"),
    }


def test_bad_files_get_one_clear_sentence(opened: tuple[Page, list[str]], folder: Path) -> None:
    page, complaints = opened
    for name, (data, sentence) in files_to_refuse(folder).items():
        enlarge(page, {"name": name, "mimeType": "", "buffer": data})
        expect(part(page, "alert")).to_have_text(re.compile(sentence), timeout=PATIENCE)
        assert part(page, "alert").inner_text().count("\n") == 0
        expect(part(page, "outcome")).to_be_hidden()
        expect(part(page, "start")).to_be_visible()
    assert complaints == []


def test_sample_by_keyboard_alone(
    page: Page,
    address: str,
    tmp_path: Path,
) -> None:
    complaints = listen(page, address)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{address}/book/try_it.html", wait_until="networkidle")
    loaded = "".join(requests)
    assert not re.search("wasm|onnx|sample", loaded)  # only what a reader asks for is loaded
    page.locator("#try-it-file").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(part(page, "choice")).to_have_text("Chosen: the sample.")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.locator("input[value=srgan]").is_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.part") == "cancel"
    finished(page)
    assert page.evaluate("document.activeElement.dataset.part") == "heading"
    captions = part(page, "compare").locator("figure figcaption").all_inner_texts()
    assert captions == ["Bicubic", "SRGAN", "HR"]
    filename, data = downloaded(page)
    assert filename == "sample_x4.png"
    mine = np.asarray(Image.open(io.BytesIO(data))).astype(int)
    upscale([MODELS / "sample.png"], "srgan", tmp_path)
    theirs = np.asarray(Image.open(tmp_path / filename)).astype(int)
    assert abs(mine - theirs).max() <= 1
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_by_touch_on_a_phone(
    browser: Browser,
    address: str,
    folder: Path,
    scheme: str,
) -> None:
    phone = browser.new_page(viewport=NARROW, has_touch=True, is_mobile=True, color_scheme=scheme)
    complaints = listen(phone, address)
    phone.goto(address + TILED, wait_until="networkidle")
    part(phone, "file").set_input_files(folder / "grey.png")
    phone.locator("label", has_text="SRGAN").tap()
    part(phone, "start").tap()
    finished(phone)
    assert phone.evaluate(WIDTH) <= NARROW["width"]
    for button in phone.locator("#try-it button:visible, #try-it a:visible").all():
        assert button.bounding_box()["height"] >= 40
    assert complaints == []
    phone.close()


def test_start_without_a_file_says_so(page: Page, address: str) -> None:
    page.goto(f"{address}/book/try_it.html")
    part(page, "start").click()
    expect(part(page, "alert")).to_have_text("Choose a file first, or take the sample.")


def test_dropped_file_is_chosen(page: Page, address: str) -> None:
    page.goto(f"{address}/book/try_it.html")
    data = page.evaluate_handle(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["x"], "dropped.png"));
            return data;
        }"""
    )
    part(page, "drop").dispatch_event("drop", {"dataTransfer": data})
    expect(part(page, "choice")).to_have_text("Chosen: dropped.png")


FETCH = """async (url) => {
    try { await fetch(url, { mode: "no-cors" }); return "sent"; } catch { return "refused"; }
}"""


def test_policy_refuses_other_hosts(page: Page, address: str, folder: Path) -> None:
    """From the page and from its worker; localhost is another host than 127.0.0.1."""
    here = f"{address}/index.html"
    other = here.replace("127.0.0.1", "localhost")
    sent: list[str] = []
    page.on("response", lambda response: sent.append(response.url))
    page.goto(f"{address}/book/limits.html")
    assert page.evaluate(FETCH, other) == "sent"  # a page without a policy
    sent.clear()
    page.goto(f"{address}/book/try_it.html", wait_until="networkidle")
    assert page.evaluate(FETCH, here) == "sent"
    assert page.evaluate(FETCH, other) == "refused"
    with page.expect_worker() as worker:
        enlarge(page, folder / "grey.png")
    finished(page)
    assert worker.value.evaluate(FETCH, here) == "sent"
    assert worker.value.evaluate(FETCH, other) == "refused"
    assert here in sent and other not in sent


def test_page_without_javascript_names_the_command(
    browser: Browser,
    address: str,
) -> None:
    context = browser.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto(f"{address}/book/try_it.html")
    expect(bare.get_by_text("the page needs JavaScript")).to_be_visible()
    expect(bare.get_by_text("srgan upscale chest.png")).to_be_visible()
    expect(bare.locator("#try-it")).to_be_hidden()
    context.close()


# The files


def test_models_are_no_older_than_the_weights() -> None:
    settings = json.loads((MODELS / "settings.json").read_text(encoding="utf-8"))
    for name in settings["models"]:
        model = MODELS / f"{name}.onnx"
        assert model.stat().st_mtime >= weights_path(name).stat().st_mtime
        assert model.stat().st_size < 3.5e6


@pytest.mark.parametrize("name", ["onnxruntime", "fast-png", "dicom-parser"])
def test_parts_by_others_are_what_their_readme_says(root: Path, name: str) -> None:
    folder = root / "book" / "_static" / name
    readme = (folder / "README.md").read_text(encoding="utf-8")
    digests = dict(re.findall(r"`([\w.-]+)`: sha256 `([0-9a-f]{64})`", readme))
    assert (folder / "LICENSE").is_file()
    assert digests.keys() | {"README.md", "LICENSE"} == {
        path.name.removesuffix(".gz") for path in folder.iterdir()
    }
    for file, digest in digests.items():
        packed = folder / f"{file}.gz"
        data = gzip.decompress(packed.read_bytes()) if packed.is_file() else None
        data = data or (folder / file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
