"""What all flows share, and those beside mine: grow, compare, stability, scrub."""

import gzip
import json
import logging
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats

from benchmarks.mirror import series_folder, serving
from dglzarr.errors import StoreError
from dglzarr.settings import build_settings, load_settings
from dglzarr.storage.files import put
from dglzarr.storage.store import open_store
from dglzarr.storage.study import create_study, locked, open_study
from dglzarr.studies.plan import mine, refit
from dglzarr.studies.refusals import read_refused
from dglzarr.testing import write_study
from tests import bucket

pytestmark = pytest.mark.slow

SMALL = (
    "cluster.kind=none", "train.epochs=1", "train.hidden=8", "train.n_latent=3",
    "select.n_random=2", "compare.n_folds=2", "compare.sizes=[3]", "stability.n_seeds=2",
    "stability.n_halves=0", 'sources=[{uri="data/GSE*_series_matrix.txt.gz"}]',
)  # fmt: skip
LAST = "GSE900017_series_matrix.txt.gz"


@pytest.fixture(scope="module")
def mined(tmp_path_factory):
    """A mined study of all series but the last, which waits beside it."""
    folder = tmp_path_factory.mktemp("flows")
    file = write_study(folder, n_samples=120, n_genes=80)
    shutil.move(folder / "data" / LAST, folder / LAST)
    mine(load_settings(file, SMALL))
    return file


@pytest.fixture
def study(mined, tmp_path):
    shutil.copytree(mined.parent, tmp_path / "copy")
    return load_settings(tmp_path / "copy" / mined.name, SMALL)


def test_grow_flow__adds_what_is_new_and_nothing_twice(flows, study, artifact):
    assert flows.grow_flow(study) == ["Nothing to add: no new files."]
    folder = Path(study.root).parent
    shutil.move(folder / LAST, folder / "data" / LAST)
    told = flows.grow_flow(study, report_url="https://example.org/report.html")
    assert told[0].startswith("Added as segment 0001: ")
    assert open_study(study.root).segments == ("0000", "0001")
    assert "Added as segment 0001" in artifact("growth").data
    assert "Drift of segment 0001" in artifact("growth").data
    assert "Cautions:" in artifact("headline").data
    assert "https://example.org/report.html" in artifact("report").data
    assert flows.grow_flow(study) == ["Nothing to add: no new files."]
    n_scored = open_store(f"{study.root}/scores.zarr").attrs["details"]["n_scored"]
    assert Path(flows.refit_flow(study)) == Path(study.root) / "report.html"
    assert open_study(study.root).segments == ("0002",)
    assert open_store(f"{study.root}/scores.zarr").attrs["details"]["n_scored"] > n_scored


def test_link_report__of_a_study_in_a_bucket(flows, artifact, tmp_path, monkeypatch):
    pytest.importorskip("moto.server", reason="the S3 server is moto's")
    from prefect import Flow

    link_report = Flow(flows.link_report, validate_parameters=False, persist_result=False)
    with bucket.server(tmp_path) as endpoint:
        for name, value in bucket.environment(endpoint).items():
            monkeypatch.setenv(name, value)
        settings = SimpleNamespace(root=f"s3://{bucket.BUCKET}/study")
        put(f"{settings.root}/report.html", b"<p>Here.</p>")
        assert link_report(settings, "") == f"{settings.root}/report.html"
        assert f"({settings.root}/report.html)" in artifact("report").data
        link_report(settings, "https://example.org/report.html")
        assert "(https://example.org/report.html)" in artifact("report").data


def series(folder, accession, source, change=lambda text: text):
    """Serve a series matrix where GEO has it, made of another."""
    place = folder / series_folder(accession)
    place.mkdir(parents=True)
    text = change(gzip.decompress(source.read_bytes()).decode().replace(LAST[:9], accession))
    content = gzip.compress(text.encode(), mtime=0)
    (place / f"{accession}_series_matrix.txt.gz").write_bytes(content)


def centred(text):
    """Values around 0, as ratios are; samples of another name."""
    head, begin, body = text.partition("series_matrix_table_begin\n")
    rows = [row.split("\t") for row in body.split("\n")]
    for row in rows[1:]:
        row[1:] = [f"{(-1) ** n * (n + 1) / 7:.2f}" for n in range(len(row) - 1)]
    return (head + begin + "\n".join("\t".join(row) for row in rows)).replace("GSM", "GSM7")


