"""The directive `epochs`: a slider through a run's epochs, built from its committed results.

```{epochs} results/srgan
Caption.
```

It takes the frames of `training.gif`, one for each epoch, the HR crops from the last row of
`film_strip.png`, and the numbers of `metrics.jsonl`. Frames are files of their own, which a page
fetches when the slider comes to them. Without scripts the page has the last epoch, the chart and
the film strip.
"""

import html
import json
import math
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SIDE, LINE = 128, 2  # of a sample crop, and of the white line between two
LOSSES = ("content", "perceptual", "texture", "adversarial", "discriminator")
FIRST = 1  # losses are drawn relative to epoch 2, the first in which the generator learns
WIDTH, HEIGHT = 440, 300  # of the chart
LEFT, RIGHT, TOP, BOTTOM = 52, 322, 12, 254  # of the part with the curves


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, one for each epoch."""
    text = (run / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def square(strip: Image.Image) -> Image.Image:
    """Four crops in a row as two rows of two, so that they fit a phone."""
    side = 2 * SIDE + LINE
    image = Image.new("L", (side, side), 255)
    for number in range(4):
        left = number * (SIDE + LINE)
        crop = strip.crop((left, 0, left + SIDE, SIDE))
        image.paste(crop, tuple(k * (SIDE + LINE) for k in (number % 2, number // 2)))
    return image


def frames(run: Path) -> list[Image.Image]:
    """The sample crops after each epoch."""
    images = []
    with Image.open(run / "training.gif") as gif:
        for number in range(gif.n_frames):
            gif.seek(number)
            images.append(square(gif.convert("L")))
    return images


def hr_crops(run: Path) -> Image.Image:
    """The same crops of the original images: the film strip's last row."""
    with Image.open(run / "film_strip.png") as strip:
        return square(strip.convert("L").crop((0, strip.height - SIDE, strip.width, strip.height)))


def numbers(line: dict[str, Any]) -> dict[str, str]:
    """What the page shows of an epoch, as it is written there."""
    losses, validation = line["losses"], line["validation"]
    shown = {f"{name} loss": f"{losses[name]:.3g}" for name in LOSSES}
    shown |= {"D(HR)": f"{losses['d_hr']:.2f}", "D(SR)": f"{losses['d_sr']:.2f}"}
    shown["PSNR (dB)"] = f"{validation['psnr']:.2f}"
    shown["feature distance"] = f"{validation['feature_distance']:.3f}"
    return shown


def x_of(epoch: int, count: int) -> float:
    """Where an epoch is in the chart, from left to right."""
    return LEFT + (RIGHT - LEFT) * (epoch - 1) / (count - 1)


def chart(lines: list[dict[str, Any]]) -> str:
    """The losses over the epochs, each relative to its value in epoch 2, as SVG."""
    curves = {n: [x["losses"][n] / lines[FIRST]["losses"][n] for x in lines] for n in LOSSES}
    powers = [math.log10(value) for curve in curves.values() for value in curve]
    low, high = math.floor(min(powers)), math.ceil(max(powers))

    def y_of(power: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (power - low) / (high - low)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Line chart with logarithmic '
        f"vertical axis: five losses over {len(lines)} epochs, relative to epoch 2. Content, "
        "perceptual and texture loss fall; the adversarial loss rises eightfold; the "
        "discriminator's falls by more than a hundred times.\">"
    ]
    for power in range(low, high + 1):
        y = y_of(power)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 5:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    for epoch in (1, *range(10, len(lines) + 1, 10)):
        x = x_of(epoch, len(lines))
        parts.append(f'<text x="{x:.1f}" y="{BOTTOM + 19}" text-anchor="middle">{epoch}</text>')
    middle = (LEFT + RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{BOTTOM + 39}" text-anchor="middle">epoch</text>')
    names = iter(spread([y_of(math.log10(curve[-1])) for curve in curves.values()]))
    for number, (name, curve) in enumerate(curves.items()):
        points = " ".join(
            f"{x_of(epoch, len(lines)):.1f},{y_of(math.log10(value)):.1f}"
            for epoch, value in enumerate(curve, start=1)
        )
        parts.append(f'<polyline class="curve curve-{number}" points="{points}"/>')
        parts.append(
            f'<text class="name-{number}" x="{RIGHT + 8}" y="{next(names) + 5:.1f}">{name}</text>'
        )
    parts.append(f'<path class="marker" d="M0 {TOP}V{BOTTOM}" hidden/></svg>')
    return "".join(parts)


def spread(heights: list[float], gap: float = 18) -> list[float]:
    """Move labels apart that would touch, keeping their order."""
    placed: dict[int, float] = {}
    above = -math.inf
    for number in sorted(range(len(heights)), key=heights.__getitem__):
        above = placed[number] = max(heights[number], above + gap)
    return [placed[number] for number in range(len(heights))]


class Epochs(SphinxDirective):
    """A slider through the epochs of the run in a folder, with a caption below."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        run = Path(self.env.srcdir) / self.arguments[0]
        for name in ("metrics.jsonl", "training.gif", "film_strip.png"):
            self.env.note_dependency(str(run / name))
        lines, images = read_metrics(run), frames(run)
        if len(lines) != len(images):
            raise self.error(f"{run.name}: {len(lines)} epochs and {len(images)} frames.")
        folder = Path(self.env.app.outdir) / "_images" / f"epochs-{run.name}"
        folder.mkdir(parents=True, exist_ok=True)
        for epoch, image in enumerate(images, start=1):
            image.save(folder / f"{epoch}.png", optimize=True)
        hr_crops(run).save(folder / "hr.png", optimize=True)
        (folder / "film_strip.png").write_bytes((run / "film_strip.png").read_bytes())
        address = "../" * self.env.docname.count("/") + f"_images/epochs-{run.name}"
        caption = nodes.container(classes=["epochs-caption"])
        self.state.nested_parse(self.content, self.content_offset, caption)
        return [nodes.raw("", self.page(lines, address), format="html"), caption]

    def page(self, lines: list[dict[str, Any]], address: str) -> str:
        count = len(lines)
        shown = [numbers(line) for line in lines]
        rows = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th><td>{value}</td></tr>'
            for name, value in shown[-1].items()
        )
        data = {
            "address": address,
            "numbers": [list(values.values()) for values in shown],
            "x": [round(x_of(epoch, count), 1) for epoch in range(1, count + 1)],
        }
        side = 2 * SIDE + LINE
        size = f'width="{side}" height="{side}"'
        return f"""<run-epochs>
<div class="images">
<figure><img class="epoch" {size} src="{address}/{count}.png"
alt="Four crops of chest radiographs as the generator drew them after epoch {count}.">
<figcaption>SR after epoch <span class="now">{count}</span> of {count}</figcaption></figure>
<figure><img {size} src="{address}/hr.png"
alt="The same four crops of the original radiographs."><figcaption>HR</figcaption></figure>
</div>
<label class="choose" hidden>Epoch <input type="range" min="1" max="{count}" value="{count}">
</label>
<div class="measured">{chart(lines)}
<table><caption>After epoch <span class="now">{count}</span></caption><tbody>{rows}</tbody></table>
</div>
<noscript><img src="{address}/film_strip.png" alt="Film strip of four crops: a row for each of the
first five epochs and the last five, and the originals in the last row."></noscript>
<script type="application/json">{json.dumps(data)}</script>
</run-epochs>"""


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("epochs", Epochs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
