"""The directive `epochs`: a slider through the epochs of runs, built from their committed results.

```{epochs} results/srgan_paper results/srgan
:names: paper's form | alive

Caption.
```

Of each run it takes the frames of `training.gif`, one for each epoch, the HR crops from the last
row of `film_strip.png`, and the numbers of `metrics.jsonl`. Buttons choose the run; runs may differ
in length and in what they measured. Frames are files of their own, which a page fetches when the
slider comes to them. Without scripts the page has each run's last epoch, chart and film strip.
"""

import html
import json
import math
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SIDE, LINE = 128, 2  # of a sample crop, and of the white line between two
LOSSES = ("content", "perceptual", "adversarial", "consistency", "discriminator")
SHOWN = {  # what the table shows of an epoch: where it stands, how it is called and written
    "losses.content": ("content loss", "{:.3g}"),
    "losses.perceptual": ("perceptual loss", "{:.3g}"),
    "losses.adversarial": ("adversarial loss", "{:.3g}"),
    "losses.discriminator": ("discriminator loss", "{:.3g}"),
    "losses.ranking": ("ranked right", "{:.0%}"),
    "losses.spread": ("spread (grey levels)", "{:.1f}"),
    "validation.psnr": ("PSNR (dB)", "{:.2f}"),
    "validation.feature_distance": ("feature distance", "{:.3f}"),
    "validation.detail": ("detail, SR / HR", "{:.2f}"),
    "validation.lattice": ("lattice, SR / HR", "{:.1f}"),
}
MISSING = "–"
FIRST = 1  # losses are drawn relative to epoch 2, the first in which all generators learn
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
    """What the page shows of an epoch, as it is written there; a dash for what isn't known."""
    shown = {}
    for place, (name, form) in SHOWN.items():
        part, key = place.split(".")
        value = line[part].get(key)
        if value is not None and key == "spread":
            value *= 255
        shown[name] = form.format(value) if is_number(value) else MISSING
    return shown


def is_number(value: Any) -> bool:
    """Whether a measured value is there and finite."""
    return isinstance(value, int | float) and math.isfinite(value)


def x_of(epoch: int, count: int) -> float:
    """Where an epoch is in the chart, from left to right."""
    return LEFT + (RIGHT - LEFT) * (epoch - 1) / max(count - 1, 1)


