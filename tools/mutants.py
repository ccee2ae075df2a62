"""Change the library's code in one place after another, and count the changes no test notices.

    python tools/mutants.py                    # all modules, counted in results/mutants.json
    python tools/mutants.py tiling losses --sample 60

A changed module is a mutant; a test that fails with it kills it. Changed are comparisons,
arithmetic, and/or/not, conditions, numbers, truth values and words; a returned value is left out,
and so is a call for its effect or a raise. Docstrings, annotations, decorators, asserts and the
texts of errors stay. PyTorch is imported once: each mutant has a fork of this process, in which
its tests run, the fastest first, up to the first that fails. A test that hangs counts as failed.

A survivor's ``why`` in the results is written by hand, and kept: the reason why it may live, most
often that it changes nothing that anybody can see.
"""

import argparse
import ast
import gc
import importlib.util
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "mutants.json"

TESTS = {  # the tests of each module, all of them beside those left out below
    "srgan_lib/averaging.py": ["tests/test_averaging.py"],
    "srgan_lib/consistency.py": ["tests/test_consistency.py"],
    "srgan_lib/crops.py": ["tests/test_crops.py"],
    "srgan_lib/degradation.py": ["tests/test_degradation.py"],
    "srgan_lib/losses.py": ["tests/test_losses.py"],
    "srgan_lib/metrics.py": ["tests/test_metrics.py"],
    "srgan_lib/tiling.py": ["tests/test_tiling.py"],
}
LEFT_OUT = "not memory_grows_by_the_integers"  # minutes on a busy machine
PATIENCE = 5  # tests hang when they take so many times as long as without a change

_EXCHANGED = [(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot)]
_EXCHANGED += [(ast.In, ast.NotIn), (ast.And, ast.Or), (ast.Add, ast.Sub), (ast.Mult, ast.Div)]
_EXCHANGED += [(ast.BitAnd, ast.BitOr)]
SWAPS = {ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult}
SWAPS |= {**dict(_EXCHANGED), **{new: old for old, new in _EXCHANGED}}
KEPT = (ast.Assert, ast.Import, ast.ImportFrom, ast.JoinedStr)
KEPT_FIELDS = ("annotation", "returns", "decorator_list")


@dataclass
class Mutant:
    """One change: ``new`` in the place of ``old``, which is a field of its parent or one of it."""

    parent: ast.AST
    field: str
    index: int | None
    old: ast.AST
    new: ast.AST
    where: str
    line: int

    def apply(self) -> None:
        """Change the tree that the mutant was found in."""
        ast.copy_location(self.new, self.old)
        if self.index is None:
            setattr(self.parent, self.field, self.new)
        else:
            getattr(self.parent, self.field)[self.index] = self.new

    def describe(self, lines: list[str]) -> dict[str, str]:
        """Return where and what is changed, in words that hold when lines are moved."""
        old, new = (ast.unparse(node).split("\n")[0] for node in (self.old, self.new))
        code = lines[self.line - 1].strip()
        return {"where": self.where, "code": code, "change": f"{old} -> {new}"}


def find_mutants(node: ast.AST, where: str = "", line: int = 0) -> Iterator[Mutant]:
    """Find all changes of a tree. They share it, so only one of them can be made."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        where = f"{where}.{node.name}".strip(".")
    for field, value in ast.iter_fields(node):
        if field in KEPT_FIELDS:
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if not isinstance(child, ast.AST) or isinstance(child, KEPT) or docstring:
                continue
            line = getattr(child, "lineno", line)
            for new in _changes(child, condition=field in ("test", "ifs")):
                new = ast.fix_missing_locations(new)
                yield Mutant(node, field, index, child, new, where, line)
            if not isinstance(child, ast.Raise):
                yield from find_mutants(child, where, line)


def _changes(node: ast.AST, condition: bool) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(left, operators, others):
            for i, operator in enumerate(operators):
                swapped = [*operators[:i], SWAPS[type(operator)](), *operators[i + 1 :]]
                yield ast.Compare(left, swapped, others)
        case ast.BinOp(left, operator, right) if type(operator) in SWAPS:
            yield ast.BinOp(left, SWAPS[type(operator)](), right)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(SWAPS[type(operator)](), values)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            yield operand
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)
        case ast.Constant(str(value)):
            yield ast.Constant(value + "?")
        case ast.Return(ast.expr() as value) if ast.unparse(value) != "None":
            yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Expr(ast.Call()) | ast.AugAssign():
            yield ast.Pass()
    if condition and not isinstance(node, ast.UnaryOp | ast.Compare):
        yield ast.UnaryOp(ast.Not(), node)


class Watch:
    """Note how long tests take and which one fails, and let the fastest be first."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds, self.failed = seconds, ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        self.failed = self.failed or (report.nodeid if report.failed else "")


