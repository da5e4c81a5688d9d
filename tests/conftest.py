"""Fixtures and settings every test shares: one thread, one random generator, no home folder."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

collect_ignore = ["data"]  # scripts that made the frozen values, of other packages and of R
REPO = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DGLZARR_DATA", REPO.parent / "shared" / "data"))
ENVIRONMENT = {
    "CUDA_CACHE_DISABLE": "1",
    "DO_NOT_TRACK": "1",
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import dask  # noqa: E402  (numpy reads the thread limits when it is loaded)
import hypothesis  # noqa: E402
import numpy as np  # noqa: E402

hypothesis.settings.register_profile("default", deadline=None, max_examples=50)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True)


def pytest_configure(config):
    hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")
    home = tempfile.mkdtemp(prefix="dglzarr-prefect-")
    os.environ["PREFECT_HOME"] = home
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))


def pytest_collection_modifyitems(items):
    """Files of slow tests come first, so that no worker begins a long one when others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    waiting = {
        path for path in slow if path.parent.name == "flows"
    }  # most of the time, for servers
    items.sort(key=lambda item: (item.path not in waiting, item.path not in slow))


def pytest_runtest_setup(item):
    # Results of a GPU need one. The choice of a device, its errors and the same code by another
    # array library have tests without.
    if item.get_closest_marker("gpu") and not Path("/dev/nvidia0").exists():
        pytest.skip("gpu: no test can bring one; what asks for one is tested on the CPU too")


@pytest.fixture(autouse=True)
def _synchronous_dask(request):
    """Run graphs in the calling thread; tests marked slow choose their own scheduler."""
    if request.node.get_closest_marker("slow"):
        yield
        return
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def data_dir():
    """The real files, which are others' and not shipped.

    Where they are absent these tests are skipped, so that a clone alone can be tested; each reader
    and stage has tests without them too.
    """
    if not DATA.is_dir():
        pytest.skip(f"real data: {DATA} is absent; DGLZARR_DATA names another folder")
    return DATA


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel that is built from a copy of the repository."""
    pytest.importorskip("setuptools", minversion="77")
    copy, target = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "dglzarr", "flows", "tests"):
        if (REPO / name).is_dir():
            skipped = shutil.ignore_patterns("__pycache__", "data")
            shutil.copytree(REPO / name, copy / name, ignore=skipped)
        else:
            shutil.copy(REPO / name, copy)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(target)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (found,) = target.glob("*.whl")
    return found
