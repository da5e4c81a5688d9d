"""A study that is served in this process; starlette's client asks."""

import shutil
import time

import pytest

from tests.serve import studies

starlette = pytest.importorskip("starlette")


@pytest.fixture(scope="package")
def original(tmp_path_factory):
    return studies.write_study(tmp_path_factory.mktemp("served") / "study")


@pytest.fixture
def root(original, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(original, tmp_path / "study")
    return tmp_path / "study"


class Asked:
    """An application and a client of it that waits where a study is being prepared."""

    def __init__(self, app):
        from starlette.testclient import TestClient

        self.app = app
        self.client = TestClient(
            app, base_url="http://localhost", follow_redirects=False, raise_server_exceptions=False
        )

    def get(self, path, *, status=200, **options):
        for _ in range(200):
            answer = self.client.get(path, **options)
            if answer.status_code != 503 or status == 503:
                break
            time.sleep(0.05)
        assert answer.status_code == status, (path, answer.status_code, answer.text[:500])
        return answer

    def json(self, path, **options):
        return self.get(f"/api/study{path}", **options).json()


@pytest.fixture(scope="package")
def served(original):
    from dglzarr.serve.app import build_app

    return Asked(build_app([str(original)]))


@pytest.fixture
def serve():
    """Serve other studies."""
    from dglzarr.serve.app import build_app

    return lambda *roots, **options: Asked(build_app([str(r) for r in roots], **options))
