"""Ingest alone as a Prefect flow, for a schedule; files read before cost nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow
from prefect.client.schemas.objects import State  # noqa: TC002  (prefect reads annotations)
from prefect.states import Failed

from dglzarr.errors import DglzarrError
from dglzarr.settings import Settings  # noqa: TC001  (prefect reads annotations)
from dglzarr.storage.options import Run
from dglzarr.studies.plan import VERBS, mine
from flows.mine import as_task

if TYPE_CHECKING:
    from dglzarr.storage.store import StoreSummary


@flow(name="ingest", flow_run_name="{settings.title}", persist_result=False)
def ingest_flow(settings: Settings, overwrite: bool = False) -> str | State[str]:
    """Ingest the sources of a study; return the URI of its expression store."""
    try:
        results = mine(settings, only=VERBS["ingest"], run=Run(overwrite), execute=as_task)
    except DglzarrError as error:
        return Failed(message=str(error), data=error)
    summary: StoreSummary = results["join"]
    return summary.uri
