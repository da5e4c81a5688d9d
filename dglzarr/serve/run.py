"""Runs the application until somebody ends it."""

from __future__ import annotations

import ipaddress
import logging
import os
import resource
import socket
from typing import TYPE_CHECKING

import uvicorn

from dglzarr.errors import ConfigError
from dglzarr.serve.app import build_app
from dglzarr.serve.guard import SHORTEST_TOKEN, new_token
from dglzarr.serve.patience import Patience
from dglzarr.storage.study import open_study

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dglzarr.serve.genes import Aliases

TOKEN = "DGLZARR_TOKEN"  # noqa: S105  (the name of a variable)
MOST_CONNECTIONS = 512
MOST_FILES = 2**16
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def serve(
    roots: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    cache_nbytes: int,
    aliases: str = "",
    say: Callable[[str], object],
) -> None:
    """Serve some studies until a signal ends it.

    Parameters
    ----------
    roots
        Folders of studies.
    host, port
        Where to listen; a port of 0 takes a free one. At any other host than this machine's own
        a token is asked for: that of ``DGLZARR_TOKEN``, else a new one, which is told once.
    cache_nbytes
        Of the values of genes that are kept in memory.
    aliases
        A table of other names of genes, as for `dglzarr.open_study`.
    say
        Takes what is to be told to who started it.

    Raises
    ------
    StoreError
        When a root is no study.
    ConfigError
        When the place cannot be listened at, or the token is short.
    SourceError
        When the file of aliases is not one.
    """
    for root in roots:
        open_study(root)
    is_here = _is_loopback(host)
    token = os.environ.get(TOKEN, "") or ("" if is_here else new_token())
    if token and len(token) < SHORTEST_TOKEN:
        raise ConfigError(
            f"{TOKEN}: expected at least {SHORTEST_TOKEN} characters, got {len(token)}. "
            "Unset it, and a good one is made."
        )
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    app = build_app(
        [root.rstrip("/") or "/" for root in roots],
        token=token,
        hosts=LOOPBACK if is_here else (),
        cache_nbytes=cache_nbytes,
        aliases=_read_aliases(aliases) if aliases else None,
    )
    app.state.shelf.begin()
    _allow_files()
    shown = f"[{host}]" if ":" in host else host
    query = f"?token={token}" if token and TOKEN not in os.environ else ""
    names = ", ".join(app.state.shelf.names)
    say(f"Serving {names} at http://{shown}:{port}/{query} (Ctrl-C ends it)")
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="asyncio",
        http=Patience,
        ws="none",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        backlog=1024,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=2**15,
    )
    uvicorn.Server(settings).run(sockets=[listening])


def _read_aliases(path: str) -> Aliases:
    from dglzarr.sources.aliases import read_aliases  # noqa: PLC0415  (pandas takes a second)

    return read_aliases(path)


def _allow_files() -> None:
    """Let this process have as many files open as it may: connections and shards are such."""
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if most != resource.RLIM_INFINITY and most < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port}: cannot be listened at: {_reason(error)}. Choose another --port, or 0 "
            "for any."
        ) from error


def _reason(error: OSError) -> str:
    number = error.errno or 0
    return os.strerror(number) if number > 0 else str(error.strerror or error)
