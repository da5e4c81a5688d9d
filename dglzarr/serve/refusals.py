"""What is answered where a question cannot be: a status and one line, never a traceback."""

from __future__ import annotations

from dglzarr.errors import DglzarrError


class Refusal(DglzarrError):  # noqa: N818  (a kind of answer)
    """A question that is not answered as it was asked; ``near`` are names that may be meant."""

    status = 400
    retry_after = 0
    """Seconds after which it may be asked again, 0 where that would not help."""

    def __init__(self, message: str, near: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.near = near


class BadQuestion(Refusal):
    """A parameter is unknown, malformed or out of bounds."""


class NotFound(Refusal):
    """There is no such thing in the study."""

    status = 404


class NoGene(NotFound):
    """The study has no gene of such a name; ``near`` are names of genes."""


class NotMade(Refusal):
    """The study has no store that would tell; it may be made."""

    status = 404


class Gone(Refusal):
    """What was asked for has been replaced since it was opened."""

    status = 410


class Changed(Refusal):
    """An object that has not the tag that was expected of it."""

    status = 412


class Busy(Refusal):
    """What is asked for is being prepared, the study is being changed, or too many ask."""

    status = 503
    retry_after = 3
