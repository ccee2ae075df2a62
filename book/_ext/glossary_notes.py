"""The glossary's entries, in each page that uses their words.

For each word that a page links to the glossary, the page gets a hidden note with the entry's text.
`glossary.js` makes it the link's description and shows it there; without JavaScript the link still
leads to the entry.
"""

from html import escape
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

GLOSSARY = "book/glossary"


def to_html(node: nodes.Node) -> str:
    """Return a node as HTML without links: text, code and formulas for MathJax."""
    if isinstance(node, nodes.Text):
        return escape(node.astext())
    inner = "".join(map(to_html, node.children))
    match node:
        case nodes.math():
            return rf'<span class="math">\({escape(node.astext())}\)</span>'
        case nodes.literal():
            return f"<code>{inner}</code>"
        case nodes.emphasis():
            return f"<em>{inner}</em>"
        case nodes.paragraph():
            return f"<p>{inner}</p>"
        case _:
            return inner


def entries(app: Sphinx) -> dict[str, str]:
    """Return the glossary's entries as HTML, by the anchors of their words."""
    if not hasattr(app, "glossary_entries"):
        app.glossary_entries = {}
        if GLOSSARY in app.env.found_docs:
            tree = app.env.get_and_resolve_doctree(GLOSSARY, app.builder)
            for glossary in tree.findall(addnodes.glossary):
                for item in glossary.findall(nodes.definition_list_item):
                    *terms, definition = item.children
                    text = f"<p><strong>{escape(terms[0].astext())}</strong></p>"
                    text += to_html(definition)
                    app.glossary_entries |= {term["ids"][0]: text for term in terms}
    return app.glossary_entries


def add_notes(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Add to a page the notes of the words that it links."""
    if doctree is None or pagename == GLOSSARY or "body" not in context:
        return
    found = {}
    for link in doctree.findall(nodes.reference):
        anchor = link.get("refuri", "").rpartition("#")[2]
        if any("std-term" in child.get("classes", ()) for child in link.findall(nodes.inline)):
            found[anchor] = entries(app)[anchor]
    if not found:
        return
    notes = [
        f'<div class="glossary-note" id="note-{anchor}" role="tooltip" hidden>{text}</div>'
        for anchor, text in sorted(found.items())
    ]
    context["body"] += f'<div class="glossary-notes">{"".join(notes)}</div>\n'
    app.add_js_file("glossary.js", defer="defer")
    if any('class="math"' in note for note in notes):
        # So that sphinx.ext.mathjax, which comes next, loads MathJax for this page.
        app.env.domains["math"].data["has_equations"][pagename] = True


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_css_file("glossary.css")
    app.connect("html-page-context", add_notes, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
