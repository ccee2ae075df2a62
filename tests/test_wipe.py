"""The wipe between images and the slider through the epochs, driven as a reader drives them."""

# Fixtures are imported, and named again as arguments.

import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import epochs
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page
from webpages import NARROW, WIDE, listen

ROOT = Path(__file__).resolve().parent.parent
RUNS = {
    name: ROOT / "results" / folder
    for name, folder in (
        ("paper's form", "srgan_paper"),
        ("no dice", "srgan_no_dice"),
        ("alive", "srgan"),
    )
}
LINES = {name: epochs.read_metrics(run) for name, run in RUNS.items()}
CHAPTER = "notebooks/06_adversarial_training.html"
WITH_WIPE = {
    "index": 6,
    "notebooks/02_bicubic_baseline": 6,
    "notebooks/03_generator": 5,
    "notebooks/06_adversarial_training": 5,
    "notebooks/07_evaluation": 6,
    "notebooks/08_the_family_tree": 7,
}


@pytest.fixture
def phone(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport=NARROW, has_touch=True, is_mobile=True)
    yield page
    page.close()


@pytest.fixture
def without_scripts(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport=NARROW, java_script_enabled=False)
    yield page
    page.close()


@pytest.fixture(scope="module")
def front_page(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page(viewport=WIDE)
    open_page(page, f"{address}/index.html")
    yield page
    page.close()


@pytest.fixture
def front(front_page: Page) -> Page:
    """The front page, with a fresh wipe in view."""
    front_page.emulate_media(media="screen")
    front_page.evaluate(
        """() => {
            const wipe = document.querySelector("image-wipe");
            wipe.replaceWith(wipe.cloneNode(true));
        }"""
    )
    bring_into_view(front_page)
    return front_page


@pytest.fixture(scope="module")
def chapter(browser: Browser, address: str) -> Iterator[Page]:
    """The chapter with the slider through the epochs."""
    page = browser.new_page(viewport=WIDE)
    open_page(page, f"{address}/{CHAPTER}")
    yield page
    page.close()


def open_page(page: Page, url: str) -> None:
    """Open a page as far as its scripts have run: deferred ones come before this event."""
    page.goto(url, wait_until="domcontentloaded")


def bring_into_view(page: Page) -> None:
    """Wait until the wipe has its size, and scroll to it."""
    page.evaluate(
        "Promise.all([...document.querySelectorAll('image-wipe img')].map((i) => i.decode()))"
    )
    page.evaluate("document.fonts.ready.then(() => true)")
    page.evaluate("document.querySelector('image-wipe').scrollIntoView({behavior: 'instant'})")
    page.evaluate("scrollBy({top: -80, behavior: 'instant'})")  # from under the page's header


def divider(page: Page) -> Locator:
    return page.get_by_role("slider", name="Divider")


def divided(page: Page) -> int:
    """Where the divider is, in per cent, as it is told and as it is drawn."""
    told = int(divider(page).get_attribute("aria-valuenow") or -1)
    drawn = page.locator(".side.right").evaluate("e => getComputedStyle(e).clipPath")
    assert float(drawn.removesuffix("%)").split()[-1]) == pytest.approx(told, abs=0.51)
    return told


def shown(page: Page) -> dict[str, str]:
    """The file of the image on each side."""
    return {
        side: (page.locator(f".side.{side} img").get_attribute("src") or "").rpartition("_")[2]
        for side in ("left", "right")
    }


def view(page: Page) -> dict[str, float]:
    box = page.locator("image-wipe .view").bounding_box()
    assert box is not None
    return box


def transform(page: Page) -> tuple[float, float, float]:
    """Zoom and position of both images, after a look that they are the same."""
    both = page.locator(".side img").evaluate_all(
        """images => images.map((image) => {
            const {a, e, f} = new DOMMatrix(getComputedStyle(image).transform);
            const {left, top, width, height} = image.getBoundingClientRect();
            return [a, e, f, left, top, width, height];
        })"""
    )
    assert len(both) == 2 and both[0] == both[1]
    return tuple(both[0][:3])


# The wipe


def test_wipe_stands_wherever_images_are_compared(site: Path) -> None:
    for name, count in WITH_WIPE.items():
        html = (site / f"{name}.html").read_text(encoding="utf-8")
        found = re.findall(r"<image-wipe [^>]*>(.*?)</image-wipe>", html, re.DOTALL)
        assert found and found[0].count("<figcaption>") == count, name


def test_keyboard_moves_the_divider(front: Page) -> None:
    assert divided(front) == 50
    for _ in range(80):  # as a reader gets there
        front.keyboard.press("Tab")
        if front.evaluate("document.activeElement.shadowRoot?.activeElement?.role") == "slider":
            break
    steps = [("ArrowLeft", 48), ("ArrowRight", 50), ("Shift+ArrowRight", 60), ("PageUp", 70)]
    steps += [("PageDown", 60), ("Home", 0), ("ArrowLeft", 0), ("End", 100), ("ArrowDown", 98)]
    for key, expected in steps:
        front.keyboard.press(key)
        assert divided(front) == expected, key
    text = divider(front).get_attribute("aria-valuetext")
    assert text == "98 %: LR on the left, SRGAN on the right"
    outline = divider(front).evaluate("e => getComputedStyle(e, '::after').outlineStyle")
    assert outline == "solid"


def test_reader_chooses_the_sides(front: Page) -> None:
    assert shown(front) == {"left": "lr.png", "right": "srgan.png"}
    front.get_by_label("Left").select_option("SRResNet")
    assert shown(front) == {"left": "srresnet.png", "right": "srgan.png"}
    front.get_by_label("Right").select_option("SRResNet")  # taken: the two change places
    assert shown(front) == {"left": "srgan.png", "right": "srresnet.png"}
    alt = front.locator(".side.right img").get_attribute("alt")
    assert alt == "SRResNet: ribs with crisp edges, and smooth areas between them."


def test_mouse_drags_the_divider(front: Page) -> None:
    box = view(front)
    middle = box["y"] + box["height"] / 2
    front.mouse.move(box["x"] + box["width"] / 2, middle)
    front.mouse.down()
    front.mouse.move(box["x"] + box["width"] / 4, middle + 20, steps=4)
    assert divided(front) == 25
    front.mouse.up()
    front.mouse.move(box["x"] + box["width"] / 2, middle)
    assert divided(front) == 25
    front.mouse.click(box["x"] + 0.8 * box["width"], middle)
    assert divided(front) == 80


def test_both_images_zoom_and_move_together(front: Page) -> None:
    assert transform(front) == (1, 0, 0)
    front.get_by_role("button", name="Zoom in").click()
    assert transform(front)[0] == 2
    box = view(front)
    place = box["x"] + 0.2 * box["width"], box["y"] + 0.3 * box["height"]
    front.mouse.move(*place)
    front.mouse.down()
    before = transform(front)
    front.mouse.move(place[0] + 30, place[1] - 40, steps=3)
    front.mouse.up()
    after = transform(front)
    assert after[1:] == pytest.approx((before[1] + 30, before[2] - 40), abs=0.1)
    assert divided(front) == 50

    front.mouse.move(*place)
    front.keyboard.down("Control")
    front.mouse.wheel(0, -60)
    front.keyboard.up("Control")
    front.wait_for_function(
        "document.querySelector('image-wipe').shadowRoot.querySelector('input').value > 2"
    )
    wheeled = transform(front)
    # What was under the pointer is still there.
    for old, new, share, side in zip(
        after[1:], wheeled[1:], (0.2, 0.3), (box["width"], box["height"]), strict=True
    ):
        old_point = (share * side - old) / after[0]
        assert (share * side - new) / wheeled[0] == pytest.approx(old_point, abs=0.2)

    front.get_by_role("group", name="Enlarged images").focus()
    front.keyboard.press("ArrowRight")
    assert transform(front)[1] == pytest.approx(wheeled[1] - 0.1 * box["width"], abs=0.1)
    front.keyboard.press("+")
    front.keyboard.press("+")
    assert transform(front)[0] == 8
    front.get_by_role("button", name="Reset").click()
    assert transform(front) == (1, 0, 0)


def test_zoom_by_its_slider_shows_pixels(front: Page) -> None:
    def rendering() -> list[str]:
        return front.locator(".side img").evaluate_all(
            "images => images.map((image) => getComputedStyle(image).imageRendering)"
        )

    front.get_by_label("Left").select_option("LR")
    assert rendering() == ["pixelated", "auto"]
    front.get_by_role("slider", name="Zoom").fill("3")
    assert transform(front)[0] == 3
    assert rendering() == ["pixelated", "pixelated"]


def test_a_plain_wheel_scrolls_the_page(front: Page) -> None:
    box = view(front)
    before = front.evaluate("scrollY")
    front.mouse.move(box["x"] + 50, box["y"] + 50)
    front.mouse.wheel(0, 200)
    front.wait_for_function(f"scrollY > {before}")
    assert transform(front) == (1, 0, 0)


def touch(page: Page, *fingers: list[tuple[float, float]]) -> None:
    """Put fingers down, move each along its points at once, and lift them."""
    session = page.context.new_cdp_session(page)
    for number, places in enumerate(zip(*fingers, strict=True)):
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
        kind = "touchMove" if number else "touchStart"
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def line(start: tuple[float, float], end: tuple[float, float]) -> list[tuple[float, float]]:
    """Nine points from one place to another."""
    return [tuple(a + (b - a) * k / 8 for a, b in zip(start, end, strict=True)) for k in range(9)]


def test_fingers_move_and_zoom_and_the_page_still_scrolls(phone: Page, address: str) -> None:
    open_page(phone, f"{address}/index.html")
    bring_into_view(phone)
    box = view(phone)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch(phone, line((x, y), (x - 0.3 * box["width"], y)))
    assert divided(phone) == 20
    left, right = (x - 40, y + 10), (x + 40, y - 10)
    touch(phone, line(left, (x - 80, y + 20)), line(right, (x + 80, y - 20)))
    zoom = transform(phone)[0]
    assert zoom == pytest.approx(2, abs=0.1)
    before = transform(phone)
    touch(phone, line((x, y), (x + 30, y + 30)))
    assert transform(phone)[1:] == pytest.approx((before[1] + 30, before[2] + 30), abs=0.1)
    # Not a tap: the browser drops one that comes within moments of a quick drag.
    phone.get_by_role("button", name="Reset").press("Enter")
    assert transform(phone) == (1, 0, 0) and divided(phone) == 50

    box = view(phone)  # the button may have been scrolled to
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    scrolled = phone.evaluate("scrollY")
    touch(phone, line((x, y + 100), (x, y - 100)))
    phone.wait_for_function(f"scrollY > {scrolled + 50}")
    assert divided(phone) == 50


def test_without_scripts_the_wipe_is_a_row_of_figures(without_scripts: Page, address: str) -> None:
    page = without_scripts
    open_page(page, f"{address}/index.html")
    figures = page.locator("image-wipe figure")
    assert figures.count() == 6
    for image in figures.locator("img").all():
        image.scroll_into_view_if_needed()
    for _ in range(100):  # on a busy machine, styles and images come late
        boxes = [figure.bounding_box() for figure in figures.all()]
        if len({box["y"] for box in boxes if box}) < 5:
            break
        page.wait_for_timeout(100)
    assert all(box and box["width"] > 100 and box["height"] > 100 for box in boxes)
    assert len({box["y"] for box in boxes if box}) < 5  # beside each other
    assert all(box["x"] + box["width"] <= NARROW["width"] for box in boxes if box)
    assert all(caption.is_visible() for caption in page.locator("image-wipe figcaption").all())


def test_in_print_the_wipe_is_a_row_of_figures(front: Page) -> None:
    images = front.locator("image-wipe > figure img")
    assert not any(image.is_visible() for image in images.all())
    front.emulate_media(media="print")
    assert [image.is_visible() for image in images.all()] == [True] * 6
    assert not front.locator("image-wipe .view").is_visible()
    assert images.first.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"


def test_a_script_fills_a_wipe(front: Page) -> None:
    labels = front.evaluate(
        """() => {
            const image = (label, side) => {
                const canvas = document.createElement("canvas");
                canvas.width = canvas.height = side;
                return {label, src: canvas.toDataURL(), alt: `${label} of nothing`};
            };
            window.image = image;
            const wipe = document.createElement("image-wipe");
            wipe.id = "made";
            wipe.setImages([image("old", 4), image("older", 4)]);
            document.querySelector("article").prepend(wipe);
            wipe.setImages([image("LR", 4), image("SR", 16), image("HR", 16)]);
            return [...wipe.shadowRoot.querySelector("select").options].map((o) => o.text);
        }"""
    )
    assert labels == ["LR", "SR", "HR"]
    made = front.locator("#made")
    assert made.locator(".side.right img").get_attribute("alt") == "HR of nothing"
    assert made.locator(".view").bounding_box()["height"] > 100
    made.get_by_role("slider", name="Divider").press("Home")
    assert made.get_by_role("slider", name="Divider").get_attribute("aria-valuenow") == "0"
    # Images of the same names take the place of the others, and what is seen stays in place.
    made.get_by_role("button", name="Zoom in").click()
    made.evaluate("wipe => wipe.setImages(['LR', 'SR', 'HR'].map((label) => image(label, 16)))")
    assert made.get_by_role("slider", name="Divider").get_attribute("aria-valuenow") == "0"
    assert made.locator("output").text_content() == "2.0×"
    made.evaluate("wipe => wipe.setImages(['LR', 'SR'].map((label) => image(label, 16)))")
    assert made.get_by_role("slider", name="Divider").get_attribute("aria-valuenow") == "50"
    assert made.locator("output").text_content() == "1.0×"
    made.evaluate("wipe => wipe.setImages([])")
    assert not made.locator(".view").is_visible()


def test_a_notebook_s_wipe_works_without_the_site(page: Page) -> None:
    complaints = listen(page, "data:")
    notebook = json.loads((ROOT / "notebooks" / "08_the_family_tree.ipynb").read_text("utf-8"))
    (cell,) = [cell for cell in notebook["cells"] if cell["id"] == "wipe"]
    output = "".join(cell["outputs"][0]["data"]["text/html"])
    page.set_content(f"<!doctype html>{output}{output}")  # two cells of one notebook
    for wipe in page.locator("image-wipe").all():
        wipe.get_by_role("slider", name="Divider").press("ArrowLeft")
        assert wipe.get_by_role("slider", name="Divider").get_attribute("aria-valuenow") == "48"
    page.set_viewport_size(NARROW)
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    assert complaints == []


def test_stored_wipes_carry_the_script_as_it_is() -> None:
    script = (ROOT / "srgan_lib" / "wipe.js").read_text(encoding="utf-8")
    style = (ROOT / "srgan_lib" / "wipe.css").read_text(encoding="utf-8")
    for name in WITH_WIPE:
        if name.startswith("notebooks/"):
            notebook = json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))
            outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
            found = ["".join(out.get("data", {}).get("text/html", "")) for out in outputs]
            wipes = [html for html in found if "<image-wipe" in html]
            assert wipes, name
            assert all(script in html and style in html for html in wipes), f"run {name} anew"


