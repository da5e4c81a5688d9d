"""Turns functions of a request into endpoints: in few threads, with an answer for every error."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from dglzarr.errors import ConfigError, DglzarrError, SourceError
from dglzarr.serve.refusals import BadQuestion, Busy, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    Endpoint = Callable[[Request], Response]
    Apology = Callable[[Request, Refusal], Response]

logger = logging.getLogger(__name__)

N_THREADS, N_SLOW = 4, 2
MOST_WAITING = 400


class Desk:
    """Answers a few requests at once, keeps some waiting, and sends the rest away."""

    def __init__(self, n_threads: int = N_THREADS, most_waiting: int = MOST_WAITING) -> None:
        self._n_threads, self._most = n_threads, most_waiting
        self._limiter: anyio.CapacityLimiter | None = None
        self._n_waiting = 0

    def endpoint(
        self, answer: Endpoint, apologize: Apology
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return an endpoint; ``apologize`` makes the answer of a refusal."""

        async def handle(request: Request) -> Response:
            if self._limiter is None:  # it belongs to the loop that runs
                self._limiter = anyio.CapacityLimiter(self._n_threads)
            if self._n_waiting >= self._most:
                return apologize(request, Busy("Too many ask at once. Ask again in some seconds."))
            self._n_waiting += 1
            try:
                return await anyio.to_thread.run_sync(
                    answered, answer, apologize, request, limiter=self._limiter
                )
            finally:
                self._n_waiting -= 1

        return handle


def as_refusal(error: Refusal | ConfigError | SourceError) -> Refusal:
    """Return an error of the panel maker as what it is here: a question that was asked wrongly."""
    return error if isinstance(error, Refusal) else BadQuestion(str(error).replace("--", ""))


def answered(answer: Endpoint, apologize: Apology, request: Request) -> Response:
    """Return the answer to a request, or an apology that says what is wrong in one line."""
    try:
        return answer(request)
    except Refusal as refusal:
        return apologize(request, refusal)
    except (ConfigError, SourceError) as error:
        return apologize(request, as_refusal(error))
    except (DglzarrError, OSError) as error:
        logger.warning("%s: %s", request.url.path, error)
        why = "The study cannot be read at this moment; the terminal that serves it says why."
        return apologize(request, Busy(why))
    except Exception:  # whatever it is, a client gets no traceback
        logger.exception("%s", request.url.path)
        failed = Refusal("This could not be answered; the terminal that serves the study says why.")
        failed.status = 500
        return apologize(request, failed)
