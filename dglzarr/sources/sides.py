"""Sides of a split: what binds samples to one side, those of a study before them, and persons."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from dglzarr.errors import ConfigError, hint
from dglzarr.sources.chosen import series_of
from dglzarr.sources.identifiers import has_name, plain
from dglzarr.sources.persons import PERSONS, barcode_person, iter_persons

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray


logger = logging.getLogger(__name__)


@dataclass
class SplitLabels:
    """What samples can be split by."""

    sample: list[str]
    series: list[str]
    labels: dict[str, list[str]]
    sides: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Mapping[str, NDArray[Any]]) -> Self:
        """Return the labels of a store, or of what becomes one."""
        names, cells = found["label"].tolist(), found["sample_label"]
        return cls(
            found["sample"].tolist(),
            found["series"].tolist(),
            {str(name): cells[:, place].tolist() for place, name in enumerate(names)},
        )

    def keys(self, by: str) -> list[list[str]]:
        """Return what binds each sample; one without the label is bound to its series.

        Raises
        ------
        ConfigError
            When no sample has the label.
        """
        series = [series_of(name) or [""] for name in self.series]
        if by in ("series", "sample"):
            return series if by == "series" else [[sample] for sample in self.sample]
        cells = self.labels.get(by, [])
        if plain(by) in PERSONS:  # of a barcode the person, not the sample
            cells = [barcode_person(cell) or cell for cell in cells]
        if not any(map(has_name, cells)):
            known = ["series", "sample", *self.labels]
            raise ConfigError(
                f"ingest.split_by: expected a label of the samples, got {by!r}{hint(by, known)}. "
                f"They have {', '.join(map(repr, known))}."
            )
        n_without = sum(not has_name(cell) for cell in cells)
        if n_without:
            logger.warning("%d samples without %r are kept with their series", n_without, by)
        return [
            [cell] if has_name(cell) else [f"series {name}" for name in own]
            for cell, own in zip(cells, series, strict=True)
        ]

    def persons(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the labels that name persons, and whom each sample is of."""
        return iter_persons(self.labels, self.series)

    def follow(
        self,
        by: str,
        units: Sequence[str],
        split: NDArray[np.int8],
        old: SplitLabels,
        old_split: NDArray[np.int8],
    ) -> None:
        """Give the samples bound to those of a study the side that these have, in place.

        Raises
        ------
        ConfigError
            When they are bound to samples on two sides.
        """
        for name, whom in old.persons():
            self.sides |= {(name, w): int(s) for w, s in zip(whom, old_split, strict=True) if w}
        if by not in ("series", "sample", *old.labels):
            return
        is_known = by in ("series", "sample") or any(map(has_name, old.labels[by]))
        pairs = zip(old.keys(by) if is_known else [], old_split.tolist(), strict=False)
        side = {key: place for own, place in pairs for key in own}
        found: dict[str, set[int]] = {}
        for unit, own in zip(units, self.keys(by), strict=True):
            found.setdefault(unit, set()).update(side[key] for key in own if key in side)
        for place, unit in enumerate(units):
            if len(found[unit]) > 1:
                raise ConfigError(
                    f"sample {self.sample[place]!r}: expected {by} of one side of the study's "
                    f"split, got several, bound by {unit!r}. Leave the sample out."
                )
            split[place] = next(iter(found[unit]), split[place])

    def refuse_divided(self, by: str, split: NDArray[np.int8]) -> None:
        """Refuse a split with samples of one person on several sides.

        Raises
        ------
        ConfigError
            Naming a person, and the label to split by.
        """
        for name, whom in self.persons():
            divided: list[str] = []
            for person, side in zip(whom, split.tolist(), strict=True):
                if person and self.sides.setdefault((name, person), side) != side:
                    divided.append(person)
            if divided:
                raise ConfigError(
                    f"ingest.split_by {by!r}: expected all samples of a person on one side of the "
                    f"split, got those of {divided[0]!r} and {len(set(divided)) - 1} more (label "
                    f"{name!r}) on several. Set ingest.split_by = {name!r}; or, where that label "
                    "names no persons, ingest.divide_persons = true."
                )
