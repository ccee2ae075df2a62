"""Run notebooks from top to bottom and store their outputs in place.

The pictures of the front page are those of notebook 7: they are written anew with it.
"""

import base64
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FRONT_PAGE = Path(__file__).resolve().parent.parent / "book" / "_static" / "front_page.png"
FRONT_PAGE_CELL = "front-page"
WIPE_CELL = "wipe"


def front_page(notebook: nbformat.NotebookNode) -> bytes | None:
    """Return the PNG that the cell of the front page's picture stores, if there is one."""
    for cell in notebook.cells:
        if cell.get("id") == FRONT_PAGE_CELL:
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    return None


def front_page_wipe(notebook: nbformat.NotebookNode) -> dict[Path, bytes]:
    """Return the PNGs that the cell of the wipe stores, by the files that the front page shows."""
    pattern = r'src="data:image/png;base64,([^"]+)"><figcaption>([^<]+)</figcaption>'
    return {
        FRONT_PAGE.with_name(f"front_page_{name.lower().replace(' ', '_')}.png"): base64.b64decode(
            data
        )
        for cell in notebook.cells
        if cell.get("id") == WIPE_CELL
        for output in cell.outputs
        for data, name in re.findall(pattern, output.get("data", {}).get("text/html", ""))
    }


def run(path: Path) -> None:
    """Execute one notebook in its own folder, as nbval does, and write it back."""
    notebook = nbformat.read(path, as_version=4)
    # No times in the metadata: an unchanged notebook stays unchanged in git.
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        # Without a kernel's warning that it listens on this machine's own ports.
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"Running {name} ...", flush=True)
        run(Path(name))
        notebook = nbformat.read(name, as_version=4)
        if picture := front_page(notebook):
            FRONT_PAGE.write_bytes(picture)
            for file, image in front_page_wipe(notebook).items():
                file.write_bytes(image)
