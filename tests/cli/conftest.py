"""A command in this process, and a tiny study that is mined once a session."""

import logging
from pathlib import Path

import pytest

from dglzarr.cli import app, guarded
from dglzarr.settings import load_settings
from dglzarr.storage.study import open_study
from dglzarr.studies.plan import Plan
from dglzarr.testing import write_study
from tests.builders import write_model
from tests.cli.program import OVERRIDES, SETTINGS, Result


@pytest.fixture
def run(capfd):
    """Run a command in this process; return its exit status and what it printed."""

    def call(*arguments):
        capfd.readouterr()
        try:
            status = guarded(lambda: app([str(a) for a in arguments], prog_name="dglzarr"))
        except SystemExit as left:
            status = left.code
        return Result(status, *capfd.readouterr())

    yield call
    logging.getLogger("dglzarr").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The settings file of a tiny study, nothing of it mined."""
    return write_study(tmp_path_factory.mktemp("tiny"), n_samples=120, n_genes=80)


@pytest.fixture(scope="session")
def mined(tmp_path_factory):
    """The settings file of a tiny study that is finished, but for training the network."""
    file = write_study(tmp_path_factory.mktemp("mined"), n_samples=120, n_genes=80)

    def stage(name):
        with pytest.raises(SystemExit) as left:
            app([name, str(file), *OVERRIDES])
        assert left.value.code == 0

    for name in ("ingest", "normalize", "dedup"):
        stage(name)
    settings = load_settings(file, SETTINGS)
    study = open_study(settings.root)
    (claim,) = Plan.of(settings)["train"].claims()
    stores = study.uri("normalized"), study.uri("samples")
    write_model(study.model(0), *stores, lineage=claim.lineage)
    history = Path(study.model(0), "history.csv")
    history.write_text("epoch,loss,val_loss,seconds\n1,0.8,0.9,0.1\n", encoding="utf-8")
    for name in ("encode", "score", "select", "evaluate", "report"):
        stage(name)
    return file


@pytest.fixture
def study(mined):
    return mined.parent / "study"
