"""Public test data, as in sgkit: one fixture for tests, documentation, benchmarks and users."""

from dglzarr.testing.compendium import write_compendium
from dglzarr.testing.files import (
    FileScale,
    write_annotation,
    write_gct,
    write_gctx,
    write_series_matrix,
    write_soft,
    write_table,
)
from dglzarr.testing.simulate import SimulatedExpression, simulate_expression
from dglzarr.testing.study import write_study

__all__ = [
    "FileScale",
    "SimulatedExpression",
    "simulate_expression",
    "write_annotation",
    "write_compendium",
    "write_gct",
    "write_gctx",
    "write_series_matrix",
    "write_soft",
    "write_study",
    "write_table",
]