def relative(lines: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """The losses, each relative to its value in epoch 2.

    A loss that the run doesn't have, or that isn't above 0 then, is left out. None stands where one
    isn't above 0 later: products of two throws' errors can be.
    """
    curves = {}
    for name in LOSSES:
        values = [line["losses"].get(name) for line in lines]
        start = values[min(FIRST, len(values) - 1)]
        if is_number(start) and start > 0:
            curves[name] = [v / start if is_number(v) and v > 0 else None for v in values]
    return curves


def told(curves: dict[str, list[float | None]]) -> str:
    """The curves' ends in words."""
    ends = []
    for name, curve in curves.items():
        end = next(value for value in reversed(curve) if value is not None)
        way = "where it began" if 0.95 < end < 1.05 else f"at {end:.2g} times its start"
        ends.append(f"{name} {way}")
    return ", ".join(ends)


def chart(lines: list[dict[str, Any]]) -> str:
    """The losses over the epochs, each relative to its value in epoch 2, as SVG."""
    curves = relative(lines)
    powers = [math.log10(v) for curve in curves.values() for v in curve if v is not None] or [0]
    low, high = math.floor(min(powers)), math.ceil(max(powers))
    high = max(high, low + 1)

    def y_of(power: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (power - low) / (high - low)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Line chart with logarithmic '
        f"vertical axis: losses over {len(lines)} epochs, relative to epoch 2. They end: "
        f'{told(curves)}.">'
    ]
    for power in range(low, high + 1):
        y = y_of(power)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 5:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    every = 10 if len(lines) > 12 else 2
    for epoch in (1, *range(every, len(lines) + 1, every)):
        x = x_of(epoch, len(lines))
        parts.append(f'<text x="{x:.1f}" y="{BOTTOM + 19}" text-anchor="middle">{epoch}</text>')
    middle = (LEFT + RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{BOTTOM + 39}" text-anchor="middle">epoch</text>')
    last = [next(v for v in reversed(curve) if v is not None) for curve in curves.values()]
    names = iter(spread([y_of(math.log10(value)) for value in last]))
    for name, curve in curves.items():
        number = LOSSES.index(name)  # a loss looks the same in every run
        for piece in pieces(curve):
            points = " ".join(
                f"{x_of(epoch, len(lines)):.1f},{y_of(math.log10(value)):.1f}"
                for epoch, value in piece
            )
            parts.append(f'<polyline class="curve curve-{number}" points="{points}"/>')
        parts.append(
            f'<text class="name-{number}" x="{RIGHT + 8}" y="{next(names) + 5:.1f}">{name}</text>'
        )
    parts.append(f'<path class="marker" d="M0 {TOP}V{BOTTOM}" hidden/></svg>')
    return "".join(parts)


def pieces(curve: list[float | None]) -> list[list[tuple[int, float]]]:
    """The parts of a curve between its gaps, as epochs and values."""
    found: list[list[tuple[int, float]]] = [[]]
    for epoch, value in enumerate(curve, start=1):
        if value is not None:
            found[-1].append((epoch, value))
        elif found[-1]:
            found.append([])
    return [piece for piece in found if piece]


def spread(heights: list[float], gap: float = 18) -> list[float]:
    """Move labels apart that would touch, keeping their order."""
    placed: dict[int, float] = {}
    above = -math.inf
    for number in sorted(range(len(heights)), key=heights.__getitem__):
        above = placed[number] = max(heights[number], above + gap)
    return [placed[number] for number in range(len(heights))]


class Epochs(SphinxDirective):
    """A slider through the epochs of the runs in some folders, with a caption below."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {"names": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        folders = [Path(self.env.srcdir) / part for part in self.arguments[0].split()]
        names = [name.strip() for name in self.options.get("names", "").split("|") if name.strip()]
        names = names or [folder.name for folder in folders]
        if len(names) != len(folders):
            raise self.error(f"{len(folders)} runs and {len(names)} names.")
        runs = [self.read(*pair) for pair in zip(folders, names, strict=True)]
        caption = nodes.container(classes=["epochs-caption"])
        self.state.nested_parse(self.content, self.content_offset, caption)
        number = self.env.new_serialno("epochs")
        return [nodes.raw("", page(runs, number), format="html"), caption]

    def read(self, run: Path, name: str) -> dict[str, Any]:
        """Write a run's images for the site, and return what the page says of it."""
        for file in ("metrics.jsonl", "training.gif", "film_strip.png"):
            self.env.note_dependency(str(run / file))
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
        return {"name": name, "address": address, "lines": lines}


def page(runs: list[dict[str, Any]], number: int = 0) -> str:
    """The HTML of all runs; the last one is chosen at first."""
    last = len(runs) - 1
    buttons = "".join(
        f'<label><input type="radio" name="epochs-run-{number}" value="{i}"'
        f"{' checked' if i == last else ''}> {html.escape(run['name'])}</label>"
        for i, run in enumerate(runs)
    )
    count = len(runs[last]["lines"])
    data = [
        {
            "address": run["address"],
            "numbers": [list(numbers(line).values()) for line in run["lines"]],
            "x": [round(x_of(e, len(run["lines"])), 1) for e in range(1, len(run["lines"]) + 1)],
        }
        for run in runs
    ]
    return f"""<run-epochs>
<fieldset class="runs" hidden><legend>Run</legend>{buttons}</fieldset>
<label class="choose" hidden>Epoch <input type="range" min="1" max="{count}" value="{count}">
</label>
{"".join(section(run, runs[0]["address"]) for run in runs)}
<script type="application/json">{json.dumps(data)}</script>
</run-epochs>"""


def section(run: dict[str, Any], originals: str) -> str:
    """What the page shows of one run, at its last epoch. All runs draw the same crops, so one
    picture of the originals serves all."""
    name, address, lines = html.escape(run["name"]), run["address"], run["lines"]
    count = len(lines)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row)}</th><td>{value}</td></tr>'
        for row, value in numbers(lines[-1]).items()
    )
    side = 2 * SIDE + LINE
    size = f'width="{side}" height="{side}"'
    return f"""<div class="run">
<p class="run-name">{name}</p>
<div class="images">
<figure><img class="epoch" {size} src="{address}/{count}.png" loading="lazy"
alt="Four crops of chest radiographs.
The generator of the run {name} drew them after epoch {count}.">
<figcaption>SR after epoch <span class="now">{count}</span> of {count}</figcaption></figure>
<figure><img {size} src="{originals}/hr.png" loading="lazy"
alt="The same four crops of the original radiographs."><figcaption>HR</figcaption></figure>
</div>
<div class="measured">{chart(lines)}
<table><caption>After epoch <span class="now">{count}</span></caption><tbody>{rows}</tbody></table>
</div>
<noscript><img src="{address}/film_strip.png" alt="Film strip of the run {name}: a row of four crops
for each of the first five epochs and the last five, and the originals in the last row."></noscript>
</div>"""


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("epochs", Epochs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
