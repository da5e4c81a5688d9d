"""The application: which address is answered by what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dglzarr.serve import api, objects, pages
from dglzarr.serve.desk import N_SLOW, Desk
from dglzarr.serve.guard import Guard
from dglzarr.serve.refusals import Refusal
from dglzarr.serve.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from dglzarr.serve.desk import Apology, Endpoint
    from dglzarr.serve.genes import Aliases

CACHE_NBYTES = 64 * 2**20
MOST_WAITING_ORDERS = 8
PAGES: dict[str, Endpoint] = {
    "/": pages.home,
    "/s/{study}": pages.study,
    "/s/{study}/": pages.study,
    "/s/{study}/search": pages.search,
    "/s/{study}/gene": pages.gene,
    "/s/{study}/latent": pages.latent,
    "/s/{study}/panel": pages.panel,
    "/s/{study}/compare": pages.compare,
    "/s/{study}/order": pages.order,
    "/s/{study}/data": pages.data,
    "/s/{study}/report": pages.report,
    "/s/{study}/report/{path:path}": pages.report,
}
ANSWERS: dict[str, Endpoint] = {
    "/api": api.studies,
    "/api/{study}": api.facts,
    **{f"/api/{{study}}/{name}": answer for name, answer in api.QUESTIONS.items()},
}
SLOW = (pages.order, api.order)


def build_app(
    roots: Sequence[str],
    *,
    token: str = "",
    hosts: Sequence[str] = (),
    cache_nbytes: int = CACHE_NBYTES,
    aliases: Aliases | None = None,
) -> Starlette:
    """Return the application over some studies.

    Parameters
    ----------
    roots
        Their folders.
    token, hosts
        As in `dglzarr.serve.guard.Guard`.
    cache_nbytes
        Of the values of genes that are kept in memory.
    aliases
        Other names of genes, as `dglzarr.serve.genes.GeneIndex` has them.
    """
    quick, slow, streams = Desk(), Desk(N_SLOW, MOST_WAITING_ORDERS), Desk()

    def routes(answers: dict[str, Endpoint], apologize: Apology) -> list[Route]:
        return [
            Route(path, (slow if answer in SLOW else quick).endpoint(answer, apologize))
            for path, answer in answers.items()
        ]

    files = StaticFiles(directory=Path(__file__).with_name("static"))
    app = Starlette(
        routes=[
            *routes(PAGES, pages.apologize),
            *routes(ANSWERS, api.apologize),
            Route("/data/{study}", streams.endpoint(objects.index, api.apologize)),
            Route("/data/{study}/{path:path}", streams.endpoint(objects.answer, _apologize)),
            Mount("/static", files),
        ],
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
        exception_handlers={HTTPException: _no_such_address},
    )
    app.router.redirect_slashes = False
    app.state.shelf = Shelf(roots, cache_nbytes=cache_nbytes, aliases=aliases)
    app.state.opened = objects.Opened()
    app.state.needs_token = bool(token)
    return app


def _apologize(_: Request, refusal: Refusal) -> Response:
    """Return a refusal as text, as readers of stores show it."""
    headers = {"retry-after": str(refusal.retry_after)} if refusal.retry_after else {}
    if isinstance(refusal, objects.BadRange):
        headers["content-range"] = f"bytes */{refusal.size}"
    return PlainTextResponse(f"{refusal}\n", refusal.status, headers)


def _no_such_address(request: Request, error: Exception) -> Response:
    refusal = Refusal("There is no such address here.")
    refusal.status = error.status_code if isinstance(error, HTTPException) else 404
    is_page = not request.url.path.startswith(("/api", "/data", "/static"))
    apologize = pages.apologize if is_page else api.apologize
    request.scope.setdefault("path_params", {})
    return apologize(request, refusal)
