"""Fail unless every page of `_toc.yml` stands in the built site as HTML."""

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent


def toc_pages(root: Path = ROOT) -> list[str]:
    """The pages that `_toc.yml` names, in reading order, without suffix."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    return [toc["root"], *(chapter["file"] for chapter in chapters)]


def main(site: Path) -> None:
    missing = [page for page in toc_pages() if not (site / f"{page}.html").is_file()]
    if missing:
        sys.exit(f"The build wrote no page for: {', '.join(missing)}.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