# Through the epochs


def shown_run(page: Page) -> Locator:
    """The part of the slider that shows the chosen run."""
    return page.locator("run-epochs .run:visible")


def table(run: Locator) -> dict[str, str]:
    rows = run.locator("tr").evaluate_all(
        "rows => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return dict(rows)


def state(page: Page) -> tuple[str, int, int, float]:
    """The run and the epoch of the image, the epoch of the titles, and where the marker is."""
    run = shown_run(page)
    source = Path(run.locator("img.epoch").get_attribute("src") or "")
    titles = set(run.locator(".now").all_inner_texts())
    assert len(titles) == 1
    matrix = "e => e.transform.baseVal.consolidate().matrix.e"
    marker = run.locator(".marker").evaluate(matrix)
    return source.parent.name, int(source.stem), int(titles.pop()), marker


def choose(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name).check()


def test_image_marker_and_numbers_move_together(chapter: Page, address: str) -> None:
    page = chapter
    complaints = listen(page, address)
    choose(page, "alive")
    slider = page.get_by_role("slider", name="Epoch")
    last = len(LINES["alive"])
    slider.focus()
    for key, epoch in (("Home", 1), ("ArrowRight", 2), ("End", last), ("ArrowLeft", last - 1)):
        page.keyboard.press(key)
        x = pytest.approx(epochs.x_of(epoch, last), abs=0.06)
        assert state(page) == ("epochs-srgan", epoch, epoch, x)
        assert slider.get_attribute("aria-valuetext") == f"{epoch} of {last}"
        alt = shown_run(page).locator("img.epoch").get_attribute("alt") or ""
        assert "the run alive" in alt and f"after epoch {epoch}." in alt
        told = table(shown_run(page))
        assert told == epochs.numbers(LINES["alive"][epoch - 1])
    assert complaints == []


def test_keys_choose_the_run_and_the_epoch_asked_for_stays(chapter: Page) -> None:
    page = chapter
    choose(page, "alive")
    page.get_by_role("slider", name="Epoch").focus()
    page.keyboard.press("End")
    long, short = len(LINES["alive"]), len(LINES["paper's form"])
    page.get_by_role("radio", name="alive").focus()
    for key, folder, epoch in (
        ("ArrowUp", "srgan_no_dice", min(long, len(LINES["no dice"]))),
        ("ArrowUp", "srgan_paper", min(long, short)),
        ("ArrowUp", "srgan", long),
    ):
        page.keyboard.press(key)
        assert shown_run(page).count() == 1
        assert state(page)[:3] == (f"epochs-{folder}", epoch, epoch)
    name = page.get_by_role("group", name="Run").get_by_role("radio", checked=True)
    assert name.count() == 1


def test_numbers_are_those_of_the_run() -> None:
    for lines in LINES.values():
        for line in lines:
            told, losses, validation = epochs.numbers(line), line["losses"], line["validation"]
            assert float(told["PSNR (dB)"]) == pytest.approx(validation["psnr"], abs=0.0051)
            assert float(told["lattice, SR / HR"]) == pytest.approx(validation["lattice"], abs=0.06)
            assert told["ranked right"] == f"{100 * losses['ranking']:.0f}%"
            if "spread" in losses:
                spread = float(told["spread (grey levels)"])
                assert spread == pytest.approx(255 * losses["spread"], abs=0.051)
            else:
                assert told["spread (grey levels)"] == "–"


def heights(svg: str) -> dict[str, list[float]]:
    """Where the curves of a chart are, from top to bottom, by the losses' names."""
    named = dict(re.findall(r'<text class="name-(\d)"[^>]*>(\w+)<', svg))
    found: dict[str, list[float]] = {}
    for number, points in re.findall(r'<polyline class="curve curve-(\d)" points="([^"]*)"', svg):
        ys = [float(point.split(",")[1]) for point in points.split()]
        found.setdefault(named[number], []).extend(ys)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_curves_are_those_of_the_run(name: str) -> None:
    lines = LINES[name]
    svg = epochs.chart(lines)
    marks = [float(power) for power in re.findall(r'text-anchor="end">([^<]+)<', svg)]
    low, high = math.log10(min(marks)), math.log10(max(marks))
    scale = (epochs.BOTTOM - epochs.TOP) / (high - low)
    curves = heights(svg)
    assert {"content", "adversarial", "discriminator"} <= set(curves)
    for loss, ys in curves.items():
        ratios = [line["losses"][loss] / lines[1]["losses"][loss] for line in lines]
        ratios = [ratio for ratio in ratios if ratio > 0]
        for y, ratio in zip(ys, ratios, strict=True):
            expected = epochs.TOP + scale * (high - math.log10(ratio))
            assert y == pytest.approx(expected, abs=0.06)


def some_lines(**losses: list[float | None]) -> list[dict]:
    """Lines of a run with these losses, which measured nothing else."""
    count = len(next(iter(losses.values())))
    return [
        {"losses": {name: values[i] for name, values in losses.items()}, "validation": {}}
        for i in range(count)
    ]


def test_losses_below_zero_or_absent_leave_gaps() -> None:
    lines = some_lines(
        content=[2.0, 1.0, 0.5, 0.1],
        perceptual=[4.0, 2.0, -1.0, 4.0],
        adversarial=[1.0, None, 1.0, 1.0],
        consistency=[0.0, 0.0, 0.0, 0.0],
    )
    svg = epochs.chart(lines)
    assert svg.count("<polyline") == 3  # the perceptual loss in two pieces
    curves = heights(svg)
    assert set(curves) == {"content", "perceptual"}
    assert [len(ys) for ys in curves.values()] == [4, 3]
    assert "content at 0.1 times its start, perceptual at 2 times its start" in svg
    assert "nan" not in svg and set(epochs.numbers(lines[1]).values()) == {"1", "2", "–"}


@pytest.mark.parametrize("losses", [{"content": [1.0]}, {"content": [0.0, -1.0]}])
def test_chart_of_a_short_or_an_empty_run(losses: dict[str, list[float | None]]) -> None:
    svg = epochs.chart(some_lines(**losses))
    assert svg.startswith("<svg") and svg.endswith("</svg>") and "nan" not in svg


def test_names_are_escaped() -> None:
    run = {"name": "a < b", "address": "x", "lines": some_lines(content=[1.0, 1.0])}
    page = epochs.page([run, run])
    assert "a &lt; b" in page and "a < b" not in page


def test_images_are_those_of_the_run(chapter: Page) -> None:
    page = chapter
    for name, run in RUNS.items():
        choose(page, name)
        count = len(LINES[name])
        base = shown_run(page).locator("img.epoch").evaluate("e => e.src").rpartition("/")[0]
        with Image.open(run / "film_strip.png") as strip:
            grey = strip.convert("L")
            rows = [grey.crop((0, y, 518, y + 128)) for y in range(0, grey.height, 130)]
        ends = [*range(1, 6), *range(count - 4, count + 1)] if count > 10 else range(1, count + 1)
        for row, epoch in zip(rows, [*ends, "hr"], strict=True):
            served = Image.open(io.BytesIO(page.request.get(f"{base}/{epoch}.png").body()))
            for number in range(4):
                left, top = 130 * (number % 2), 130 * (number // 2)
                crop = row.crop((130 * number, 0, 130 * number + 128, 128))
                assert served.crop((left, top, left + 128, top + 128)).tobytes() == crop.tobytes()
        for epoch in range(1, count + 1):
            assert page.request.get(f"{base}/{epoch}.png").ok


def test_a_finger_moves_the_epochs_and_chooses_the_run(phone: Page, address: str) -> None:
    open_page(phone, f"{address}/{CHAPTER}")
    slider = phone.get_by_role("slider", name="Epoch")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None and box["height"] >= 24
    phone.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    _, image, title, _ = state(phone)
    middle = (len(LINES["alive"]) + 1) / 2
    assert image == title and abs(image - middle) <= 1
    assert table(shown_run(phone)) == epochs.numbers(LINES["alive"][image - 1])
    label = phone.locator("run-epochs .runs label", has_text="no dice")
    box = label.bounding_box()
    assert box is not None and box["height"] >= 24
    label.tap()
    assert state(phone)[0] == "epochs-srgan_no_dice"
    assert phone.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_without_scripts_the_epochs_are_a_figure(without_scripts: Page, address: str) -> None:
    page = without_scripts
    open_page(page, f"{address}/{CHAPTER}")
    assert not any(box.is_visible() for box in page.locator("run-epochs input").all())
    runs = page.locator("run-epochs .run").all()
    assert len(runs) == len(RUNS)
    for run, (name, folder) in zip(runs, RUNS.items(), strict=True):
        assert run.locator(".run-name").inner_text() == name
        assert not run.locator(".marker").is_visible()
        assert run.locator("svg").bounding_box()["width"] > 200
        for image in run.locator("img").all():
            box = image.bounding_box()
            assert box and box["width"] > 100 and box["x"] + box["width"] <= NARROW["width"]
        assert run.locator(f"img[src$='epochs-{folder.name}/film_strip.png']").count() == 1
        assert table(run) == epochs.numbers(LINES[name][-1])
