"""The first cell of every notebook, and what a notebook tells Colab.

Usage: python tools/first_cell.py writes both into all notebooks, for the address in `_config.yml`.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
UNSET = "https://github.com/YOUR-ACCOUNT/YOUR-REPOSITORY"

INSTALL = """\
# On Colab: install the course's package, replace nothing that is there, look at the machine.
import sys

if "google.colab" in sys.modules:
    %pip list --format=freeze > what-colab-has.txt
    %pip install --constraint what-colab-has.txt "srgan-lib @ git+{url}" | tail -n 12
    from srgan_lib.colab import check_runtime

    check_runtime()"""

SAY_UNSET = """\
# On Colab: say that this copy of the course can't be installed yet.
import sys

if "google.colab" in sys.modules:
    print("This copy of the course doesn't know its own address, so nothing can be installed.")
    print("In a clone: make set-repository URL=https://github.com/owner/name, commit and push.")
    print("Then open the notebook again.")"""

# Where a notebook trains with the library, Colab is asked for a GPU.
TRAINS = re.compile(r"^[^#\n]*\b(pretrain|train_gan)\(", re.MULTILINE)


def current_address(root: Path = ROOT) -> str:
    """The address in `_config.yml`, under `repository`."""
    config = (root / "_config.yml").read_text(encoding="utf-8")
    match = re.search(r"^repository:\n(?: .*\n)*? +url: *(\S+)", config, re.MULTILINE)
    if not match:
        raise ValueError("_config.yml names no address: repository, url.")
    return match[1]


def first_cell(url: str) -> str:
    """The source of the first code cell, for the repository's address."""
    return SAY_UNSET if url == UNSET else INSTALL.format(url=url)


def colab_metadata(notebook: dict[str, Any]) -> dict[str, Any]:
    """What Colab reads in a notebook's metadata."""
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    if any(TRAINS.search(text) for text in code):
        return {"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": []}}
    return {"colab": {"provenance": []}}


def write_first_cell(path: Path, url: str) -> bool:
    """Write the first cell and Colab's metadata into a notebook; say whether that changed it.

    The cell is the one with the id `colab`; without one, it is put before the first code cell.
    """
    before = path.read_text(encoding="utf-8")
    notebook = json.loads(before)
    cell = next((c for c in notebook["cells"] if c.get("id") == "colab"), None)
    if cell is None:
        cell = {"cell_type": "code", "execution_count": None, "id": "colab"}
        cell |= {"metadata": {"tags": ["hide-input"]}, "outputs": []}
        kinds = [c["cell_type"] for c in notebook["cells"]]
        notebook["cells"].insert(kinds.index("code") if "code" in kinds else len(kinds), cell)
    cell["source"] = first_cell(url).splitlines(keepends=True)
    for key in ("accelerator", "colab"):
        notebook["metadata"].pop(key, None)
    metadata = colab_metadata(notebook) | notebook["metadata"]
    notebook["metadata"] = dict(sorted(metadata.items()))
    after = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def notebooks(root: Path = ROOT) -> list[Path]:
    """The course's notebooks, those in folders of their own included."""
    found = (root / "notebooks").rglob("*.ipynb")
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


if __name__ == "__main__":
    for path in notebooks():
        if write_first_cell(path, current_address()):
            print(f"Written: {path.relative_to(ROOT)}")
