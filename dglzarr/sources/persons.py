"""Whom samples are of: donors and patients, told by labels or by the barcodes of GTEx and TCGA.

A donor gives about 20 samples to GTEx, so that a split by sample would test on known people.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from dglzarr.sources.base import Source
from dglzarr.sources.chosen import studies_of
from dglzarr.sources.identifiers import has_name, plain

PERSONS = tuple(
    f"{person}{end}"
    for person in ("donor", "patient", "subject", "individual", "participant", "subj")
    for end in ("", "id", "identifier", "number", "no", "barcode")
)
"""Labels that name a person: lower case, letters and digits only."""

_BARCODE = re.compile(r"(GTEX-[A-Z0-9]+|K-562|TCGA-\w\w-[A-Z0-9]{4})(-.*)?", re.IGNORECASE)
_MOST = 0.9
_TISSUES = ("SMTSD", "SMTS")


def barcode_person(name: str) -> str:
    """Return the donor in a sample's barcode of GTEx or TCGA, also with R's dots; "" for none.

    Examples
    --------
    >>> barcode_person("GTEX-1117F-0226-SM-5GZZ7"), barcode_person("TCGA.A1.A0SB.01A")
    ('GTEX-1117F', 'TCGA-A1-A0SB')
    """
    found = _BARCODE.fullmatch(name.replace(".", "-"))
    return found[1].upper() if found else ""


def name_persons(source: Source) -> Source:
    """Return a source with labels that its samples imply: donors of barcodes, tissues of GTEx."""
    labels = dict(source.labels)
    tissue = next((labels[name] for name in _TISSUES if name in labels), None)
    if tissue is not None and "tissue" not in labels:
        labels["tissue"] = tissue
    persons = [barcode_person(sample) for sample in source.samples]
    is_named = sum(map(bool, persons)) >= _MOST * len(persons)
    if is_named and not any(plain(name) in PERSONS for name in labels):
        labels["donor"] = persons
    return replace(source, labels=labels)


def iter_persons(
    labels: Mapping[str, Sequence[str]], series: Sequence[str]
) -> Iterator[tuple[str, list[str]]]:
    """Yield each label that names persons, and who each sample is of, "" where unknown.

    A number or name alone stands for a person of its study; a barcode for one of all studies.
    """
    studies = studies_of(series)
    for name, cells in labels.items():
        if plain(name) in PERSONS:
            yield (
                name,
                [
                    barcode_person(cell) or (f"{own}: {cell}" if has_name(cell) else "")
                    for cell, own in zip(cells, studies, strict=True)
                ],
            )
