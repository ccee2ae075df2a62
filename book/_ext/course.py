"""The site's own Sphinx extension: no page asks another host for anything."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def is_foreign(script: Any) -> bool:
    """Whether a script of a page belongs to live code (Thebe) or comes from another host."""
    name = str(getattr(script, "filename", script) or "")
    body = str(getattr(script, "attributes", {}).get("body", ""))
    return "://" in name or "thebe" in f"{name} {body}".lower()


def drop_foreign_scripts(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.Node | None,
) -> None:
    """Leave out what the theme loads for live code: this site doesn't offer it.

    Its settings are also written twice in each page, which a browser reports as an error.
    """
    scripts = context.get("script_files", [])
    context["script_files"] = [script for script in scripts if not is_foreign(script)]


def setup(app: Sphinx) -> dict[str, bool]:
    # After the extensions that add scripts to a page.
    app.connect("html-page-context", drop_foreign_scripts, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
