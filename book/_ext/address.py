"""Until the repository's address is set, the site says so and links to no address."""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

UNSET = "YOUR-ACCOUNT/YOUR-REPOSITORY"
EXPLAINED = "book/setup"
ANCHOR = "#on-colab"


def is_unset(config: Config) -> bool:
    """Whether `_config.yml` still names no repository."""
    return UNSET in str(config.html_theme_options.get("repository_url", ""))


def mark(app: Sphinx, config: Config) -> None:
    """Let pages ask for the address by `{only} address_unset`."""
    if is_unset(config):
        app.tags.add("address_unset")


def explain_links(app: Sphinx, doctree: nodes.document, pagename: str) -> None:
    """Let links that need the address lead to the page that says how to set it."""
    for link in doctree.findall(nodes.reference):
        if UNSET in link.get("refuri", ""):
            link["refuri"] = app.builder.get_relative_uri(pagename, EXPLAINED) + ANCHOR
            link += nodes.Text(" (address not set)")


def explain_buttons(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.Node | None,
) -> None:
    """The same for Colab's button in the page's header; a button to the repository is left out."""
    if not is_unset(app.config) or "header_buttons" not in context:
        return
    target = app.builder.get_relative_uri(pagename, EXPLAINED) + ANCHOR
    kept = []
    for button in context["header_buttons"]:
        for entry in button.get("buttons", ()):
            if entry.get("text") == "Colab":
                entry |= {"text": "Colab: address not set", "url": target}
                entry["tooltip"] = "How to set the address"
        if UNSET not in str(button):
            kept.append(button)
    context["header_buttons"] = kept


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", mark)
    app.connect("doctree-resolved", explain_links)
    # After the theme has made its buttons.
    app.connect("html-page-context", explain_buttons, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
