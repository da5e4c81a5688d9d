"""The errors a user can cause; plain ValueError and TypeError serve bad arguments.

Wording everywhere: ``place: expected X, got Y. Remedy.``
"""

from collections.abc import Iterable
from difflib import get_close_matches


def hint(got: str, known: Iterable[str]) -> str:
    """Return the known name that is most like what was given, as a question; "" without one.

    Examples
    --------
    >>> hint("Greedy", ["greedy", "medoids"]), hint("x", ["greedy"])
    (" (did you mean 'greedy'?)", '')
    """
    names = {name.lower(): name for name in known if name}
    found = get_close_matches(got.lower(), names, n=1)
    return f" (did you mean {names[found[0]]!r}?)" if found else ""


def shown(name: str) -> str:
    r"""Return a name that a user chose as it can stand within one line.

    Examples
    --------
    >>> shown("a b"), shown("a\nb")
    ('a b', "'a\\nb'")
    """
    return name if name.isprintable() else repr(name)


def one_line(text: str) -> str:
    r"""Return text as it can stand in a comment: what cannot be printed is a space, runs are one.

    Examples
    --------
    >>> one_line(" a\n\tb\x01c ")
    'a b c'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


NO_MEMORY = "no memory is left. Run again with more, or on fewer workers; finished work is kept."

NO_MEMORY_SIGNS = ("can't start new thread", "failed to map segment")
"""What Python and the loader of libraries say instead of a MemoryError."""


class DglzarrError(Exception):
    """Base of every error dglzarr raises on purpose."""


class ConfigError(DglzarrError, ValueError):
    """A settings file is wrong."""


class SourceError(DglzarrError, ValueError):
    """An input file is not what it should be; the message names file and line."""


class SchemaError(DglzarrError, ValueError):
    """A store or Dataset does not match its spec; the message lists every problem."""


class StoreError(DglzarrError, OSError):
    """A store exists already, is not complete, is foreign, or a region is misaligned."""


class BusyError(StoreError):
    """Another run is changing a study."""


class BucketError(DglzarrError):
    """What a bucket's server refuses for good; no OSError, so that none is taken for absence."""
