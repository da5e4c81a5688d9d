"""Groups of samples by a label, as batches and detection rates are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dglzarr.errors import ConfigError, hint
from dglzarr.sources.identifiers import is_told
from dglzarr.storage.rows import read_array

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


GROUPED_BY = ("series", "platform", "source", "label", "sample_label")


def grouping(target: str, by: str, place: str) -> list[str]:
    """Return the group of each sample; one without the label is in that of its series."""
    keys = label_values({name: read_array(target, name) for name in GROUPED_BY}, by, place)
    series = [str(name) for name in read_array(target, "series")]
    pairs = zip(keys, series, strict=True)
    return [key if is_told(key) else f"series {own}" for key, own in pairs]


def label_values(labels: Mapping[str, NDArray[Any]], by: str, place: str) -> list[str]:
    """Return the value of a label of each sample.

    Raises
    ------
    ConfigError
        When no sample has it.
    """
    names = [str(name) for name in labels["label"]]
    if by in ("series", "platform", "source"):
        cells = [str(name) for name in labels[by]]
    else:
        column = labels["sample_label"][:, names.index(by)] if by in names else ()
        cells = [str(cell) for cell in column]
    if not any(map(is_told, cells)):
        known = ["series", "platform", "source", *names]
        raise ConfigError(
            f"{place}: expected a label of the samples, got {by!r}{hint(by, known)}. They have "
            f"{', '.join(map(repr, known))}."
        )
    return cells
