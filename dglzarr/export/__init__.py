"""A study for other programs: AnnData, GCT, tables, Parquet, and plain Zarr also gene by gene.

Reads stores region by region, so that no export holds the matrix; writes beside its target and
renames, so that what stands there is whole.
"""

from dglzarr.export.export import FORMATS, export_study

__all__ = ["FORMATS", "export_study"]
