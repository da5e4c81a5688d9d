"""A server, a worker and deployments as shipped: schedules fire, dead runs are told of."""

import http.server
import json
import shutil
import threading

import pytest
import yaml

from dglzarr.settings import build_settings
from dglzarr.storage.study import open_study
from dglzarr.studies.plan import mine
from dglzarr.testing import write_study
from tests.prefect_server import REPO, SMALL, Server, deployed, postgresql, wait


@pytest.fixture
def server(tmp_path):
    started = Server(tmp_path)
    try:
        started.serve()
        yield started
    finally:
        started.stop()


@pytest.fixture
def server_on_postgresql(tmp_path):
    """Its state is in PostgreSQL, where that is installed (make parts)."""
    with postgresql() as database:
        started = Server(tmp_path, database)
        try:
            started.serve()
            yield started
            assert (tmp_path / "prefect" / "prefect.db").exists() == (not database)
        finally:
            started.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_schedule__the_nightly_growth_fires_and_adds_the_file_that_came(
    server_on_postgresql, tmp_path
):
    server = server_on_postgresql
    file = write_study(tmp_path, n_samples=120, n_genes=60)
    held = tmp_path / "GSE900017_series_matrix.txt.gz"
    shutil.move(file.parent / "data" / held.name, held)
    study = {
        "root": f"{tmp_path}/study", "sources": [{"uri": f"{tmp_path}/data/GSE*.gz"}], **SMALL
    }  # fmt: skip
    mine(build_settings(study, name="test", folder=tmp_path))
    server.call("work-pool", "create", "dglzarr", "--type", "process")
    deployed(server, "grow", study, each_minute=True)
    server.start("worker", "worker", "start", "--pool", "dglzarr")

    run, *_ = wait(lambda: server.runs("COMPLETED"), server)
    assert run["created_by"]["type"] == "SCHEDULE"
    assert open_study(str(tmp_path / "study")).segments == ("0000",)
    shutil.move(held, file.parent / "data" / held.name)  # the next day's file
    wait(lambda: open_study(str(tmp_path / "study")).segments == ("0000", "0001"), server)

    said = wait(lambda: server.log_of(run, "Finished in state Completed()"), server)
    print("\n".join(said))  # noqa: T201
    assert "bulk DML" not in server.log("server")


class _Ear(http.server.BaseHTTPRequestHandler):
    """Lets its server keep what it is told."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append(body.decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def ear():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ear) as listening:
        listening.heard = []
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


def watched(server, ear, **seconds):
    """Create the automations as shipped, but with a block of ours and, if asked, other times."""
    block = server.python(
        "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block\n"
        f"block = Block(name='us', url='http://127.0.0.1:{ear.server_port}', method='POST',\n"
        "    json_data={'text': '{{subject}} {{body}}'})\n"
        "print(block.save('us'))"
    ).strip()
    shipped = yaml.safe_load((REPO / "deploy" / "automations.yaml").read_text(encoding="utf-8"))
    ours = {one["name"]: one for one in shipped["automations"]}
    ours["dglzarr-failures"]["actions"][0]["block_document_id"] = block
    for name, within in seconds.items():
        ours[f"dglzarr-{name.replace('_', '-')}"]["trigger"]["within"] = within
    (server.folder / "automations.yaml").write_text(json.dumps(shipped), encoding="utf-8")
    server.call("automation", "create", "--from-file", "automations.yaml")


def at_work(server, folder, **training):
    """Deploy ``mine`` on a study and start a worker; return the file of a series, cut short."""
    file = write_study(folder, n_samples=120, n_genes=60)
    uri = f"{file.parent}/data/GSE*.gz"
    small = {**SMALL, "train": {**SMALL["train"], **training}}
    study = {"root": f"{folder}/study", "sources": [{"uri": uri}], **small}
    server.call("work-pool", "create", "dglzarr", "--type", "process")
    deployed(server, "mine", study)
    server.start("worker", "worker", "start", "--pool", "dglzarr")
    spoiled = file.parent / "data" / "GSE000001_series_matrix.txt.gz"
    spoiled.write_bytes(b"none")
    return spoiled


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_automations__dead_runs_are_marked_and_people_are_told(server, ear, tmp_path):
    """Worker and run are killed, at work and before its first word; who ends is left alone.

    The server finds out and tells an address of ours.
    """
    watched(server, ear, never_begun=40)
    spoiled = at_work(server, tmp_path, epochs=10**6, patience=10**6)
    server.call("deployment", "run", "mine/mine")
    (told,) = wait(lambda: ear.heard, server)
    assert "dglzarr: mine Failed ingest: GSE000001_series_matrix.txt.gz" in told
    assert "To go on: prefect deployment run 'mine/mine'; finished work is kept." in told
    (failed,) = server.runs("FAILED")
    spoiled.unlink()
    server.call("deployment", "run", "mine/mine")
    wait(lambda: list((tmp_path / "study" / "models").glob("*/checkpoint*")), server)

    server.kill_last()  # the worker and its run: nobody is left to say so
    (run,) = server.runs("RUNNING")
    wait(lambda: server.runs("CRASHED"), server)
    wait(lambda: ear.heard[1:], server)
    assert [one["id"] for one in server.runs("CRASHED")] == [run["id"]]
    (told,) = ear.heard[1:]
    assert "dglzarr: mine Crashed" in told
    assert "has not been heard of" in told
    assert "then prefect deployment run 'mine/mine'." in told

    server.start("worker", "worker", "start", "--pool", "dglzarr")
    server.call("deployment", "run", "mine/mine")
    (silent,) = wait(lambda: server.runs("PENDING"), server)
    server.kill_last()
    assert [one["id"] for one in server.runs("PENDING")] == [silent["id"]]
    wait(lambda: server.runs("CRASHED")[1:], server)
    wait(lambda: ear.heard[2:], server)
    assert {one["id"] for one in server.runs("CRASHED")} == {run["id"], silent["id"]}
    assert [one["id"] for one in server.runs("FAILED")] == [failed["id"]]
    (told,) = ear.heard[2:]
    assert "dglzarr: mine Crashed" in told
    assert "has not begun" in told
    assert "then prefect deployment run 'mine/mine'." in told
