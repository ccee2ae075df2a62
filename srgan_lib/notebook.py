"""What the course's notebooks need beside the library: its source shown, sliders and wipes."""

import ast
import base64
import html
import inspect
import io
import textwrap
from collections.abc import Callable, Mapping
from importlib.resources import files

import PIL.Image
from IPython.display import HTML, Markdown
from torch import Tensor

from srgan_lib.errors import ImageError
from srgan_lib.pixels import to_pixels


def show_source(thing: type | Callable, *, docstring: bool = False) -> Markdown:
    """Show a class's or function's source as it stands in the library.

    Args:
        thing: the class, method or function.
        docstring: show its docstrings too.
    """
    source = textwrap.dedent(inspect.getsource(thing))
    if not docstring:
        source = _without_docstrings(source)
    return Markdown(f"```python\n{source.rstrip()}\n```")


def _without_docstrings(source: str) -> str:
    """Remove the docstrings from source code, leaving every other line as it is."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or not ast.get_docstring(node):
            continue
        text = node.body[0]
        last = text.end_lineno
        if last < len(lines) and not lines[last].strip():
            last += 1  # the empty line behind it
        lines[text.lineno - 1 : last] = [None] * (last - text.lineno + 1)
    return "\n".join(line for line in lines if line is not None)


def slider(images: Mapping[str, Tensor], label: str, *, zoom: int = 3, start: int = 0) -> HTML:
    """Return images in one place, of which a slider shows one at a time.

    It works in a notebook and on a page, without any network connection; where no scripts run,
    the first one to be shown stays.

    Args:
        images: grey tensors (1, H, W) in [0, 1] by what is written under each.
        label: what the slider changes.
        zoom: screen pixels for a pixel.
        start: the number of the image that is shown first, from 0.

    Raises:
        ImageError: no image, or one of another shape.
    """
    if not images:
        raise ImageError("A slider needs at least one image.")
    figures = []
    for number, (title, image) in enumerate(images.items()):
        if image.ndim != 3 or image.shape[0] != 1:
            raise ImageError(f"A slider takes images (1, H, W), not {tuple(image.shape)}.")
        figures.append(
            f'<figure style="margin: 0"{"" if number == start else " hidden"}>'
            f'<img alt="{html.escape(title)}" width="{zoom * image.shape[2]}" '
            f'style="image-rendering: pixelated" src="{_inline(image)}">'
            f"<figcaption>{html.escape(title)}</figcaption></figure>"
        )
    show = (
        "this.closest('div').querySelectorAll('figure')"
        ".forEach((figure, i) => { figure.hidden = i != this.value; })"
    )
    return HTML(
        f'<div>{"".join(figures)}<label>{html.escape(label)} <input type="range" min="0" '
        f'max="{len(images) - 1}" value="{start}" oninput="{show}"></label></div>'
    )


def wipe(
    images: Mapping[str, Tensor],
    what: str,
    *,
    left: str | None = None,
    right: str | None = None,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> HTML:
    """Return images laid over each other, with a divider to drag between two of them, and a zoom.

    It works in a notebook and on a page, without any network connection; where no scripts run,
    and in print, the images stand beside each other. The smaller ones (LR) are shown as large as
    the others, pixel by pixel.

    Args:
        images: at least two grey tensors (1, H, W) in [0, 1] by name. They show the same region,
            so they have the same ratio of H to W, whatever their number of pixels.
        what: what all of them show, for those who can't see it.
        left: the name of the image that is on the left at first; the first one if left out.
        right: the name of the one on the right; the last one if left out.
        value_range: the values that are shown as black and as white, the same for all.

    Raises:
        ImageError: too few images, one of another shape, or a name that none of them has.
    """
    if len(images) < 2:
        raise ImageError("A wipe needs at least two images.")
    widest = max(images.values(), key=lambda image: image.shape[-1])
    for name, image in images.items():
        if image.ndim != 3 or image.shape[0] != 1:
            raise ImageError(f"A wipe takes images (1, H, W), not {tuple(image.shape)}.")
        if image.shape[1] * widest.shape[2] != image.shape[2] * widest.shape[1]:
            raise ImageError(
                f"'{name}' {tuple(image.shape)} can't show the same region as an image "
                f"{tuple(widest.shape)}: their ratios of height to width differ."
            )
    for name in (left, right):
        if name is not None and name not in images:
            raise ImageError(f"No image is called '{name}', only {', '.join(images)}.")
    low, high = value_range
    figures = []
    for name, image in images.items():
        pixels = ' style="image-rendering: pixelated"' * (image.shape[2] < widest.shape[2])
        figures.append(
            f'<figure><img alt="{html.escape(name)}: {html.escape(what)}"{pixels} '
            f'src="{_inline((image - low) / (high - low))}">'
            f"<figcaption>{html.escape(name)}</figcaption></figure>"
        )
    chosen = {"label": what, "left": left, "right": right}
    attributes = "".join(f' {k}="{html.escape(v)}"' for k, v in chosen.items() if v is not None)
    # The site loads both files itself, and the script notices; a notebook has only what is here.
    style, script = (
        files("srgan_lib").joinpath(f"wipe.{end}").read_text("utf-8") for end in ("css", "js")
    )
    return HTML(
        f"<image-wipe{attributes}>{''.join(figures)}</image-wipe>"
        f"<style>{style}</style><script>{script}</script>"
    )


def _inline(image: Tensor) -> str:
    """Return an image (1, H, W) as the address of an 8-bit PNG that holds itself."""
    data = io.BytesIO()
    pixels = to_pixels(image.clamp(0, 1), 8).values[0].numpy()
    PIL.Image.fromarray(pixels).save(data, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
