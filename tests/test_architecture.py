"""What holds the walls up: who may import whom, what is loaded when, and how long things get."""

import ast
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import dglzarr

REPO = Path(__file__).resolve().parents[1]
MODULES = sorted(p for folder in ("dglzarr", "flows") for p in (REPO / folder).rglob("*.py"))
LINT = Path(sys.executable).with_name("lint-imports")
# Whatever is loaded only where it belongs.
IMPORTERS = {
    "dask": {"dglzarr/graph.py", "dglzarr/cluster.py"},
    "distributed": {"dglzarr/graph.py", "dglzarr/cluster.py"},
    "keras": {"dglzarr/models/"},
    "matplotlib": {"dglzarr/report/"},
    "numba": {"dglzarr/kernels/compiled.py"},
    "prefect": {"flows/"},
    "pydantic": {"dglzarr/config.py"},
    "shap": {"dglzarr/models/"},
    "sklearn": {"dglzarr/kernels/"},
    "tensorflow": {"dglzarr/models/adam.py"},
    "typer": {"dglzarr/cli.py"},
    "zarr": {"dglzarr/rows.py", "dglzarr/store.py"},
}


def name_of(path):
    return path.relative_to(REPO).as_posix()


def imported(tree):
    """Top-level names of all packages that a module imports anywhere."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def code_lines(text):
    """Count lines that hold code: no comment, no docstring, not blank."""
    skipped = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENDMARKER,
    }  # fmt: skip
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


@pytest.fixture
def copy(tmp_path):
    """A copy of the packages and their settings, to plant violations in."""
    for folder in ("dglzarr", "flows"):
        shutil.copytree(
            REPO / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    return tmp_path


def lint(root):
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    return subprocess.run(
        [LINT, "--no-cache"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def test_import_rules__hold(copy):
    result = lint(copy)
    assert result.returncode == 0, result.stdout + result.stderr
    assert " 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("dglzarr/kernels/quantile.py", "import dask", "Kernels are plain numpy"),
        ("dglzarr/kernels/quantile.py", "import zarr", "Kernels are plain numpy"),
        ("dglzarr/kernels/moments.py", "from dglzarr import store", "Data flows one way"),
        ("dglzarr/store.py", "from dglzarr import pipeline", "Data flows one way"),
        ("dglzarr/sources/gct.py", "from dglzarr import genes", "Data flows one way"),
        ("dglzarr/stages/normalize.py", "from dglzarr.stages import dedup", "Stages do not know"),
        ("dglzarr/schema.py", "import prefect", "Prefect lives in flows only"),
        ("dglzarr/pipeline.py", "import flows.mine", "Prefect lives in flows only"),
        ("flows/mine.py", "import numpy", "Flows hold no numbers"),
        ("dglzarr/stages/train.py", "from dglzarr import config", "Settings stop at the entry"),
        ("dglzarr/newcomer.py", "", "Data flows one way"),
    ],
)
def test_import_rules__fail_on_a_planted_violation(copy, module, line, contract):
    path = copy / module
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{text}\n{line}\n", encoding="utf-8")
    result = lint(copy)
    assert result.returncode == 1, result.stderr
    assert re.search(rf"^{contract}.* BROKEN$", result.stdout, re.MULTILINE), result.stdout


@pytest.mark.parametrize("package", IMPORTERS)
def test_import_rules__each_library_in_its_place(package):
    users = {
        name_of(p) for p in MODULES if package in imported(ast.parse(p.read_text(encoding="utf-8")))
    }
    places = IMPORTERS[package]
    assert [u for u in sorted(users) if not any(u.startswith(place) for place in places)] == []


def test_imports__no_cycles():
    graph = grimp.build_graph("dglzarr", "flows", cache_dir=None)
    order = TopologicalSorter(
        {m: graph.find_modules_directly_imported_by(m) for m in sorted(graph.modules)}
    )
    order.prepare()


@pytest.mark.parametrize(
    ("name", "heavy"),
    [
        ("dglzarr", {"tensorflow", "keras", "numba", "prefect", "shap", "matplotlib", "pydantic"}),
        (
            "dglzarr.stages.normalize",
            {"tensorflow", "keras", "numba", "prefect", "shap", "matplotlib"},
        ),
        ("dglzarr.pipeline", {"tensorflow", "keras", "prefect", "shap", "sklearn"}),
    ],
)
def test_import__loads_nothing_heavy(name, heavy):
    code = f"import sys, {name}; print(*({heavy!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO
    )
    assert result.stdout.strip() == ""


def test_all__is_importable_sorted_and_documented():
    assert sorted(dglzarr.__all__) == list(dglzarr.__all__)
    for name in dglzarr.__all__:
        assert getattr(dglzarr, name).__doc__, name
    for name in ("quantile_normalize", "find_near_duplicates", "deeplift_contributions", "open"):
        assert name in dglzarr.__all__


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules__small_enough_to_read(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert code_lines(text) <= 400
    assert ast.get_docstring(tree), "says what it owns"
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [f.name for f in functions if code_lines(ast.unparse(f)) > 60]
    assert long == []


def test_flows__stay_thin():
    assert (
        sum(code_lines(p.read_text(encoding="utf-8")) for p in (REPO / "flows").glob("*.py")) <= 300
    )


def test_mutants__faults_that_fit_the_code():
    path = REPO / "tests" / "mutants.py"
    script = importlib.util.spec_from_file_location("mutants", path)
    mutants = sys.modules["mutants"] = importlib.util.module_from_spec(script)
    script.loader.exec_module(mutants)
    assert len({m.name for m in mutants.MUTANTS}) == len(mutants.MUTANTS) >= 20
    for mutant in mutants.MUTANTS:
        ast.parse(mutants.mutated(mutant))
        for test in mutant.tests:
            file, _, name = test.partition("::")
            assert f"def {name}(" in (REPO / file).read_text(encoding="utf-8") or not name, test


def test_readme__names_targets_that_exist_and_ci_runs_the_first_two():
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(), re.MULTILINE))
    readme = (REPO / "README.md").read_text(encoding="utf-8")
    used = re.findall(r"\bmake ([a-z]+)", "".join(re.findall(r"```.*?```", readme, re.DOTALL)))
    assert used[:2] == ["demo", "test"]
    assert set(used) <= targets
    ci = (REPO / ".ci" / "run").read_text()
    for name in ("demo", "test"):
        assert re.search(rf"^make {name}$", ci, re.MULTILINE)
