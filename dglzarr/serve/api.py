"""The answers as JSON, under ``/api``: the same that the pages show."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from dglzarr.serve import asked as ask
from dglzarr.serve.asked import MOST_ROWS, asked
from dglzarr.serve.groups import MOST_GROUPS, N_GROUPS, spread_rows
from dglzarr.serve.questions import Question
from dglzarr.storage.files import plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from dglzarr.evaluation.order import Ordered
    from dglzarr.serve.answers import Answers
    from dglzarr.serve.refusals import Refusal


def as_json(content: Any, status: int = 200) -> Response:  # noqa: ANN401
    """Return content as JSON; numbers that are not finite are null before."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode("utf-8", "backslashreplace"), status, media_type="application/json")


def apologize(_: Request, refusal: Refusal) -> Response:
    """Return a refusal as JSON."""
    content: dict[str, Any] = {"error": str(refusal)}
    if refusal.near:
        content["near"] = list(refusal.near)
    answer = as_json(content, refusal.status)
    if refusal.retry_after:
        answer.headers["retry-after"] = str(refusal.retry_after)
    return answer


def studies(request: Request) -> Response:
    """Tell which studies are served, and what may be asked of each."""
    Question(request.query_params).end()
    names = request.app.state.shelf.names
    return as_json({"studies": names, "questions": sorted(QUESTIONS)})


def facts(request: Request) -> Response:
    """Tell what a study is, in numbers."""
    answers, question = asked(request)
    question.end()
    return as_json(answers.facts())


def search(request: Request) -> Response:
    """Tell which genes a text may mean."""
    answers, question = asked(request)
    found = ask.found_genes(answers, question)
    question.end()
    return as_json(found)


def gene(request: Request) -> Response:
    """Tell what is known of each feature of a gene."""
    answers, question = asked(request)
    places = ask.gene_asked(answers, question)
    question.end()
    rows = [{**answers.gene(p), "panels": answers.memberships(p)} for p in places[:MOST_ROWS]]
    return as_json({"features": rows, "n_features": len(places)})


def expression(request: Request) -> Response:
    """Tell how a gene's expression spreads over the samples of each value of a label."""
    answers, place, by, n = _by_label(request)
    found = answers.expression(place, by, n)
    rows = spread_rows(found.pop("spreads"))
    return as_json({**answers.gene(place), **found, "groups": rows})


def scores(request: Request) -> Response:
    """Tell a gene's score within each value of a label."""
    answers, place, by, n = _by_label(request)
    return as_json({**answers.gene(place), **answers.scores_by(place, by, n)})


def _by_label(request: Request) -> tuple[Answers, int, str, int]:
    """Return a study, a gene, a label, and how many of its values are asked for."""
    answers, question = asked(request)
    place = ask.gene_asked(answers, question)[0]
    by = question.text("by")
    n = question.number("n", N_GROUPS, low=1, high=MOST_GROUPS)
    question.end()
    return answers, place, by, n


def neighbours(request: Request) -> Response:
    """Tell which genes are most correlated with a gene."""
    answers, question = asked(request)
    place = ask.gene_asked(answers, question)[0]
    n = question.number("n", 20, low=1, high=MOST_ROWS)
    question.end()
    return as_json({**answers.gene(place), "neighbours": answers.neighbours(place, n)})


def programs(request: Request) -> Response:
    """Tell which latent units use a gene most; or, of a unit, which genes."""
    answers, question = asked(request)
    n = question.number("n", 10, low=1, high=MOST_ROWS)
    if question.text("k"):
        latent = question.number("k", 0, low=0, high=10**6)
        question.end()
        return as_json({"latent": latent, "genes": answers.program(latent, n)})
    place = ask.gene_asked(answers, question)[0]
    question.end()
    return as_json({**answers.gene(place), "programs": answers.programs(place, n)})


def why(request: Request) -> Response:
    """Tell what a gene does on the panel and what can be had instead, or what stands for it."""
    answers, question = asked(request)
    place = ask.gene_asked(answers, question)[0]
    question.end()
    return as_json({**answers.gene(place), **answers.role(place)})


def panel(request: Request) -> Response:
    """Tell the genes of a panel."""
    answers, question = asked(request)
    name = question.text("panel", "mined")
    question.end()
    return as_json({"panel": name, "genes": answers.panel(name)})


def compare(request: Request) -> Response:
    """Tell what two panels share, and which predicts better."""
    answers, question = asked(request)
    name, other = question.needed("a"), question.needed("b")
    question.end()
    return as_json(answers.compare(name, other))


def order(request: Request) -> Response:
    """Tell a panel within conditions, and what they cost in error."""
    answers, question = asked(request)
    made = answers.order(ask.conditions(answers, question))
    return as_json(told(made))


def told(made: Ordered) -> dict[str, Any]:
    """Return a panel that can be ordered as JSON has it."""
    price = made.price["all"]
    rows = made.table.to_dict("records")
    return {
        "genes": [{str(key): plain(value) for key, value in row.items()} for row in rows],
        "error": plain(price.error),
        "error_without_conditions": plain(price.free),
        "cost_in_error": [plain(price.difference), plain(price.low), plain(price.high)],
        "n_left": made.n_left,
        "n_judged": made.n_judged,
        "notes": made.notes,
    }


QUESTIONS: dict[str, Callable[[Request], Response]] = {
    "genes": search,
    "gene": gene,
    "expression": expression,
    "scores": scores,
    "neighbours": neighbours,
    "programs": programs,
    "why": why,
    "panel": panel,
    "compare": compare,
    "order": order,
}
