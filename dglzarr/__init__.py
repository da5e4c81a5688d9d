"""Mine landmark genes from expression compendia.

The names below work on arrays in memory or open finished stores; the stages and the pipeline are
in ``dglzarr.stages`` and ``dglzarr.studies.plan``. Importing dglzarr loads neither TensorFlow nor
Prefect.
"""

from dglzarr.errors import ConfigError, DglzarrError, SchemaError, SourceError, StoreError
from dglzarr.kernels.deeplift import deeplift_contributions
from dglzarr.kernels.duplicates import find_near_duplicates
from dglzarr.kernels.quantile import quantile_normalize
from dglzarr.query import open  # noqa: A004  (as in xarray and zarr)

__all__ = [
    "ConfigError",
    "DglzarrError",
    "SchemaError",
    "SourceError",
    "StoreError",
    "deeplift_contributions",
    "find_near_duplicates",
    "open",
    "quantile_normalize",
]
