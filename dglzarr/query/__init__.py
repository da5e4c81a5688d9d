"""Read-only questions to finished stores and studies; docs/ask.md shows how to ask.

``open`` and ``open_study`` return lazy Datasets and a DataTree; importing this package adds the
accessor ``.dgl`` to both. ``describe``, ``verify`` and ``table`` are what the command line prints.
Writes nothing.
"""

from dglzarr.query.checks import verify, verify_study
from dglzarr.query.questions import StoreQuestions, StudyQuestions
from dglzarr.query.stores import (
    describe,
    describe_study,
    gene_keys,
    is_study,
    open,  # noqa: A004  (dglzarr.open, as in xarray and zarr)
    resolve,
    stores,
)
from dglzarr.query.tables import table
from dglzarr.query.tree import open_study

__all__ = [
    "StoreQuestions",
    "StudyQuestions",
    "describe",
    "describe_study",
    "gene_keys",
    "is_study",
    "open",
    "open_study",
    "resolve",
    "stores",
    "table",
    "verify",
    "verify_study",
]
