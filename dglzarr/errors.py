"""The errors a user can cause; plain ValueError and TypeError serve bad arguments.

Wording everywhere: ``place: expected X, got Y. Remedy.``
"""


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
