"""What the course's notebooks need beside the library: showing its source, and sliders."""

import ast
import base64
import html
import inspect
import io
import textwrap
from collections.abc import Callable, Mapping

import PIL.Image
from IPython.display import HTML, Markdown
from torch import Tensor

from srgan_lib.errors import ImageError
from srgan_lib.images import to_pixels


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
        data = io.BytesIO()
        PIL.Image.fromarray(to_pixels(image, 8).values[0].numpy()).save(data, "PNG")
        source = base64.b64encode(data.getvalue()).decode()
        figures.append(
            f'<figure style="margin: 0"{"" if number == start else " hidden"}>'
            f'<img alt="{html.escape(title)}" width="{zoom * image.shape[2]}" '
            f'style="image-rendering: pixelated" src="data:image/png;base64,{source}">'
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
