"""Write the repository's address into every file that needs it.

The address stands in `_config.yml`. This script replaces that address, wherever else it is written
out (the set-up's commands, the links to Colab), by a new one, and writes the README's badges and
the notebooks' first cells for it.
"""

import re
import sys
from pathlib import Path

from first_cell import ROOT, UNSET, current_address, notebooks, write_first_cell

FILES = ("_config.yml", "pyproject.toml", "CITATION.cff", "*.md", "book/**/*.md")
COLAB = "https://colab.research.google.com/github/"
BADGES = re.compile(r"(<!-- badges: .* -->\n).*?(\n<!-- end of badges -->)", re.DOTALL)


def check(url: str) -> None:
    """Raise `ValueError` unless `url` is `https://host/owner/name`."""
    part = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
    if not re.fullmatch(rf"https://{part}(?::\d+)?/{part}/{part}", url) or url.endswith(".git"):
        raise ValueError(f"'{url}' is not an address of the form https://github.com/owner/name.")


def badges(url: str) -> str:
    """The README's badges, or a sentence instead where the address is not set."""
    if url == UNSET:
        return (
            "*The address of this copy is not set, so there are no badges and no links to Colab: "
            "`make set-repository URL=https://github.com/owner/name`.*"
        )
    notebook = f"{COLAB}{slug(url)}/blob/main/notebooks/01_data_preparation.ipynb"
    tests = f"{url}/actions/workflows/tests.yml"
    return (
        f"[![Tests]({tests}/badge.svg)]({tests})\n"
        f"[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]({notebook})"
    )


def set_repository(url: str, root: Path = ROOT) -> list[str]:
    """Replace the old address by `url`; return the files that changed."""
    check(url)
    old = current_address(root)
    # Colab's links name the repository without its host.
    pairs = ((old, url), (COLAB + slug(old), COLAB + slug(url)))
    changed = []
    for path in sorted({path for pattern in FILES for path in root.glob(pattern)}):
        before = after = path.read_bytes().decode("utf-8")
        for old_text, new_text in pairs:
            # Not where a longer name only begins with the old one.
            after = re.sub(rf"{re.escape(old_text)}(?![\w-])", lambda _, new=new_text: new, after)
        after = BADGES.sub(lambda match: match[1] + badges(url) + match[2], after)
        if after != before:
            path.write_bytes(after.encode("utf-8"))
            changed.append(path.relative_to(root).as_posix())
    written = [path for path in notebooks(root) if write_first_cell(path, url)]
    return changed + [path.relative_to(root).as_posix() for path in written]


def slug(url: str) -> str:
    """`owner/name` of an address."""
    return "/".join(url.rsplit("/", 2)[-2:])


def main(argument: str) -> None:
    if argument == "--hint":
        if current_address() == UNSET:
            print(
                "The repository's address is not set: Colab has no link and the first cells "
                "install nothing until `make set-repository URL=https://github.com/owner/name`."
            )
        return
    try:
        changed = set_repository(argument)
    except ValueError as error:
        sys.exit(f"Nothing was changed: {error}")
    print(f"The address is {argument} in: {', '.join(changed) or 'every file already'}.")


if __name__ == "__main__":
    main(sys.argv[1])
