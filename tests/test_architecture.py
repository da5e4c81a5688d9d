"""What holds the walls up: who may import whom, what is loaded when, and how long things get."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dglzarr
from tests.measure import (
    MOST_WITH_MORE,
    code_lines,
    cycles,
    functions,
    layers,
    modules,
    too_long,
    too_wide,
    top_level_names,
)

REPO = Path(__file__).resolve().parents[1]
MODULES = modules()
FLOWS = sorted((REPO / "flows").rglob("*.py"))
LINT = Path(sys.executable).with_name("lint-imports")
# Whatever is loaded only where it belongs.
IMPORTERS = {
    "dask": {
        "dglzarr/query/lazy.py",
        *(f"dglzarr/storage/{name}.py" for name in ("cluster", "launch", "tasks", "workers")),
    },
    "distributed": {
        f"dglzarr/storage/{name}.py" for name in ("cluster", "launch", "tasks", "workers")
    },
    "keras": {"dglzarr/models/"},
    "matplotlib": {
        "dglzarr/report/",
        *(f"dglzarr/query/{name}.py" for name in ("picture", "answers", "asked")),
    },
    "numba": {"dglzarr/kernels/compiled.py"},
    "obstore": {"dglzarr/storage/buckets.py"},
    "prefect": {"flows/"},
    "pydantic": {
        *("dglzarr/evaluation/panels.py", "dglzarr/models/options.py"),
        *("dglzarr/settings.py", "dglzarr/stages/"),
        *("dglzarr/storage/cluster_options.py", "dglzarr/storage/options.py"),
    },
    "shap": {"dglzarr/models/"},
    "sklearn": {"dglzarr/kernels/"},
    "starlette": {"dglzarr/serve/"},
    "tensorflow": {"dglzarr/models/adam.py"},
    "typer": {"dglzarr/cli.py"},
    "uvicorn": {"dglzarr/serve/run.py", "dglzarr/serve/patience.py"},
    "zarr": {f"dglzarr/storage/{name}.py" for name in ("bucket_zarr", "objects", "rows", "store")},
}


# Flows hold no numbers, and each flow file stands alone.
NOT_OF_FLOWS = {
    *("numpy", "dask", "xarray", "zarr", "tensorflow", "dglzarr.kernels"),
    *("flows", *(path.stem for path in FLOWS)),
}


def name_of(path):
    return path.relative_to(REPO).as_posix()


def imports(text, names):
    """Which of some modules and packages, or what is in them, a text imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return [name for name in sorted(names) if any(f"{f}.".startswith(f"{name}.") for f in found)]


@pytest.fixture
def copy(tmp_path):
    """A copy of the package and its settings, to plant violations in."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPO / "dglzarr", tmp_path / "dglzarr", ignore=skipped)
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
        ("dglzarr/kernels/moments.py", "from dglzarr.storage import store", "Data flows one way"),
        ("dglzarr/storage/store.py", "from dglzarr.studies import plan", "Data flows one way"),
        ("dglzarr/sources/gct.py", "from dglzarr import query", "Data flows one way"),
        ("dglzarr/stages/normalize.py", "from dglzarr.stages import dedup", "Stages do not know"),
        ("dglzarr/storage/schemas.py", "import prefect", "Prefect lives in flows only"),
        ("dglzarr/studies/plan.py", "import flows.mine", "Prefect lives in flows only"),
        ("dglzarr/stages/train.py", "from dglzarr import settings", "Settings stop at the entry"),
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


@pytest.mark.parametrize("path", FLOWS, ids=name_of)
def test_flows__hold_no_numbers_and_stand_alone(path):
    assert imports(path.read_text(encoding="utf-8"), NOT_OF_FLOWS) == []


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("import numpy as np", "numpy"),
        ("def f():\n    from dask import delayed", "dask"),
        ("import zarr.storage", "zarr"),
        ("from dglzarr import kernels", "dglzarr.kernels"),
        ("from dglzarr.kernels.quantile import finish_quantile", "dglzarr.kernels"),
        ("import dglzarr.kernels.scale", "dglzarr.kernels"),
        ("from flows.mine import as_task", "flows"),
        ("from mine import as_task", "mine"),
    ],
)
def test_flows__fail_on_a_planted_violation(line, module):
    assert imports(f"import prefect\n{line}\n", NOT_OF_FLOWS) == [module]


@pytest.mark.parametrize("package", IMPORTERS)
def test_import_rules__each_library_in_its_place(package):
    users = {name_of(p) for p in MODULES if imports(p.read_text(encoding="utf-8"), {package})}
    places = IMPORTERS[package]
    assert [u for u in sorted(users) if not any(u.startswith(place) for place in places)] == []


def test_imports__no_cycles():
    assert cycles() == []


def test_house__few_rooms_and_layers():
    assert len(top_level_names()) <= 17
    assert len(layers()) <= 12


HEAVY = {"tensorflow", "keras", "numba", "prefect", "shap", "matplotlib"}
TABLES = {"numpy", "pandas", "scipy", "sklearn", "xarray", "zarr", "dask", "h5py"}


@pytest.mark.parametrize(
    ("name", "heavy"),
    [
        ("dglzarr", {*HEAVY, *TABLES, "pydantic"}),
        ("dglzarr.query", {*HEAVY, "pydantic", "scipy", "sklearn"}),
        ("dglzarr.stages.normalize", {*HEAVY, "sklearn"}),
        ("dglzarr.studies.plan", {*HEAVY, "sklearn", "scipy.stats"}),
    ],
)
def test_import__loads_nothing_heavy(name, heavy):
    code = f"import sys, {name}; print(*({heavy!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO
    )
    assert result.stdout.strip() == ""


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_command_line__help_loads_nothing_heavy(option):
    """So that it is there at once: under a second of processor time."""
    code = (
        "import atexit, sys; from dglzarr.cli import main; "
        f"atexit.register(lambda: print('loaded', *({HEAVY | TABLES!r} & set(sys.modules)))); "
        f"sys.argv = ['dglzarr', {option!r}]; main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO
    )
    assert result.stdout.splitlines()[-1] == "loaded"


@pytest.mark.slow
def test_import__leaves_the_environment_alone():
    """The packages that ours load may set variables, so ours are loaded a second time."""
    code = (
        "import importlib, os, pkgutil, sys, dglzarr\n"
        "names = [m.name for m in pkgutil.walk_packages(dglzarr.__path__, 'dglzarr.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "for name in ('dglzarr', *names): del sys.modules[name]\n"
        "os.environ.clear()\n"
        "for name in names: importlib.import_module(name)\n"
        "print(*os.environ)"
    )
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
def test_modules__say_what_they_own_in_functions_that_are_read_at_once(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "says what it owns"
    found = functions(text)
    assert {f.place: f.n_lines for f in too_long(found)} == {}
    assert [f.place for f in found if f.n_skips] == [], "no line is kept short by hand"


def test_functions__few_take_many_arguments():
    found = [f for p in MODULES for f in functions(p.read_text(encoding="utf-8"), name_of(p))]
    many = {f.place: f.n_parameters for f in too_wide(found)}
    assert len(many) <= MOST_WITH_MORE, many


def test_flows__stay_thin():
    assert sum(len(code_lines(p.read_text(encoding="utf-8"))) for p in FLOWS) <= 300


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
