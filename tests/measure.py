"""Measures the house: its modules, functions, imports and tests.

``make measure`` runs it: the table is printed, and stands in docs/design.md from then on.
tests/test_architecture.py holds the aims with the same functions.
"""

import ast
import io
import re
import statistics
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import grimp
import numpy as np
from scipy.sparse.csgraph import connected_components

REPO = Path(__file__).resolve().parents[1]
DESIGN = REPO / "docs" / "design.md"
BEGIN, END = "<!-- make measure -->\n", "<!-- end of measure -->\n"
MOST_LINES, MOST_PARAMETERS, MOST_WITH_MORE = 60, 8, 3
_BLANK = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Function:
    """One function as a person sees it.

    Attributes
    ----------
    place
        File and name.
    n_lines
        Source lines with code in them, signature and nested functions too: no docstring, comment
        or blank line.
    n_parameters
        What a caller gives: ``self``, ``cls`` and the claim that ``@stage`` gives do not count.
    is_command
        Whether its parameters declare the options of a command line.
    is_typed
        Whether every parameter and the result have a type.
    n_skips
        Comments that keep the formatter away.
    """

    place: str
    n_lines: int
    n_parameters: int
    is_command: bool
    is_typed: bool
    n_skips: int


def modules() -> list[Path]:
    """Return the files of the package and the flows, sorted."""
    return sorted(p for folder in ("dglzarr", "flows") for p in (REPO / folder).rglob("*.py"))


@cache
def code_lines(text: str) -> set[int]:
    """Return the lines that hold code: no comment, no docstring, not blank."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _BLANK:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(ast.Constant(str())):
                lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


def functions(text: str, file: str = "") -> list[Function]:
    """Return every function of a module, methods and nested ones too."""
    lines, skips = code_lines(text), _skips(text) if "fmt:" in text else set()
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            decorators = [ast.unparse(d) for d in node.decorator_list]
            start = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            place = set(range(start, (node.end_lineno or start) + 1))
            given = _parameters(node, is_stage=any(re.match(r"stage\b", d) for d in decorators))
            every = [*_parameters(node, is_stage=False), node.args.vararg, node.args.kwarg]
            found.append(
                Function(
                    f"{file}:{node.name}",
                    len(lines & place),
                    len(given),
                    any(re.search(r"\.(command|callback)\b", d) for d in decorators),
                    node.returns is not None and all(a.annotation for a in every if a),
                    len(skips & place),
                )
            )
    return found


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, *, is_stage: bool) -> list[ast.arg]:
    """Return the parameters that a caller gives by position or name."""
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    implied = {"self", "cls", "claim"} if is_stage else {"self", "cls"}
    return [a for i, a in enumerate(every) if i or a.arg not in implied]


def _skips(text: str) -> set[int]:
    """Return the lines with a comment that keeps the formatter away."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [t for t in tokens if t.type == tokenize.COMMENT]
    return {t.start[0] for t in comments if re.search(r"fmt: *(skip|off)", t.string)}


def _documentable(text: str) -> Iterator[bool]:
    """Yield whether the module, and each public class and function of it, has a docstring."""
    todo: list[ast.Module | ast.ClassDef] = [ast.parse(text)]
    while todo:
        node = todo.pop()
        yield bool(ast.get_docstring(node))
        for child in node.body:
            if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
                todo.append(child)
            elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                yield bool(ast.get_docstring(child))


def cycles() -> list[set[str]]:
    """Return the groups of modules that import each other in a circle."""
    graph = grimp.build_graph("dglzarr", cache_dir=None)
    names = sorted(graph.modules)
    edges = np.zeros((len(names), len(names)), dtype=bool)
    for i, name in enumerate(names):
        for other in graph.find_modules_directly_imported_by(name):
            edges[i, names.index(other)] = True
    _, group = connected_components(edges, connection="strong")
    groups = [{names[i] for i in np.flatnonzero(group == k)} for k in np.unique(group)]
    return [found for found in groups if len(found) > 1]


def layers() -> list[str]:
    """Return the lines of the contract of layers, from top to bottom, and the flows above."""
    settings = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (
        c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers"
    )
    return ["flows", *contract["layers"]]


def top_level_names() -> list[str]:
    """Return the modules and folders that a stranger chooses among, so not ``__init__``."""
    entries = [p for p in (REPO / "dglzarr").iterdir() if p.name != "__init__.py"]
    return sorted(p.name for p in entries if p.suffix == ".py" or any(p.glob("*.py")))


def measures() -> list[tuple[str, str, str]]:
    """Return the rows of the table: what, how much, and the aim."""
    texts = {p.relative_to(REPO).as_posix(): p.read_text(encoding="utf-8") for p in modules()}
    package = {file: text for file, text in texts.items() if file.startswith("dglzarr/")}
    size = {file: len(code_lines(text)) for file, text in texts.items()}
    n_code = sum(size[file] for file in package)
    modular = [size[file] for file in package if not file.endswith("__init__.py")]
    found = [f for file, text in package.items() for f in functions(text, file)]
    documented = [has for text in package.values() for has in _documentable(text)]
    n_tests = sum(
        len(code_lines(p.read_text(encoding="utf-8"))) for p in (REPO / "tests").rglob("*.py")
    )
    lines = [f.n_lines for f in found]
    return [
        ("top-level names in `dglzarr/`", str(len(top_level_names())), "at most 17"),
        ("modules", str(len(modular)), ""),
        ("code lines", f"{n_code:,}", "under 12,000"),
        ("code lines of a module, median and most", _middle_and_most(modular), ""),
        ("code lines of `flows/`", str(sum(size.values()) - n_code), "at most 300"),
        ("functions", str(len(found)), ""),
        ("source lines of a function, median and most", _middle_and_most(lines), "at most 60"),
        ("functions of over 60", str(len(too_long(found))), "0"),
        ("functions of over 8 parameters", str(len(too_wide(found))), "at most 3"),
        ("functions with every type", _share([f.is_typed for f in found]), "100 %"),
        ("public names with a docstring", _share(documented), "100 %"),
        ("functions kept from the formatter", str(sum(f.n_skips > 0 for f in found)), "0"),
        ("import cycles", str(len(cycles())), "0"),
        ("layers", str(len(layers())), "at most 12"),
        ("code lines of tests, to one of the package", f"{n_tests / n_code:.2f}", "1.0 to 1.6"),
    ]


def too_long(found: list[Function]) -> list[Function]:
    """Return the functions that are more than a person reads at once."""
    return [f for f in found if f.n_lines > MOST_LINES]


def too_wide(found: list[Function]) -> list[Function]:
    """Return the functions that take more than a person keeps in mind; commands aside."""
    return [f for f in found if f.n_parameters > MOST_PARAMETERS and not f.is_command]


def _middle_and_most(sizes: list[int]) -> str:
    return f"{statistics.median(sizes):g}, {max(sizes)}"


def _share(is_so: list[bool]) -> str:
    return f"{100 * sum(is_so) / len(is_so):.3g} %"


def table() -> str:
    """Return the table as Markdown."""
    head = ["| What | Measured | Aim |", "| --- | --- | --- |"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in measures()), ""])


def main() -> None:
    """Print the table and put it in its place in docs/design.md."""
    text, new = DESIGN.read_text(encoding="utf-8"), table()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    DESIGN.write_text(f"{before}{BEGIN}{new}{END}{after}", encoding="utf-8")
    print(new, end="")  # noqa: T201


if __name__ == "__main__":
    main()
