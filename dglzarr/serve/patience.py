"""How long a connection may hold its place while its client neither asks nor takes an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.h11_impl import RequestResponseCycle


class Patience(H11Protocol):
    """HTTP that ends a connection whose client is silent: uvicorn itself waits for ever.

    Attributes
    ----------
    ask_seconds
        From the connection, or the first byte of a question, to the end of its headers.
    take_seconds
        In which a client that is behind takes something of its answer, again and again.
    """

    ask_seconds = 15.0
    take_seconds = 60.0

    _asking: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    _waiting: int = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first question."""
        super().connection_made(transport)
        self._asking = self._ends_in(self.ask_seconds)

    def data_received(self, data: bytes) -> None:
        """Wait no more once a question is there, but for the rest of one."""
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            _cancel(self._asking)
            self._asking = None
        elif self._asking is None:
            self._asking = self._ends_in(self.ask_seconds)

    def pause_writing(self) -> None:
        """Wait for a client that is behind."""
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        """Wait no more."""
        super().resume_writing()
        _cancel(self._taking)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        _cancel(self._asking)
        _cancel(self._taking)
        super().connection_lost(exc)

    def _look_again(self) -> None:
        """Look after a while whether fewer bytes wait for the client than now."""
        self._waiting = self.transport.get_write_buffer_size()
        self._taking = self.loop.call_later(self.take_seconds, self._look)

    def _look(self) -> None:
        if self.transport.get_write_buffer_size() < self._waiting:
            self._look_again()
        else:
            self.transport.abort()

    def _ends_in(self, seconds: float) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
