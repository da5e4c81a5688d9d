"""The pipeline as a Prefect flow: what it returns, what it leaves for people, how it fails."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from httpx import HTTPStatusError, Request, Response

from dglzarr.cli import guarded
from dglzarr.errors import ConfigError, DglzarrError, SourceError, StoreError
from dglzarr.query import table
from dglzarr.settings import load_settings
from dglzarr.storage.options import Run
from dglzarr.storage.store import StoreSummary
from dglzarr.studies.plan import OPTIONAL, STEPS, Step
from dglzarr.testing import write_study
from tests.builders import times

pytestmark = pytest.mark.slow

REPO = Path(__file__).resolve().parents[2]
SMALL = ("train.epochs=1", "train.hidden=12", "train.n_latent=4", "select.n_random=2")
HERE = ("cluster.kind=none",)
STAGES = [name for name in STEPS if name not in OPTIONAL]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    file = write_study(tmp_path_factory.mktemp("flow"), n_samples=120, n_genes=80)
    return load_settings(file, (*SMALL, *HERE))


@pytest.fixture(scope="module")
def finished(flows, settings):
    """The state of a first run."""
    return flows.mine_flow(settings, return_state=True)


@pytest.fixture
def log(caplog):
    """What Prefect logs."""
    logger = logging.getLogger("prefect")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


# ---------------------------------------------------------------- a run


def test_mine_flow__returns_the_report(finished, settings):
    assert finished.is_completed()
    report = Path(finished.result())
    assert report == Path(settings.root, "report.html")
    assert "<html" in report.read_text(encoding="utf-8")


def test_mine_flow__a_task_for_every_stage(finished, client):
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    run = client.read_flow_run(finished.state_details.flow_run_id)
    assert run.name == run.parameters["settings"]["title"] == "Landmark genes"
    tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    names = [t.name.rsplit("-", 1)[0] for t in sorted(tasks, key=lambda t: t.start_time)]
    assert names == STAGES
    assert all(t.state.is_completed() for t in tasks)


def test_mine_flow__table_of_landmarks(finished, artifact, settings):
    assert finished.is_completed()
    rows = json.loads(artifact("landmarks").data)
    n_landmarks = settings.select.n_landmarks
    best = table(f"{settings.root}#landmarks", top=n_landmarks)
    assert [row["rank"] for row in rows] == list(range(1, n_landmarks + 1))
    assert [row["gene"] for row in rows] == best.index.tolist()
    assert [row["score"] for row in rows] == pytest.approx(best["score"].tolist())
    assert set(rows[0]) == {"rank", "gene", "gene_symbol", "score", "is_forced", "gain"}


def test_mine_flow__link_to_the_report(finished, artifact):
    assert Path(finished.result()).as_uri() in artifact("report").data


@pytest.mark.parametrize("stage", STAGES)
def test_mine_flow__progress_reaches_100(stage, finished, artifact):
    assert finished.is_completed()
    found = artifact(f"progress-{stage}")
    assert (found.type, float(found.data)) == ("progress", 100.0)


def test_mine_flow__a_second_run_says_unchanged_and_is_quick(finished, flows, settings, log):
    before = times(settings.root)
    started = time.process_time()
    again = flows.mine_flow(settings, return_state=True)
    assert time.process_time() - started < 20
    assert again.result() == finished.result()
    for stage in STAGES[:-1]:
        assert re.search(rf"^{stage}: .* unchanged$", "\n".join(log.messages), re.MULTILINE)
    stores = {name for name, at in times(settings.root).items() if before[name] != at}
    assert not any(".zarr/" in name or name.startswith("models/") for name in stores)


# ---------------------------------------------------------------- failures


def broken(settings, tmp_path):
    bad = tmp_path / "GSE1_series_matrix.txt"
    bad.write_text('!Series_geo_accession\t"GSE1"\n!series_matrix_table_begin\n', encoding="utf-8")
    source = settings.sources[0].model_copy(update={"uri": str(bad)})
    return settings.model_copy(update={"sources": (source,), "root": str(tmp_path / "root")})


def test_mine_flow__a_failing_source_fails_it_in_one_line(flows, settings, tmp_path, log):
    state = flows.mine_flow(broken(settings, tmp_path), return_state=True)
    assert state.is_failed()
    assert state.message.startswith("ingest: GSE1_series_matrix.txt")
    assert state.message.endswith("To go on: run it again; finished work is kept.")
    assert "\n" not in state.message
    assert isinstance(state.result(raise_on_failure=False), SourceError)
    assert state.message in log.text
    assert "Traceback" not in log.text
    assert not list((tmp_path / "root").rglob("report.html"))


def test_mine_flow__its_error_ends_a_program_with_status_1(flows, settings, tmp_path, capsys):
    assert guarded(lambda: flows.mine_flow(broken(settings, tmp_path))) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("GSE1_series_matrix.txt")


def test_mine_flow__wrong_settings_fail_before_any_task(flows, settings, tmp_path):
    source = settings.sources[0].model_copy(update={"uri": "nosuch.txt"})
    changes = {"sources": (source,), "root": str(tmp_path / "root")}
    state = flows.mine_flow(settings.model_copy(update=changes), return_state=True)
    assert state.is_failed()
    assert isinstance(state.result(raise_on_failure=False), ConfigError)
    assert not (tmp_path / "root").exists()


# ---------------------------------------------------------------- one step


alone = pytest.mark.filterwarnings("ignore:Logger 'prefect.task_runs' attempted:UserWarning")


def summary(target, *, run):
    if run.on_progress is not None:
        run.on_progress("halves", 0, 2)
        run.on_progress("halves", 2, 2)
    return StoreSummary(target, "scores", "new", {}, 0.0, 0)


def fail(**_):
    raise StoreError("scores.zarr: not complete. Run the stage again.")


@alone
def test_as_task__returns_what_the_stage_returns(flows, artifact, capsys):
    step = Step("normalize", summary, {"target": "a.zarr"}, "a.zarr")
    assert flows.as_task(step, Run()) == summary(target="a.zarr", run=Run())
    lines = capsys.readouterr().err.splitlines()
    shown = [line for line in lines if line.startswith("normalize: ")]
    assert shown == ["normalize: halves 0/2", "normalize: halves 2/2"]
    assert float(artifact("progress-normalize").data) == 100.0


@alone
def test_as_task__a_step_without_progress(flows):
    step = Step("report", lambda *, run: "report.html", {}, "report.html")  # noqa: ARG005
    assert flows.as_task(step, Run()) == "report.html"


@alone
def test_as_task__raises_what_the_stage_raised(flows, log):
    with pytest.raises(StoreError, match=r"scores\.zarr: not complete"):
        flows.as_task(Step("select", fail, {}, "a.zarr"), Run())
    assert "Traceback" not in log.text


# ---------------------------------------------------------------- the program


def test_main__is_a_program(tmp_path):
    """Real: local Dask processes, Prefect's own temporary server, TensorFlow."""
    file = write_study(tmp_path / "tiny", n_samples=120, n_genes=80)
    overrides = [part for setting in SMALL for part in ("--set", setting)]
    environment = {
        k: v for k, v in os.environ.items() if k not in ("PREFECT_API_URL", "PREFECT_API_KEY")
    }
    done = subprocess.run(
        [sys.executable, REPO / "flows" / "mine.py", file, *overrides],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**environment, "PREFECT_HOME": str(tmp_path / "prefect")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"Report: {tmp_path}/tiny/study/report.html"
    assert (tmp_path / "tiny" / "study" / "report.html").is_file()
    assert "Planted hub genes: " in done.stdout
    assert "Traceback" not in done.stderr
    assert "Error logging to API" not in done.stderr  # the server is there until all is sent
    assert re.search(r"'normalize-\w+' - normalize: .*/normalized\.zarr new", done.stderr)


def test_start_server__that_does_not_answer_is_told_in_one_line(flows, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    def start(*_):
        raise RuntimeError("Timed out.")

    monkeypatch.setattr(flows.SubprocessASGIServer, "start", start)
    match = r"^Prefect: its temporary server does not answer within \d+ s: Timed out\. Run again"
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(DglzarrError, match=match),
    ):
        flows.start_server()


def test_main__wrong_settings_end_it_in_one_line_wherever_the_file_is(tmp_path):
    alone = shutil.copy(REPO / "flows" / "mine.py", tmp_path)
    done = subprocess.run(
        [sys.executable, alone, tmp_path / "nosuch.toml"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"{tmp_path}/nosuch.toml: cannot be read: No such file or directory.\n"
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "said"), [(None, "Failed to reach API"), (401, "401"), (500, "Failed to reach API")]
)
def test_called__a_server_that_does_not_answer_is_told_in_one_line(flows, settings, status, said):
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(status)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    place = f"127.0.0.1:{server.server_port}/api"
    if status is None:
        server.socket.close()
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    changed = {PREFECT_API_URL: f"http://me:secret@{place}", PREFECT_CLIENT_MAX_RETRIES: 0}
    try:
        with temporary_settings(changed), pytest.raises(DglzarrError) as told:
            flows.called("mine", settings)
    finally:
        if status:
            server.shutdown()
        server.server_close()
    assert f"Prefect: expected an answer of its server at http://{place}, got " in str(told.value)
    assert "secret" not in str(told.value)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("ours"),
        HTTPStatusError("422", request=Request("GET", "http://x"), response=Response(422)),
    ],
)
def test_called__what_is_no_server_that_is_away_stays_itself(flows, settings, monkeypatch, error):
    def fails(_settings):
        raise error

    monkeypatch.setitem(flows.FLOWS, "mine", fails)
    with pytest.raises(type(error)) as raised:
        flows.called("mine", settings)
    assert raised.value is error
