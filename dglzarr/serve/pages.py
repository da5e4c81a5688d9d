"""The pages: what a study answers, as HTML. Whatever comes from files or people is escaped."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import jinja2
from starlette.responses import HTMLResponse, RedirectResponse

from dglzarr.errors import ConfigError, SourceError
from dglzarr.serve import asked as ask
from dglzarr.serve import draw, objects
from dglzarr.serve.asked import asked
from dglzarr.serve.desk import as_refusal
from dglzarr.serve.guard import REPORT_POLICY
from dglzarr.serve.questions import Question
from dglzarr.serve.refusals import Busy, NoGene, NotFound, NotMade, Refusal
from dglzarr.serve.sheets import sheet
from dglzarr.storage.files import place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response


N_NEIGHBOURS, N_PROGRAMS = 15, 8
REPORT_KINDS = {
    ".html": "text/html; charset=utf-8", ".tsv": "text/tab-separated-values; charset=utf-8",
    ".csv": "text/csv; charset=utf-8", ".svg": "image/svg+xml", ".png": "image/png",
    ".json": "application/json", ".yaml": "text/plain; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}  # fmt: skip


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Return the templates, whose values are escaped."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters["count"] = lambda n: f"{n:,}"
    found.filters["short"] = lambda x: "-" if x is None else f"{x:.4g}"
    found.filters["signed"] = lambda x: "-" if x is None else f"{x:+.4f}"
    found.globals["url"] = url
    found.globals["bar"] = draw.bar
    return found


def url(*parts: str, **parameters: object) -> str:
    """Return an address here, its parameters quoted."""
    path = "/".join(("", *parts))
    return f"{path}?{urlencode(parameters)}" if parameters else path


def page(template: str, status: int = 200, **context: Any) -> HTMLResponse:  # noqa: ANN401
    """Return a page."""
    here = template.removesuffix(".html")
    text = environment().get_template(template).render(context, here=here)
    return HTMLResponse(text.encode("utf-8", "replace"), status)


def apologize(request: Request, refusal: Refusal) -> Response:
    """Return a refusal as a page, with links to what may be meant."""
    study = request.path_params.get("study", "")
    known = study if study in request.app.state.shelf.names else ""
    answer = page(
        "sorry.html",
        refusal.status,
        study=known,
        message=str(refusal),
        near=refusal.near,
        are_genes=bool(known) and isinstance(refusal, NoGene),
        retry_after=refusal.retry_after,
    )
    if refusal.retry_after:
        answer.headers["retry-after"] = str(refusal.retry_after)
    return answer


def tried(ask_for: Callable[[], Any]) -> tuple[Any, str]:
    """Return a part of a page, or why it is not there: the rest of the page is."""
    try:
        return ask_for(), ""
    except (Busy, NotMade) as refusal:
        return None, str(refusal)


# ---------------------------------------------------------------- pages


def home(request: Request) -> Response:
    """Show the studies; of a single one its own page."""
    Question(request.query_params).end()
    names = request.app.state.shelf.names
    if len(names) == 1:
        return RedirectResponse(url("s", names[0], ""), 307)
    rows = []
    for name in names:
        try:
            rows.append((name, request.app.state.shelf[name].answers().facts(), ""))
        except Refusal as refusal:
            rows.append((name, None, str(refusal)))
        except OSError:
            rows.append((name, None, "It cannot be read."))
    return page("home.html", study="", rows=rows)


def study(request: Request) -> Response:
    """Show a study: what it is, and the first genes of its panel."""
    answers, question = asked(request)
    question.end()
    mined, why = tried(lambda: answers.panel("mined"))
    return page(
        "study.html",
        study=answers.name,
        facts=answers.facts(),
        genes=(mined or [])[:50],
        n_mined=len(mined or []),
        why=why,
        has_report=place_of(answers.root, "report.html").is_file(),
    )


def search(request: Request) -> Response:
    """Show which genes a text may mean."""
    answers, question = asked(request)
    found = ask.found_genes(answers, question)
    question.end()
    return page("search.html", study=answers.name, **found)


def gene(request: Request) -> Response:
    """Show all that is known of a gene."""
    answers, question = asked(request)
    name, by = question.needed("name"), question.text("by")
    question.end()
    places = answers.find(name)
    place = places[0]
    expression = answers.expression(place, by)
    scores, no_scores = tried(lambda: answers.scores_by(place, by))
    neighbours, no_neighbours = tried(lambda: answers.neighbours(place, N_NEIGHBOURS))
    programs, no_programs = tried(lambda: answers.programs(place, N_PROGRAMS))
    role, no_role = tried(lambda: answers.role(place))
    return page(
        "gene.html",
        study=answers.name,
        name=name,
        gene=answers.gene(place),
        others=[answers.gene(other) for other in places[1:50]],
        n_genes=len(answers.genes),
        n_mined=max(1, len(answers.panels.get("mined", ()))),
        panels=answers.memberships(place),
        labels=answers.labels,
        expression=expression,
        picture=draw.strips(expression["spreads"]),
        scores=scores,
        no_scores=no_scores,
        neighbours=neighbours,
        no_neighbours=no_neighbours,
        programs=programs,
        no_programs=no_programs,
        role=role,
        no_role=no_role,
        is_waiting="prepared" in f"{no_neighbours} {no_role}",
    )


def latent(request: Request) -> Response:
    """Show the genes that a latent unit uses most."""
    answers, question = asked(request)
    k = question.number("k", 0, low=0, high=10**6)
    question.end()
    genes = answers.program(k, 50)
    return page("latent.html", study=answers.name, k=k, latents=answers.latents, genes=genes)


def panel(request: Request) -> Response:
    """Show a panel, or give it as a file."""
    answers, question = asked(request)
    name = question.text("panel", "mined")
    kind = question.choice("as", ["html", "tsv", "csv"])
    question.end()
    genes = answers.panel(name)
    if kind != "html":
        return sheet(genes, f"{answers.name}-{name}", kind)
    return page("panel.html", study=answers.name, name=name, genes=genes, facts=answers.facts())


def compare(request: Request) -> Response:
    """Show what two panels share, and which predicts better."""
    answers, question = asked(request)
    panels = answers.facts()["panels"]
    others = [name for name in panels if name != "mined"]
    a, b = question.text("a", "mined"), question.text("b", others[0] if others else "mined")
    question.end()
    found = answers.compare(a, b)
    return page("compare.html", study=answers.name, facts=answers.facts(), a=a, b=b, found=found)


def order(request: Request) -> Response:
    """Show the form for a panel within conditions, and the panel; or give it as a file."""
    answers, question = asked(request)
    kind = question.choice("as", ["html", "tsv", "csv"])
    given = dict(request.query_params)
    made, refusal = None, None
    if given.keys() - {"as"} or kind != "html":
        try:
            made = answers.order(ask.conditions(answers, question))
        except (Refusal, ConfigError, SourceError) as error:
            if kind != "html":
                raise
            refusal = as_refusal(error)
    else:
        question.end()
        answers.maker.begin()  # it will be asked
    if made is not None and kind != "html":
        return sheet(made.table.to_dict("records"), f"{answers.name}-order", kind)
    asked_for = {name: value for name, value in given.items() if name != "as"}
    return page(
        "order.html",
        200 if refusal is None else refusal.status,
        study=answers.name,
        facts=answers.facts(),
        given=given,
        refusal=refusal,
        made=made,
        genes=[] if made is None else made.table.to_dict("records"),
        tsv=url("s", answers.name, "order", **asked_for, **{"as": "tsv"}),
        csv=url("s", answers.name, "order", **asked_for, **{"as": "csv"}),
    )


def data(request: Request) -> Response:
    """Show the addresses of the stores."""
    answers, question = asked(request)
    question.end()
    stores = objects.list_stores(answers.root)
    base = str(request.base_url).rstrip("/")
    return page(
        "data.html",
        study=answers.name,
        stores=stores,
        base=f"{base}/data/{answers.name}",
        example=next((s["path"] for s in stores if s["schema"] == "normalized"), "scores.zarr"),
        needs_token=request.app.state.needs_token,
    )


def report(request: Request) -> Response:
    """Give the report, or a file that was written with it; none of its scripts gets at anything."""
    answers, question = asked(request)
    question.end()
    if "path" not in request.path_params:
        return RedirectResponse(url("s", answers.name, "report", ""), 307)  # its links are relative
    path = request.path_params["path"] or "report.html"
    folder, _, name = path.rpartition("/")
    suffix = Path(name).suffix
    if folder not in ("", "figures", "report_data") or suffix not in REPORT_KINDS:
        raise NotFound("The report has no such file.")
    if not folder and suffix in (".json", ".yaml"):
        raise NotFound("The report has no such file.")
    answer = objects.whole_file(request, answers.root, path, REPORT_KINDS[suffix])
    answer.headers["content-security-policy"] = REPORT_POLICY
    return answer
