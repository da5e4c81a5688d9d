"""Mine landmark genes from expression compendia.

The names below work on arrays in memory or open finished stores; stages, plans and runs are in
``dglzarr.stages`` and ``dglzarr.studies``. Importing dglzarr loads none of its libraries: each name
is found when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dglzarr.errors import ConfigError, DglzarrError, SchemaError, SourceError, StoreError
    from dglzarr.kernels.deeplift import deeplift_contributions
    from dglzarr.kernels.duplicates import find_near_duplicates
    from dglzarr.kernels.quantile import quantile_normalize
    from dglzarr.prediction.predict import predict
    from dglzarr.query import open, open_study  # noqa: A004  (as in xarray and zarr)

__all__ = [
    "ConfigError",
    "DglzarrError",
    "SchemaError",
    "SourceError",
    "StoreError",
    "deeplift_contributions",
    "find_near_duplicates",
    "open",
    "open_study",
    "predict",
    "quantile_normalize",
]

_HOMES = {
    "deeplift_contributions": "kernels.deeplift",
    "find_near_duplicates": "kernels.duplicates",
    "open": "query",
    "open_study": "query",
    "predict": "prediction.predict",
    "quantile_normalize": "kernels.quantile",
}


def __getattr__(name: str) -> object:
    """Return a public name from the module that owns it."""
    if name not in __all__:
        raise AttributeError(f"module 'dglzarr' has no attribute {name!r}")
    return getattr(import_module(f"dglzarr.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
