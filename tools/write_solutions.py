"""Write notebooks/solutions/ from the solutions that are folded in the course's notebooks.

For each exercise that has a check, a solution notebook holds the folded code and the check behind
it, and before them what the code needs of the course's notebook: imports and small functions. It
is run, so that it stores what the check says. With `--check`, nothing is written; notebooks that
differ from what would be written are named.
"""

import ast
import re
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from run_notebooks import run

ROOT = Path(__file__).resolve().parent.parent
COURSE = ROOT / "notebooks"
SOLUTIONS = COURSE / "solutions"
FOLDED = re.compile(
    r"^````\{admonition\} Solution\n:class: dropdown\n\n```python\n(.*?)\n```", re.MULTILINE | re.S
)
HEADING = re.compile(r"^### (Exercise \d+: .*)$", re.MULTILINE)
CHECK = re.compile(r"^exercises\.check_\w+\(\w+\)$", re.MULTILINE)


def exercises(notebook: nbformat.NotebookNode) -> list[tuple[str, str, str]]:
    """Return the heading, the folded code and the check of each exercise that has a check."""
    found, heading, check = [], "", ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            check = next(iter(CHECK.findall(cell.source)), check)
            continue
        # A cell may hold one exercise's solution and the next one's heading.
        for match in re.finditer(f"{HEADING.pattern}|{FOLDED.pattern}", cell.source, re.M | re.S):
            if match[1]:
                heading, check = match[1], ""
            elif check:
                found.append((heading, match[2], check))
    return found


def names_in(tree: ast.AST) -> set[str]:
    """Return the names that code refers to, without functions' own parameters."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return names - {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def what_it_needs(notebook: nbformat.NotebookNode, code: str) -> str:
    """Return the imports and functions of the course's notebook that some code refers to."""
    imports: dict[str, tuple[str, str]] = {}
    functions: dict[str, str] = {}
    for cell in notebook.cells:
        if cell.cell_type != "code" or "%pip" in cell.source:
            continue
        for part in ast.parse(cell.source).body:
            if isinstance(part, ast.Import | ast.ImportFrom):
                module = part.module if isinstance(part, ast.ImportFrom) else ""
                for name in part.names:
                    imports[name.asname or name.name] = (module, ast.unparse(name))
            elif isinstance(part, ast.FunctionDef):
                functions.setdefault(part.name, ast.get_source_segment(cell.source, part))
    wanted = names_in(ast.parse(code)) | {"exercises"}
    helpers = [source for name, source in functions.items() if name in wanted]
    for source in helpers:
        wanted |= names_in(ast.parse(source))
    by_module: dict[str, list[str]] = {}
    for name, (module, what) in imports.items():
        if name in wanted:
            by_module.setdefault(module, []).append(what)
    lines = [f"import {what}" for what in sorted(by_module.pop("", []))]
    lines += [
        f"from {module} import {', '.join(sorted(by_module[module]))}"
        for module in sorted(by_module)
    ]
    library = [line for line in lines if "srgan_lib" in line]
    others = [line for line in lines if line not in library]
    imported = "\n\n".join("\n".join(block) for block in (others, library) if block)
    return "\n\n\n".join([imported, *helpers])


def solution(path: Path) -> nbformat.NotebookNode:
    """Return the solution notebook of a course notebook, not yet run."""
    course = nbformat.read(path, as_version=4)
    title = re.search(r"^# (.*)$", course.cells[0].source, re.MULTILINE)[1]
    solved = exercises(course)
    colab = next(cell for cell in course.cells if cell.cell_type == "code").source
    setup = what_it_needs(course, "\n".join(code for _, code, _ in solved))
    text = (
        f"# Solutions: {title}\n\nWritten from the folded solutions of `{path.name}`, which "
        "explain them. Try the exercises there first."
    )
    cells = [
        new_markdown_cell(text, id="title"),
        new_code_cell(colab, id="colab"),
        new_code_cell(setup, id="setup"),
    ]
    for number, (heading, code, check) in enumerate(solved, start=1):
        cells.append(new_markdown_cell(f"## {heading}", id=f"heading-{number}"))
        cells.append(new_code_cell(f"{code}\n\n\n{check}", id=f"solution-{number}"))
    return new_notebook(cells=cells)


def differs(path: Path) -> bool:
    """Whether the stored solution notebook isn't what the course's notebook gives."""
    stored = SOLUTIONS / path.name
    if not stored.is_file():
        return True
    cells = nbformat.read(stored, as_version=4).cells
    return [c.source for c in cells] != [c.source for c in solution(path).cells]


def main(arguments: list[str]) -> None:
    notebooks = sorted(COURSE.glob("*.ipynb"))
    if "--check" in arguments:
        if stale := [path.name for path in notebooks if differs(path)]:
            sys.exit(f"Not the folded solutions: {', '.join(stale)}. Run tools/write_solutions.py.")
        return
    SOLUTIONS.mkdir(exist_ok=True)
    for path in notebooks:
        if differs(path):
            print(f"Writing the solutions of {path.name} ...", flush=True)
            nbformat.write(solution(path), SOLUTIONS / path.name)
            run(SOLUTIONS / path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
