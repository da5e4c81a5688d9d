"""The stages as Prefect flows: all of them, ``python flows/mine.py study.toml``, or ingest alone.

Order comes from ``dglzarr.studies``, parallelism from Dask; this file adds tasks, artifacts and
progress. It stands alone: any folder and any copy of it will do where dglzarr[flows] is installed.
Without a configured server Prefect starts a temporary one of its own.
"""

from __future__ import annotations

from dglzarr.studies.stopping import end, listen

if __name__ == "__main__":
    listen()  # Prefect takes seconds to load

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State  # noqa: TC002  (prefect reads annotations)
from prefect.settings import (
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from prefect.states import Failed

from dglzarr.cli import guarded
from dglzarr.errors import DglzarrError
from dglzarr.report.text import headline, top_landmarks
from dglzarr.settings import Settings, load_settings
from dglzarr.storage.options import Run
from dglzarr.studies.early import check_absolute
from dglzarr.studies.plan import VERBS, Step, mine
from dglzarr.studies.progress import rate_and_time_left
from dglzarr.testing import write_study

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from dglzarr.storage.store import StoreSummary


@flow(name="mine", flow_run_name="{settings.title}", persist_result=False)
def mine_flow(settings: Settings, overwrite: bool = False) -> str | State[str]:
    """Mine a study; return the path of its report."""
    try:
        check_absolute(settings)
        results = mine(settings, run=Run(overwrite), execute=as_task)
    except DglzarrError as error:
        return Failed(message=str(error), data=error)
    create_table_artifact(
        top_landmarks(settings.root),
        key="landmarks",
        description="The genes of the panel, of a longer one the first 50.",
    )
    report = Path(results["report"]).resolve()
    create_link_artifact(report.as_uri(), link_text="Report", key="report")
    return str(report)


@flow(name="ingest", flow_run_name="{settings.title}", persist_result=False)
def ingest_flow(settings: Settings, overwrite: bool = False) -> str | State[str]:
    """Ingest the sources of a study; return the URI of its expression store.

    Files that were read before cost nothing, so that it can run on a schedule.
    """
    try:
        check_absolute(settings)
        results = mine(settings, only=VERBS["ingest"], run=Run(overwrite), execute=as_task)
    except DglzarrError as error:
        return Failed(message=str(error), data=error)
    summary: StoreSummary = results["join"]
    return summary.uri


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
            return Failed(message=str(error), data=error)
        state = "written" if isinstance(result, str) else result.state
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


def main() -> None:
    """Run the flow on a settings file, or on the demo study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", help="settings file of a study; or 'demo': simulate one first")
    parser.add_argument("--set", action="append", default=[], help="section.key=value")
    parser.add_argument("--folder", help="folder of relative paths, root too")
    parser.add_argument("--overwrite", action="store_true", help="replace stores made otherwise")
    options = parser.parse_args()
    end(guarded(lambda: _run(options)))


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
        mine_flow(settings, overwrite=options.overwrite)
    sys.stdout.write(
        "\n".join(["", *headline(settings.root, truth=Path(file).with_name("truth.json"))])
    )
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
