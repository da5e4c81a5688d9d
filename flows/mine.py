"""What is done with a study, as Prefect flows: ``python flows/mine.py study.toml`` mines it.

``--flow`` names another: refit, grow, discover, compare, stability, scrub or ingest. Order comes
from ``dglzarr.studies``, parallelism from Dask; this file adds tasks, artifacts, progress, one run
a root and logs. It stands alone: any folder and any copy of it will do where dglzarr[flows] is
installed. Without a configured server Prefect starts a temporary one of its own.
"""

from __future__ import annotations

import argparse
import logging
import re
import signal
import sys
import time
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dglzarr.studies.stopping import end, listen, stoppable

if __name__ == "__main__":
    listen()  # before what takes seconds to import

from httpx import HTTPError, HTTPStatusError
from prefect import Flow, flow, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State  # noqa: TC002  (prefect reads annotations)
from prefect.logging.handlers import APILogHandler
from prefect.runtime import deployment, flow_run
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from prefect.states import Failed

from dglzarr.cli import guarded
from dglzarr.errors import BucketError, BusyError, DglzarrError, StoreError
from dglzarr.query import verify_study
from dglzarr.report.comparison import comparison_rows, comparison_verdict
from dglzarr.report.text import headline, stability_lines, top_landmarks
from dglzarr.settings import Settings, load_settings
from dglzarr.storage.files import place_of
from dglzarr.storage.options import Run
from dglzarr.storage.study import MANIFEST, turn
from dglzarr.studies.cross_validate import cross_validate
from dglzarr.studies.discover import discover_more, discovered_lines
from dglzarr.studies.early import check_absolute, check_zones
from dglzarr.studies.grow import grow, grown_lines
from dglzarr.studies.plan import VERBS, Step, mine, refit
from dglzarr.studies.progress import rate_and_time_left
from dglzarr.studies.refusals import refusal_lines
from dglzarr.studies.stability import replicate
from dglzarr.testing import write_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from dglzarr.storage.store import StoreSummary

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_DAY = _WAIT_SECONDS = 24 * 3600
"""The longest wait for a root; it counts to the time of a flow, as Prefect has it."""


def study_flow(name: str, *, timeout_seconds: float) -> Callable[[Callable[P, R]], Flow[P, R]]:
    """Return a decorator that makes a flow named as its study; it does not run for ever."""
    return flow(
        name=name,
        flow_run_name="{settings.title}",
        persist_result=False,
        timeout_seconds=timeout_seconds,
    )


@study_flow("mine", timeout_seconds=7 * _DAY)
def mine_flow(
    settings: Settings, overwrite: bool = False, report_url: str = ""
) -> str | State[str]:
    """Mine a study; return the path of its report.

    ``report_url`` is where others read the report: the link that the run leaves. Without it the
    link is to the file, which opens on this machine alone.
    """

    def work() -> str:
        mine(settings, run=Run(overwrite), execute=as_task)
        return show_study(settings, report_url)

    return finished(settings, work, is_new=True)


@study_flow("refit", timeout_seconds=7 * _DAY)
def refit_flow(settings: Settings, report_url: str = "") -> str | State[str]:
    """Mine a study anew on all that it has grown by; return the path of its report."""

    def work() -> str:
        refit(settings, execute=as_task)
        return show_study(settings, report_url)

    return finished(settings, work)


@study_flow("ingest", timeout_seconds=_WAIT_SECONDS + _DAY)
def ingest_flow(settings: Settings, overwrite: bool = False) -> str | State[str]:
    """Read the sources of a study that is not mined yet; return the URI of its expression store."""

    def work() -> str:
        results = mine(settings, only=VERBS["ingest"], run=Run(overwrite), execute=as_task)
        return str(results["join"].uri)

    return finished(settings, work, is_new=True)


