"""The page "Try it on your image": its networks, its sample and its content-security policy.

All are made when the site is built: the networks from the weights that the library ships, the
policy from the page as it was written.
"""

import base64
import hashlib
import json
import re
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sphinx.application import Sphinx

from srgan_lib.pretrained import CARDS

if TYPE_CHECKING:
    from torch import nn

PAGE = "book/try_it"
MODELS = {name: card for name, card in CARDS.items() if card.try_it}  # as the model cards say
TILE = 96  # side in LR pixels, without the surroundings: about 1 GB of memory in the browser
MAX_PIXELS, MAX_SIDE = 1024 * 1024, 2048
SAMPLE = (40, 50, 128)  # top, left and side of what is shown of the sample, in LR pixels


def write_models(folder: Path) -> None:
    """Write the networks as ONNX, what the page must know of them, and the sample."""
    from srgan_lib.architectures import Interpolation
    from srgan_lib.datasets import open_dataset
    from srgan_lib.degradation import crop_to_multiple, degrade
    from srgan_lib.export import export_onnx
    from srgan_lib.images import write_image
    from srgan_lib.pretrained import load_network, weights_path

    made_from = [Path(__file__), *(weights_path(name) for name in MODELS)]
    stamp = folder / "settings.json"
    if stamp.is_file() and stamp.stat().st_mtime > max(f.stat().st_mtime for f in made_from):
        return
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict = {"tile": TILE, "max_pixels": MAX_PIXELS, "max_side": MAX_SIDE, "models": {}}
    for name in MODELS:
        network = load_network(name)
        export_onnx(network, folder / f"{name}.onnx")
        halve(folder / f"{name}.onnx")
        settings["models"][name] = describe(network, name)
    scale = network.scale
    export_onnx(Interpolation("bicubic", scale), folder / "bicubic.onnx")
    hr = crop_to_multiple(open_dataset("sample")[0], scale)
    top, left, side = SAMPLE
    lr = degrade(hr, scale=scale)[:, top : top + side, left : left + side]
    write_image(folder / "sample.png", lr)
    top, left, side = (scale * value for value in SAMPLE)
    write_image(folder / "sample_hr.png", hr[:, top : top + side, left : left + side])
    stamp.write_text(json.dumps(settings, indent=1), encoding="utf-8")


def describe(network: "nn.Module", name: str) -> dict:
    """Return what the page must know of a network; it puts the seed into the notice itself."""
    from srgan_lib.dicom import notice
    from srgan_lib.noise import has_dice
    from srgan_lib.tiling import receptive_radius

    return {
        "scale": network.scale,
        "radius": receptive_radius(network),
        "noise_channels": network.noise_channels,
        "notice": notice(
            network.scale, name, "the throw with seed {seed}" if has_dice(network) else ""
        ),
    }


def halve(path: Path) -> None:
    """Store float16 where it holds the same numbers as float32; the weights were saved in it.

    The runtime turns them back when it loads the file, and computes in float32 as before.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    graph = model.graph
    casts = []
    for weights in graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype != np.float32 or not np.array_equal(values.astype(np.float16), values):
            continue
        name = weights.name
        weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(
            onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT)
        )
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def policy(html: str) -> str:
    """Return a policy that lets a page run its own scripts, and talk to no other host.

    The scripts that the theme writes into the page are named by their hashes. Styles may stand
    in the page: the theme sets them on single elements, and with images and fonts of this host
    only they can tell nobody anything. The worker is made from a blob, since only then it has to
    obey this policy, too; what it imports counts as a worker's script.
    """

    def hashes(texts: list[str]) -> str:
        digests = {hashlib.sha256(text.encode()).digest() for text in texts}
        return " ".join(sorted(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests))

    inline = re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", html, re.DOTALL)
    handlers = re.findall(r'<[^>]*?\son[a-z]+="([^"]*)"', html)
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' 'wasm-unsafe-eval' {hashes(inline)} 'unsafe-hashes' "
            f"{hashes([unescape(handler) for handler in handlers])}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' blob: data:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "form-action 'self'",
            "base-uri 'none'",
        ]
    )


def offer(app: Sphinx, docname: str, source: list[str]) -> None:
    """Offer the networks in the page, the first of them chosen."""
    if docname == PAGE:
        choices = [
            f'<label><input type="radio" name="model" value="{name}" data-title="{card.title}"'
            f"{'' if i else ' checked'} /> {card.title}: {card.try_it}</label>"
            for i, (name, card) in enumerate(MODELS.items())
        ]
        source[0] = source[0].replace("<!-- models -->", "\n      ".join(choices))


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Complete the page once it is written."""
    page = Path(app.outdir) / f"{PAGE}.html"
    if exception is not None or app.builder.name != "html" or not page.is_file():
        return
    write_models(Path(app.outdir) / "_static" / "try_it" / "models")
    html = page.read_text(encoding="utf-8")
    if "Content-Security-Policy" not in html:  # a page that wasn't written anew
        tag = f'<meta http-equiv="Content-Security-Policy" content="{policy(html)}" />'
        html = html.replace('<meta charset="utf-8" />', f'<meta charset="utf-8" />{tag}', 1)
        page.write_text(html, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", offer)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
