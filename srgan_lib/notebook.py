"""What the course's notebooks need beside the library: showing its source."""

import ast
import inspect
import textwrap
from collections.abc import Callable

from IPython.display import Markdown


def show_source(thing: type | Callable, *, docstring: bool = False) -> Markdown:
    """Show a class's or function's source as it stands in the library.

    Args:
        thing: the class, method or function.
        docstring: show its docstrings too.
    """
    source = textwrap.dedent(inspect.getsource(thing))
    if not docstring:
        source = _without_docstrings(source)
    return Markdown(f"```python\n{source.rstrip()}\n```")


def _without_docstrings(source: str) -> str:
    """Remove the docstrings from source code, leaving every other line as it is."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or not ast.get_docstring(node):
            continue
        text = node.body[0]
        last = text.end_lineno
        if last < len(lines) and not lines[last].strip():
            last += 1  # the empty line behind it
        lines[text.lineno - 1 : last] = [None] * (last - text.lineno + 1)
    return "\n".join(line for line in lines if line is not None)