@study_flow("grow", timeout_seconds=_WAIT_SECONDS + _DAY)
def grow_flow(settings: Settings, report_url: str = "") -> list[str] | State[list[str]]:
    """Add the files that are new to a mined study; return what was added, in words.

    Without new files nothing is done, so that it can run every night.
    """
    return finished(settings, lambda: grow_and_tell(settings, report_url))


@study_flow("discover", timeout_seconds=_WAIT_SECONDS + _DAY)
def discover_flow(settings: Settings, report_url: str = "") -> list[str] | State[list[str]]:
    """Search GEO as ``[discover]`` says, and grow the study by what is new; return it, in words.

    What was refused is told with its reason; more than ``fetch.max_refused`` of all fails the run.
    """

    def work() -> list[str]:
        step = Step("discover", search, {"settings": settings}, settings.discover.list)
        found = tell("discovered", as_task(step, Run()))
        return [found[0], *grow_and_tell(settings, report_url)]

    return finished(settings, work)


@study_flow("compare", timeout_seconds=7 * _DAY)
def compare_flow(settings: Settings, report_url: str = "") -> list[str] | State[list[str]]:
    """Cross-validate panels over whole series; return the verdict, in words."""

    def work() -> list[str]:
        step = Step("compare", cross_validate, {"settings": settings}, settings.root)
        summary: StoreSummary = as_task(step, Run())
        link_report(settings, report_url)
        return tell("comparison", comparison_verdict(comparison_rows(summary.uri)))

    return finished(settings, work, is_new=True)


@study_flow("stability", timeout_seconds=7 * _DAY)
def stability_flow(settings: Settings, report_url: str = "") -> list[str] | State[list[str]]:
    """Train and score replicates of a study; return how far they agree, in words."""

    def work() -> list[str]:
        lines = stability_lines(replicate(settings, execute=as_task).uri)
        link_report(settings, report_url)
        return tell("stability", lines)

    return finished(settings, work)


@study_flow("scrub", timeout_seconds=7 * _DAY)
def scrub_flow(settings: Settings) -> int | State[int]:
    """Compare every object of a study with its digest; return how many stores and models were read.

    It fails where one is damaged, and names each fault.
    """

    def work() -> int:
        step = Step("scrub", scrub, {"root": settings.root}, settings.root)
        results: list[dict[str, Any]] = as_task(step, Run())
        wrong = [f"{found['uri']}: {problem}" for found in results for problem in found["problems"]]
        tell("scrub", wrong or [f"{len(results)} stores and models are as they were written."])
        if wrong:
            more = f" ({len(wrong)} faults in all; artifact scrub)" if len(wrong) > 1 else ""
            raise StoreError(f"{wrong[0]}{more}")
        return len(results)

    return finished(settings, work, reads_only=True)


def grow_and_tell(settings: Settings, report_url: str) -> list[str]:
    """Grow a study; leave and return what came, and what was refused and why, in words."""
    try:
        added = grow(settings, execute=as_task)
    finally:  # where too many were refused, they are told too
        for line in tell("refused", refusal_lines(settings.root) or ["Nothing was refused."]):
            get_run_logger().info("%s", line)
    if added:
        show_study(settings, report_url)
    return tell("growth", grown_lines(settings, added))


FLOWS: dict[str, Flow[..., Any]] = {
    "mine": mine_flow,
    "refit": refit_flow,
    "ingest": ingest_flow,
    "grow": grow_flow,
    "discover": discover_flow,
    "compare": compare_flow,
    "stability": stability_flow,
    "scrub": scrub_flow,
}


# ---------------------------------------------------------------- a run of a flow


def finished(settings: Settings, work: Callable[[], T], **how: bool) -> T | State[T]:
    """Return what work returns, done by one run a root; or a failure with a line that tells it.

    ``how`` is that of `one_run`. Prefect takes SIGTERM for itself while a flow runs, for its
    workers; a run by hand ends as any other program of ours.
    """
    by_hand = stoppable() if __name__ == "__main__" else nullcontext()
    try:
        check_absolute(settings)
        with by_hand, logged(), one_run(settings.root, **how):
            return work()
    except DglzarrError as error:
        stage = "".join(f"{note}: " for note in getattr(error, "__notes__", []))
        line = f"{stage}{error}".rstrip(".")
        return Failed(message=f"{line}. {_resume()}", data=error)