@pytest.fixture
def found(study, monkeypatch, tmp_path):
    """A study that looks for series, of which NCBI has one to take and three to refuse."""
    folder, served = Path(study.root).parent, tmp_path / "served"
    series(served, "GSE900017", folder / LAST)
    series(served, "GSE900018", folder / LAST, centred)
    series(served, "GSE900020", folder / LAST)  # the samples of GSE900017 again
    listed = [
        {"uid": str(n), "accession": f"GSE{n}", "gpl": "96", "n_samples": 8, "taxon": "Homo",
         "pdat": "2026/01/02", "title": f"Series {n}"}
        for n in range(900017, 900021)
    ]  # fmt: skip
    (served / "eutils.json").write_text(json.dumps(listed))
    monkeypatch.setenv("DGLZARR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    table = str(folder / "discovered.tsv")
    local = study.sources[0].model_dump()
    changed = study.model_dump() | {
        "sources": [local, {"geo": table}],
        "discover": {"platforms": ["GPL96"], "list": table},
        "fetch": {"lock": str(folder / "sources.lock"), "requests_per_second": 10.0,
                  "first_wait": 0.02, "attempts": 2, "max_refused": 0.3},
    }  # fmt: skip
    with serving(served) as mirror:
        for name, value in mirror.environment().items():
            monkeypatch.setenv(name, value)
        yield type(study).model_validate(changed)


def test_discover_flow__takes_what_can_be_had_and_tells_of_the_rest(flows, found, artifact):
    told = flows.discover_flow(found)
    assert told[0] == "Found 4 series, 4 of them new."
    assert told[1].startswith("Added as segment 0001: ")
    left_out = told[told.index("Left out: 3 sources (refused.tsv).") + 1 :]
    assert [line[:9] for line in left_out] == ["GSE900018", "GSE900020", "GSE900019"]
    assert "look median-centred" in left_out[0]
    assert "samples are in GSE900017 too" in left_out[1]
    assert "expected a public series" in left_out[2]
    assert "GSE900018: 8 samples, Series 900018" in artifact("discovered").data
    assert all(line in artifact("refused").data for line in left_out)
    assert "Added as segment 0001" in artifact("growth").data
    again = flows.discover_flow(found)
    assert again[:2] == ["Found 4 series, 0 of them new.", "Nothing to add: no new files."]
    assert open_study(found.root).segments == ("0000", "0001")
    assert {*read_refused(found.root)} == {"GSE900018", "GSE900020", "geo:GSE900019"}
    refit(found)
    sources = {*open_store(open_study(found.root).uri("expression"))["source"].values}
    assert len(sources) == 17
    assert "GSE900017" in sources


def test_discover_flow__one_too_many_fails_it_with_the_list(flows, found, artifact):
    few = found.model_copy(update={"fetch": found.fetch.model_copy(update={"max_refused": 0.1})})
    state = flows.discover_flow(few, return_state=True)
    assert state.is_failed()
    assert "3 of 20 sources were refused, over fetch.max_refused = 0.1" in state.message
    assert "\n" not in state.message
    assert "GSE900018_series_matrix.txt.gz: expression values" in artifact("refused").data
    assert len(read_refused(few.root)) == 3
    assert open_study(few.root).segments == ("0000",)


def test_compare_flow__returns_the_verdict(flows, study, artifact):
    told = flows.compare_flow(study)
    assert told
    assert all(line in artifact("comparison").data for line in told)
    assert (Path(study.root) / "comparison.zarr").is_dir()


def test_stability_flow__says_what_is_chance(flows, study, artifact):
    """Halves of the samples differ, and so do their scores; seeds of so short a training do not."""
    halves = study.stability.model_copy(update={"n_halves": 1})
    told = flows.stability_flow(study.model_copy(update={"stability": halves}))
    assert all(line in artifact("stability").data for line in told)
    found = open_store(f"{study.root}/stability.zarr")
    size, scores = study.select.n_landmarks, found["score"].values
    assert told[0].startswith(
        f"By chance, two panels of {size} share {size / found.sizes['gene']:.1%}"
    )
    names = [str(name) for name in found["replicate"].values]
    first, second = (scores[n] for n, name in enumerate(names) if name.startswith("half-"))
    top = [{*np.argsort(-some, kind="stable")[:size]} for some in (first, second)]
    (line,) = [line for line in told if line.startswith("2 halves of the samples: ")]
    assert f"share {len(top[0] & top[1]) / size:.1%} of their genes" in line
    correlation = scipy.stats.spearmanr(first, second).statistic
    assert line.endswith(f"{correlation:.3f}")
    assert correlation < 0.999


def test_scrub_flow__reads_all_and_names_the_first_fault(flows, study, artifact):
    root = Path(study.root)
    n_read = len([*root.rglob("*.zarr"), *root.glob("models/*/model.json")])
    assert flows.scrub_flow(study) == n_read
    assert f"{n_read} stores and models are as they were written." in artifact("scrub").data
    shard = root / "segments" / "0000" / "normalized.zarr" / "expression" / "c" / "0" / "0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    state = flows.scrub_flow(study, return_state=True)
    assert state.is_failed()
    fault = "/normalized.zarr: expression, samples 0:96: expression/c/0/0 of 'expression' holds "
    assert fault in state.message
    assert "\n" not in state.message
    assert state.message.endswith("stage again. To go on: run it again; finished work is kept.")
    assert isinstance(state.result(raise_on_failure=False), StoreError)
    (line,) = artifact("scrub").data.splitlines()
    assert fault in line


def test_flows__of_a_study_that_is_not_there_fail_in_one_line(flows, study, tmp_path):
    gone = study.model_copy(update={"root": str(tmp_path / "none")})
    for run in (flows.grow_flow, flows.stability_flow, flows.scrub_flow):
        state = run(gone, return_state=True)
        assert state.is_failed()
        assert "no study here" in state.message
        assert "\n" not in state.message
    assert not (tmp_path / "none").exists()


def test_flows__a_relative_root_is_refused_in_one_line(flows, study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in (flows.mine_flow, flows.grow_flow, flows.scrub_flow):
        state = run(study.model_copy(update={"root": "study"}), return_state=True)
        assert state.is_failed()
        assert "root: expected an absolute path, since workers take a relative one" in state.message
        assert "\n" not in state.message
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(("active", "zone"), [(True, None), (False, None), (True, "UTC")])
def test_flows__a_cron_without_a_time_zone_is_refused_before_work(
    flows, client, tmp_path, monkeypatch, active, zone
):
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import CronSchedule

    timed = CronSchedule(cron="0 3 * * *", timezone=zone)
    made = client.create_deployment(
        client.create_flow(flows.scrub_flow), name=f"{active} {zone}",
        schedules=[DeploymentScheduleCreate(schedule=timed, active=active)],
    )  # fmt: skip
    monkeypatch.setattr(flows, "deployment", SimpleNamespace(id=str(made), name="scrub"))
    study = build_settings({"root": "none", "sources": [{"uri": "x"}]}, name="", folder=tmp_path)
    state = flows.scrub_flow(study, return_state=True)
    refused = "expected a time zone with cron '0 3 * * *', got none. Write timezone: beside it"
    assert state.is_failed()
    assert (refused in state.message) == (active and zone is None)
    assert ("no study here" in state.message) != (refused in state.message)


def test_one_run__others_wait_for_a_root_but_not_for_another(flows, tmp_path):
    from prefect import flow

    told = []

    def hold(root, name, seconds):
        @flow(name="holding", persist_result=False)
        def work():
            with flows.one_run(root, is_new=True):
                told.append(f"{name} begins")
                time.sleep(seconds)
                told.append(f"{name} ends")

        return threading.Thread(target=work)

    roots = [str(tmp_path / "one"), str(tmp_path / "other")]
    first = hold(roots[0], "first", 4)
    first.start()
    while "first begins" not in told:
        time.sleep(0.1)
    others = [hold(roots[0], "second", 0), hold(roots[1], "other", 0)]
    for thread in others:
        thread.start()
    for thread in (first, *others):
        thread.join()
    assert told.index("other ends") < told.index("second begins")
    assert told.index("first ends") < told.index("second begins")


def test_one_run__an_error_frees_the_root(flows, study, tmp_path):
    gone = study.model_copy(update={"root": str(tmp_path / "none")})
    assert "no study here" in flows.grow_flow(gone, return_state=True).message
    assert not Path(gone.root).exists()
    root = create_study(str(tmp_path / "study")).root
    with pytest.raises(StoreError, match="ours"), flows.one_run(root):
        raise StoreError("ours")
    with locked(root):
        pass


def test_one_run__who_reads_only_needs_no_root_to_write(flows, tmp_path, monkeypatch):
    @contextmanager
    def turn(root, **_):
        raise StoreError(f"{root}: cannot be written")
        yield

    root = create_study(str(tmp_path)).root
    monkeypatch.setattr(flows, "turn", turn)
    with flows.one_run(root, reads_only=True):
        pass
    with pytest.raises(StoreError, match="cannot be written"), flows.one_run(root):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(flows, "_WAIT_SECONDS", 0.01)
    with (
        locked(root),
        pytest.raises(StoreError, match="another run is changing"),
        flows.one_run(root, reads_only=True),
    ):
        pass


def test_logged__what_dglzarr_logs_is_in_the_log_of_the_run(flows, client):
    from prefect import flow
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

    @flow(name="logging", persist_result=False)
    def work():
        with flows.logged():
            logging.getLogger("dglzarr.stages").info("a line of ours")

    state = work(return_state=True)
    logging.getLogger("dglzarr.stages").info("no line of the run")
    asked = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[state.state_details.flow_run_id]))
    deadline = time.monotonic() + 60
    while not (said := [line.message for line in client.read_logs(log_filter=asked)]):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert "a line of ours" in said
    assert "no line of the run" not in said
