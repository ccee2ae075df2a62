"""What notebooks show beside figures: the library's source, sliders and wipes."""

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
from srgan_lib.notebook import show_source, slider, wipe

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
    assert code(show_source(SRResNet.forward)).startswith("def forward(self, lr: Tensor,")


def test_short_function_is_shown_exactly():
    assert show_source(losses.adversarial_loss).data == (
        "```python\n"
        "def adversarial_loss(logits_sr: Tensor) -> Tensor:\n"
        "    return F.softplus(-logits_sr).mean()\n"
        "```"
    )


def test_other_strings_and_comments_stay():
    shown = code(show_source(degradation.resize_matrix.__wrapped__))
    assert "# Pillow looks at whole pixels within it only" in shown
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


def wipe_images(shown):
    """Return a wipe's images by name, their alternative texts, and which are pixelated."""
    found = re.findall(
        r'<figure><img alt="(.*?)"( style="image-rendering: pixelated")? '
        r'src="data:image/png;base64,(.*?)"><figcaption>(.*?)</figcaption>',
        shown.data,
    )
    pixels = {name: Image.open(io.BytesIO(base64.b64decode(data))) for *_, data, name in found}
    return pixels, [alt for alt, *_ in found], [bool(pixelated) for _, pixelated, *_ in found]


def test_wipe_holds_each_image():
    lr, hr = torch.full((1, 2, 3), 0.25), torch.full((1, 8, 12), 0.5)
    shown = wipe({"LR <1>": lr, "HR": hr}, "a chest & a leg")
    pixels, alts, pixelated = wipe_images(shown)
    assert list(pixels) == ["LR &lt;1&gt;", "HR"]
    assert [p.size for p in pixels.values()] == [(3, 2), (12, 8)]
    assert [p.getpixel((1, 1)) for p in pixels.values()] == [64, 128]
    assert alts == ["LR &lt;1&gt;: a chest &amp; a leg", "HR: a chest &amp; a leg"]
    assert pixelated == [True, False]
    assert shown.data.startswith('<image-wipe label="a chest &amp; a leg"><figure>')


def test_wipe_stretches_all_images_alike():
    images = {"a": torch.full((1, 4, 4), 0.5), "b": torch.full((1, 4, 4), 0.9)}
    pixels, *_ = wipe_images(wipe(images, "grey", left="b", right="a", value_range=(0.25, 0.75)))
    assert [p.getpixel((0, 0)) for p in pixels.values()] == [128, 255]


def test_wipe_brings_its_script_and_style_along(root):
    shown = wipe({"a": torch.zeros(1, 4, 4), "b": torch.zeros(1, 4, 4)}, "grey", left="b")
    assert '<image-wipe label="grey" left="b">' in shown.data
    for end in ("css", "js"):
        assert (root / "srgan_lib" / f"wipe.{end}").read_text(encoding="utf-8") in shown.data
    assert shown.data.count("</script>") == 1


@pytest.mark.parametrize(
    ("images", "chosen", "message"),
    [
        ({"a": (1, 4, 4)}, {}, "at least two images"),
        ({"a": (1, 4, 4), "b": (3, 4, 4)}, {}, r"\(1, H, W\), not \(3, 4, 4\)"),
        ({"a": (1, 4, 4), "b": (1, 8, 4)}, {}, "ratios of height to width differ"),
        ({"a": (1, 4, 4), "b": (1, 4, 4)}, {"right": "HR"}, "called 'HR', only a, b"),
    ],
)
def test_wipe_refuses_what_it_can_t_show(images, chosen, message):
    tensors = {name: torch.zeros(shape) for name, shape in images.items()}
    with pytest.raises(ImageError, match=message):
        wipe(tensors, "grey", **chosen)