def _resume() -> str:
    name = f"{flow_run.flow_name}/{deployment.name}" if deployment.name else ""
    how = f"prefect deployment run '{name}'" if name else "run it again"
    return f"To go on: {how}; finished work is kept."


@contextmanager
def one_run(root: str, *, is_new: bool = False, reads_only: bool = False) -> Iterator[None]:
    """Wait until no other run changes a study, and hold it for this one.

    By the lock of the study itself, which a run that dies frees, and not by a limit of the server:
    that forgets who holds it when it is started anew, and nobody gets it again. Who reads only
    does so without it where the root cannot be written.
    """
    if deployment.id:
        with get_client(sync_client=True) as client:
            check_zones(client.read_deployment(deployment.id).schedules)
    with ExitStack() as stack:
        if is_new or place_of(root, MANIFEST).exists():
            try:
                stack.enter_context(turn(root, seconds=_WAIT_SECONDS, is_new=is_new))
            except (StoreError, BucketError) as error:
                if isinstance(error, BusyError) or not reads_only:
                    raise
        yield


@contextmanager
def logged() -> Iterator[None]:
    """Send what dglzarr logs to the log of the run."""
    logger, handler = logging.getLogger("dglzarr"), APILogHandler()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(before or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def show_study(settings: Settings, report_url: str) -> str:
    """Leave the panel, cautions and a link to the report; return the report's place."""
    what = "The genes of the panel, of a longer one the first 50."
    create_table_artifact(top_landmarks(settings.root), key="landmarks", description=what)
    tell("headline", headline(settings.root))
    return link_report(settings, report_url)


def link_report(settings: Settings, report_url: str) -> str:
    """Leave a link to the report, where there is one; return its place."""
    report = place_of(settings.root, "report.html")
    if report.is_file():
        link = report_url or (report.as_uri() if isinstance(report, Path) else str(report))
        create_link_artifact(link, link_text="Report", key="report")
    return str(report)


def tell(key: str, lines: list[str]) -> list[str]:
    """Leave lines for people, a line each, whatever is in them; return them."""
    create_markdown_artifact("\n".join(f"    {line}" for line in lines), key=key)
    return lines


def scrub(*, root: str, run: Run) -> list[dict[str, Any]]:
    """Return what a full read of each store and model of a study found."""
    return verify_study(root, on_progress=run.on_progress)


def search(*, settings: Settings, run: Run) -> list[str]:
    """Add new series to the list of a study; return them in words."""
    return discovered_lines(*discover_more(settings, on_progress=run.on_progress))


def as_task(step: Step, run: Run) -> Any:  # noqa: ANN401
    """Run one step as a Prefect task; it finds for itself what is done already.

    An error that dglzarr raises on purpose fails the task with its one line, without a traceback.
    """

    @task(name=step.name, cache_policy=NO_CACHE, persist_result=False)
    def made() -> Any:  # noqa: ANN401
        artifact: UUID = create_progress_artifact(  # type: ignore[assignment]
            0.0, key=f"progress-{step.name}", description=step.name
        )
        report = _progress(step.name, artifact)
        try:
            result = step(replace(run, on_progress=report))
        except DglzarrError as error:
            error.add_note(step.name)
            return Failed(message=str(error), data=error)
        state = getattr(result, "state", "written")
        update_progress_artifact(artifact, progress=100.0, description=state)
        get_run_logger().info("%s: %s %s", step.name, step.writes, state)
        return result

    return made(return_state=True).result()


def _progress(name: str, artifact: UUID) -> Callable[[str, int, int], None]:
    """Return a callback that keeps a progress artifact and a line on stderr up to date."""
    begun: dict[str, tuple[int, float]] = {}
    shown_at = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if done and done < total and now - shown_at < 5:
            return
        shown_at = now
        left = rate_and_time_left(begun.setdefault(what, (done, now)), (done, now), total)
        sys.stderr.write(f"{name}: {what} {done}/{total}{left}\n")
        update_progress_artifact(artifact, progress=100.0 * done / max(total, 1), description=what)

    return report


def called(name: str, settings: Settings, **given: object) -> Any:  # noqa: ANN401
    """Return what a flow returns.

    Raises
    ------
    DglzarrError
        When the flow fails, or its server does not answer, or not any more.
    """
    try:
        return FLOWS[name](settings, **given)
    except (HTTPError, RuntimeError) as error:
        # It is away, fails, or refuses the password; other errors of a request are not its.
        status = error.response.status_code if isinstance(error, HTTPStatusError) else 503
        is_away = isinstance(error, HTTPError) or "Failed to reach API" in str(error)
        if not is_away or status not in (401, 403, 404, *range(500, 600)):
            raise
        address = PREFECT_API_URL.value() or "a temporary address"
        line = re.sub(r"//[^/@\s]*@", "//", f"{address}, got {error!r:.300}")  # no password
        raise DglzarrError(
            f"Prefect: expected an answer of its server at {line}. Start it, or correct "
            f"PREFECT_API_URL and PREFECT_API_AUTH_STRING. {_resume()}"
        ) from error


def start_server() -> None:
    """Start Prefect's temporary server where none is configured, deaf to Ctrl-C: `main` ends it.

    A process is deaf to what is blocked in the thread that starts it.

    Raises
    ------
    DglzarrError
        When it does not answer in time.
    """
    seconds, failed = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value(), []

    def start() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            SubprocessASGIServer().start(seconds)
        except (RuntimeError, HTTPError) as error:
            failed.append(error)

    if not PREFECT_API_URL.value() and PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        thread = Thread(target=copy_context().run, args=(start,), daemon=True)
        thread.start()
        thread.join()
    if failed:
        raise DglzarrError(
            f"Prefect: its temporary server does not answer within {seconds} s: {failed[0]} Run "
            "again on a quieter machine, or set PREFECT_API_URL to a server that runs."
        ) from failed[0]


def main() -> None:
    """Run the flow on a settings file, or on the demo study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", help="settings file of a study; or 'demo': simulate one first")
    parser.add_argument("--flow", choices=FLOWS, default="mine", help="what is done; default mine")
    parser.add_argument("--set", action="append", default=[], help="section.key=value")
    parser.add_argument("--folder", help="folder of relative paths, root too")
    parser.add_argument("--overwrite", action="store_true", help="replace stores made otherwise")
    options = parser.parse_args()
    if options.overwrite and options.flow not in ("mine", "ingest"):
        parser.error(f"--overwrite: expected with flow mine or ingest, got {options.flow}")
    status = guarded(lambda: _run(options))
    if status > 128:  # stopped: it ends without Prefect's own exit handler, which sends logs first
        for server in list(SubprocessASGIServer._instances.values()):  # noqa: SLF001  (ours)
            server.stop()
    end(status)


def _run(options: argparse.Namespace) -> None:
    file = options.settings
    if file == "demo":
        file = write_study(Path("demo"))
    settings = load_settings(file, tuple(options.set), folder=options.folder)
    with temporary_settings(
        {
            PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120,
            PREFECT_SERVER_ANALYTICS_ENABLED: False,
        }
    ):
        start_server()
        given = {"overwrite": True} if options.overwrite else {}
        done: Any = called(options.flow, settings, **given)
    lines = done if isinstance(done, list) else [str(done)]
    if options.flow == "mine":
        lines = headline(settings.root, truth=Path(file).with_name("truth.json"))
    sys.stdout.write("\n".join(["", *lines, ""]))


if __name__ == "__main__":
    main()
