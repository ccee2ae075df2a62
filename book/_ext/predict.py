"""A Sphinx directive for predictions: the reader commits to a guess, then the output unfolds.

In a markdown cell, before the code cell whose output gives the answer:

    ```{predict}
    :answer: 2

    How many grey levels are there among the pixels?

    1. 256
    2. a few ten thousand
    3. all 65,536
    ```

With a numbered list of 2 to 4 options, `answer` is the number of the right one. Without a list the
reader enters a number: `answer` is the right one, `unit` stands behind the field, and a guess
within `tolerance` of the answer is right (a tenth of it, unless given).

The page folds the output of the next code cell that has one, and the paragraph behind it, which
often tells. `:outputs: 2` folds the next two outputs; `:outputs: 0` folds only the next paragraph.
They must come before the next heading of the second level and before the next prediction. Options
become buttons, so put no links or terms into them. Without JavaScript, and in print, all is shown.
"""

from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

MIN_OPTIONS, MAX_OPTIONS = 2, 4


class predict(nodes.Admonition, nodes.Element):
    """A question whose attribute `data` holds the answer and what is to be folded."""


class Predict(SphinxDirective):
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {
        "answer": directives.unchanged_required,
        "unit": directives.unchanged_required,
        "tolerance": directives.unchanged_required,
        "outputs": directives.nonnegative_int,
    }

    def run(self) -> list[nodes.Node]:
        number = self.env.new_serialno("predict") + 1
        node = predict("", nodes.title("", "Predict"), ids=[f"predict-{number}"])
        self.state.nested_parse(self.content, self.content_offset, node)
        choices = [part for part in node if isinstance(part, nodes.enumerated_list)]
        if len(choices) > 1:
            raise self.error("A prediction has one list of options at the most.")
        data = {"answer": self.number("answer"), "outputs": self.options.get("outputs", 1)}
        if choices:
            count = len(choices[0])
            if not MIN_OPTIONS <= count <= MAX_OPTIONS:
                raise self.error(f"A prediction has 2 to 4 options, not {count}.")
            if data["answer"] not in range(1, count + 1):
                raise self.error(f"`answer` must be the number of an option, from 1 to {count}.")
        else:
            default = abs(data["answer"]) / 10
            data["tolerance"] = self.number("tolerance", default)
            data["unit"] = self.options.get("unit", "")
        node["data"] = data
        return [node]

    def number(self, name: str, default: float | None = None) -> float:
        """Return a numerical option of the directive."""
        text = self.options.get(name, default)
        try:
            return float(text)
        except (TypeError, ValueError):
            raise self.error(f"`{name}` of a prediction must be a number, not {text!r}.") from None


def visit_predict(translator: Any, node: predict) -> None:
    data = {
        f"data-{name}": f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in node["data"].items()
    }
    translator.body.append(translator.starttag(node, "div", CLASS="admonition predict", **data))


def depart_predict(translator: Any, node: predict) -> None:
    translator.body.append("</div>\n")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_node(predict, html=(visit_predict, depart_predict))
    app.add_directive("predict", Predict)
    app.add_css_file("predict.css")
    app.add_js_file("predict.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
