"""Showing the library's source in a notebook."""

import ast
import base64
import inspect
import io
import re

import pytest
import torch
from IPython.display import HTML, Markdown
from PIL import Image

from srgan_lib import crops, degradation, images, losses, metrics, training
from srgan_lib.architectures import Discriminator, SRResNet, VGGFeatures
from srgan_lib.errors import ImageError
from srgan_lib.notebook import show_source, slider

THINGS = [
    SRResNet,
    SRResNet.forward,
    Discriminator,
    VGGFeatures,
    crops.CropSampler,
    degradation.resize_matrix.__wrapped__,
    degradation.degrade,
    images.Pixels,
    losses.GeneratorLoss,
    losses.adversarial_loss,
    metrics.psnr,
    training.train_gan,
]


def code(shown):
    """Return the code between the fences."""
    assert isinstance(shown, Markdown)
    first, *lines, last = shown.data.splitlines()
    assert (first, last) == ("```python", "```")
    return "\n".join(lines)


def docstrings(source):
    kinds = (ast.ClassDef, ast.FunctionDef)
    return [
        n.name for n in ast.walk(ast.parse(source)) if isinstance(n, kinds) and ast.get_docstring(n)
    ]


def without_docstrings(source):
    """Drop docstrings from the syntax tree, to compare what is left."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree)


@pytest.mark.parametrize("thing", THINGS, ids=lambda thing: thing.__qualname__)
def test_shown_source_is_the_library_s_without_its_docstrings(thing):
    whole = inspect.cleandoc("\n" + inspect.getsource(thing))
    shown = code(show_source(thing))
    assert docstrings(whole) and not docstrings(shown)
    assert ast.dump(ast.parse(shown)) == without_docstrings(whole)
    left = shown.splitlines()
    assert set(left) <= set(whole.splitlines())  # comments and layout are kept


@pytest.mark.parametrize("thing", [SRResNet, losses.adversarial_loss, SRResNet.forward])
def test_docstrings_are_shown_if_wanted(thing):
    shown = code(show_source(thing, docstring=True))
    assert shown.strip() == inspect.cleandoc("\n" + inspect.getsource(thing)).strip()
    assert docstrings(shown)


def test_method_is_moved_to_the_margin():
    assert code(show_source(SRResNet.forward)).startswith("def forward(self, lr: Tensor)")


def test_short_function_is_shown_exactly():
    assert show_source(losses.content_loss).data == (
        "```python\n"
        "def content_loss(sr: Tensor, hr: Tensor) -> Tensor:\n"
        "    return F.mse_loss(sr, hr)\n"
        "```"
    )


def test_other_strings_and_comments_stay():
    shown = code(show_source(degradation.resize_matrix.__wrapped__))
    assert "# Pillow looks at whole pixels within the support only." in shown
    assert "Can't resize" in shown


def test_slider_holds_each_image_and_shows_one():
    images = {"share <0>": torch.zeros(1, 4, 6), "share 1": torch.full((1, 4, 6), 0.5)}
    shown = slider(images, "share & share", zoom=2, start=1)
    assert isinstance(shown, HTML)
    found = re.findall(
        r"<figure [^>]*?( hidden)?><img alt=\"(.*?)\" width=\"(.*?)\".*?base64,(.*?)\"", shown.data
    )
    assert [f[:3] for f in found] == [(" hidden", "share &lt;0&gt;", "12"), ("", "share 1", "12")]
    pixels = [Image.open(io.BytesIO(base64.b64decode(f[3]))) for f in found]
    assert [p.size for p in pixels] == [(6, 4), (6, 4)]
    assert [p.getpixel((2, 2)) for p in pixels] == [0, 128]
    assert "<label>share &amp; share <input" in shown.data and 'max="1" value="1"' in shown.data


def test_slider_refuses_what_it_can_t_show():
    with pytest.raises(ImageError, match="at least one image"):
        slider({}, "share")
    with pytest.raises(ImageError, match=r"\(1, H, W\), not \(3, 4, 4\)"):
        slider({"a": torch.zeros(3, 4, 4)}, "share")