def run_tests(
    tests: list[str], seconds: dict[str, float], change: Callable[[], None], limit: int
) -> tuple[str, dict[str, float]]:
    """Run tests in a fork, after a change; return what failed, or "", and each test's seconds."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        child = os.fork()
        if child:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code < 0:
                return "hang", {}
            return json.loads(report.read_text()) if report.is_file() else ("import", {})
        try:
            for descriptor in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            signal.setitimer(signal.ITIMER_PROF, limit)  # of this process's own time, and
            signal.alarm(20 * limit)  # by the clock, should it wait for ever on a busy machine
            change()
            watch = Watch(seconds)
            options = ["-x", "-q", "-p", "no:cacheprovider", "--basetemp", f"{folder}/tests"]
            code = pytest.main([*options, "-k", LEFT_OUT, *tests], plugins=[watch])
            failed = watch.failed or ("collection" if code else "")
            report.write_text(json.dumps((failed, watch.seconds)))
        finally:
            os._exit(0)


def play(path: str, tests: list[str], sample: int | None, known: list[dict[str, str]]) -> dict:
    """Return the figures of one module; of known survivors the reasons are kept."""
    start, before = time.monotonic(), set(sys.modules)
    pytest.main(["--collect-only", "-qq", "--no-summary", "-p", "no:cacheprovider", *tests])
    for name in set(sys.modules) - before:  # forget the library and its tests, not what they import
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(ROOT) and ".venv" not in file:
            del sys.modules[name]
    gc.freeze()  # or each fork would look through all of PyTorch's objects, and copy them
    failed, seconds = run_tests(tests, {}, lambda: None, limit=3600)
    if failed:
        raise SystemExit(f"{path}: a test fails without any change, {failed}.")
    limit = 10 + PATIENCE * round(sum(seconds.values()))
    source = (ROOT / path).read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    mutants = found = list(find_mutants(tree))
    if sample is not None:
        mutants = random.Random(0).sample(found, min(sample, len(found)))
    reasons = {(one["where"], one["code"], one["change"]): one["why"] for one in known}
    survivors = []
    for number, mutant in enumerate(mutants):

        def change(mutant: Mutant = mutant) -> None:
            mutant.apply()
            name = path.removesuffix(".py").replace("/", ".")
            spec = importlib.util.spec_from_file_location(name, ROOT / path)
            sys.modules[name] = module = importlib.util.module_from_spec(spec)
            exec(compile(tree, ROOT / path, "exec"), module.__dict__)

        failed, _ = run_tests(tests, seconds, change, limit)
        words = mutant.describe(lines)
        if not failed:
            survivors.append({**words, "why": reasons.get(tuple(words.values()), "")})
        fate = f"killed by {failed}" if failed else "SURVIVES"
        print(f"{path}:{mutant.line} {number + 1}/{len(mutants)} {words['change']}  {fate}")
    return {
        "possible": len(found),
        "mutants": len(mutants),
        "killed": len(mutants) - len(survivors),
        "survived": len(survivors),
        "seconds": round(time.monotonic() - start),
        "survivors": survivors,
    }


def main() -> None:
    """Play the modules that are named, or all, and write each one's figures as it ends."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="modules, such as tiling; by default all")
    parser.add_argument("--sample", type=int, help="so many mutants of each, drawn with seed 0")
    given = parser.parse_args()
    os.chdir(ROOT)
    sys.stdout.reconfigure(line_buffering=True)
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for path, tests in TESTS.items():
        name = Path(path).stem
        if not given.names or name in given.names:
            known = results.get(name, {}).get("survivors", [])
            results[name] = play(path, tests, given.sample, known)
            text = json.dumps(dict(sorted(results.items())), indent=1, ensure_ascii=False)
            RESULTS.write_text(text + "\n", encoding="utf-8")
    for name, figures in results.items():
        print(f"{name:12} {figures['killed']:4} of {figures['mutants']:4} killed")


if __name__ == "__main__":
    main()
