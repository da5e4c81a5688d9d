"""What a request asks of a study, read once for the pages and for the API alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dglzarr.serve.questions import MOST_NAMES, Question
from dglzarr.serve.refusals import BadQuestion

if TYPE_CHECKING:
    from starlette.requests import Request

    from dglzarr.evaluation.order import Conditions
    from dglzarr.serve.answers import Answers
    from dglzarr.serve.shelf import Shelf

MOST_ROWS = 500


def asked(request: Request) -> tuple[Answers, Question]:
    """Return the study that a request names, and its parameters."""
    shelf: Shelf = request.app.state.shelf
    return shelf[request.path_params["study"]].answers(), Question(request.query_params)


def gene_asked(answers: Answers, question: Question) -> list[int]:
    """Return the features that the parameter ``name`` stands for."""
    return answers.find(question.needed("name"))


def found_genes(answers: Answers, question: Question) -> dict[str, Any]:
    """Return a page of what a search finds."""
    text = question.text("q")
    start = question.number("start", 0, low=0, high=10**8)
    n = question.number("n", 50, low=1, high=MOST_ROWS)
    found = answers.genes.search(text)
    near = answers.genes.near(text) if text and not found else []
    return {
        "q": text,
        "n_found": len(found),
        "start": start,
        "genes": [answers.gene(place) for place in found[start : start + n]],
        "near": near,
    }


def conditions(answers: Answers, question: Question) -> Conditions:
    """Return what a panel must be.

    Genes are names here and never files: a string would be read as one.
    """
    from dglzarr.evaluation.order import Conditions  # noqa: PLC0415  (it takes seconds)

    low, high = question.real("min_mean"), question.real("max_mean")
    most = min(MOST_NAMES, len(answers.genes))
    found = Conditions(
        size=question.number("size", 0, low=1, high=most) or min(200, most),
        include=_known(answers, question, "include"),
        exclude=_known(answers, question, "exclude"),
        exclude_controls=question.flag("exclude_controls"),
        exclude_unnamed=question.flag("exclude_unnamed"),
        min_mean=low,
        max_mean=high,
        start=question.choice("start", ["", "mined"]),
    )
    question.end()
    if found.start:
        answers.panel(found.start)  # or says that there is none
    return found


def _known(answers: Answers, question: Question, name: str) -> tuple[str, ...]:
    """Return names as the study has them, or say which it has not, with names like them."""
    names = question.names(name)
    unknown = [one for one in names if not answers.genes.find(one)]
    if unknown:
        listed = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" * (len(unknown) > 5))
        near = tuple(answers.genes.near(unknown[0]))
        raise BadQuestion(f"{name}: the study has no gene {listed}.", near)
    return tuple(map(answers.genes.official, names))
