"""One temporary Prefect server for all flow tests of a process, and the flows, loaded by path."""

import importlib.util
import sys
from pathlib import Path

import pytest

FLOWS = Path(__file__).resolve().parents[2] / "flows"


@pytest.fixture(scope="session")
def prefect_server():
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def flows(prefect_server):  # noqa: ARG001
    """The module that flows/mine.py makes; flows/ is no package."""
    spec = importlib.util.spec_from_file_location("mine", FLOWS / "mine.py")
    module = sys.modules["mine"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
