"""GTEx by its release: where the expression is, in which unit, and the sheet of its samples.

The addresses are those that other people's scripts use; docs/data.md says what was tried.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dglzarr.access.fetch import entry_of
from dglzarr.access.http import AbsentError, RefusedError

if TYPE_CHECKING:
    from dglzarr.access.fetch import Fetcher
    from dglzarr.access.lock import Entry
    from dglzarr.kernels.scale import Unit

Release = Literal["v6", "v8", "v10", "v11"]
GtexValues = Literal["tpm", "reads"]
_TISSUE = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


@dataclass(frozen=True)
class _Files:
    """Paths below the address of GTEx; ``{}`` stands for tpm or reads, or for a tissue."""

    matrix: str
    by_tissue: str
    sheet: str


_METADATA = "annotations/{0}/metadata-files"
_V6 = "bulk-gex/v6p/rna-seq/GTEx_Analysis_v6p_RNA-seq_RNA-SeQCv1.1.8_gene_"
_RELEASES: dict[str, _Files] = {
    "v6": _Files(
        f"{_V6}{{values}}.gct.gz",
        "",
        f"{_METADATA.format('v6p')}/GTEx_Data_V6_Annotations_SampleAttributesDS.txt",
    ),
    "v8": _Files(
        "bulk-gex/v8/rna-seq/GTEx_Analysis_2017-06-05_v8_RNASeQCv1.1.9_gene_{values}.gct.gz",
        "bulk-gex/v8/rna-seq/{folder}-by-tissue/gene_{values}_2017-06-05_v8_{tissue}.gct.gz",
        f"{_METADATA.format('v8')}/GTEx_Analysis_v8_Annotations_SampleAttributesDS.txt",
    ),
    "v10": _Files(
        "bulk-gex/v10/rna-seq/GTEx_Analysis_v10_RNASeQCv2.4.2_gene_{values}.gct.gz",
        "bulk-gex/v10/rna-seq/{folder}-by-tissue/gene_{values}_v10_{tissue}.gct.gz",
        f"{_METADATA.format('v10')}/GTEx_Analysis_v10_Annotations_SampleAttributesDS.txt",
    ),
    "v11": _Files(
        "bulk-gex/v11/rna-seq/GTEx_Analysis_2025-08-22_v11_RNASeQCv2.4.3_gene_{values}.gct.gz",
        "bulk-gex/v11/rna-seq/{folder}-by-tissue/gene_{values}_v11_{tissue}.gct.gz",
        f"{_METADATA.format('v11')}/GTEx_Analysis_2025-08-22_v11_Annotations_SampleAttributesDS.txt",
    ),
}


def unit_of(release: str, values: str) -> Unit:
    """Return what the values of a release are: v6 has RPKM where later ones have TPM."""
    if values == "reads":
        return "counts"
    return "rpkm" if release == "v6" else "tpm"


def fetch_gtex(
    fetcher: Fetcher, release: str, values: str = "tpm", tissue: str | None = None
) -> list[Entry]:
    """Return the expression of a release and the sheet of its samples, in the cache.

    Raises
    ------
    RefusedError
        When it cannot be had.
    """
    files = _RELEASES[release]
    named = "rpkm" if unit_of(release, values) == "rpkm" else values
    path = files.matrix.format(values=named)
    if tissue is not None:
        if not files.by_tissue or not _TISSUE.fullmatch(tissue):
            raise RefusedError(
                "expected a tissue of v8 or later as in 'adipose_subcutaneous', got "
                f"{tissue!r} of {release}. Correct gtex or tissue"
            )
        folder = "tpms" if values == "tpm" else "counts"
        path = files.by_tissue.format(folder=folder, values=named, tissue=tissue)
    source = gtex_source(release, values, tissue)
    entries = []
    for kind, below in (("data", path), ("samples", files.sheet)):
        address = f"{fetcher.options.address('gtex')}/{below}"
        name = below.rpartition("/")[2]
        try:
            found = fetcher.get(address, name, is_gzip=name.endswith(".gz"))
        except AbsentError as error:
            raise AbsentError(
                f"{error}. GTEx may have given it another name: find it at gtexportal.org, "
                "and name its address as uri, with unit and sample_sheet"
            ) from error
        entries.append(entry_of(source, kind, address, found))
    return entries


def gtex_source(release: str, values: str, tissue: str | None) -> str:
    """Return what the lock calls a choice of GTEx.

    Examples
    --------
    >>> gtex_source("v8", "tpm", None), gtex_source("v10", "reads", "liver")
    ('gtex:v8/tpm', 'gtex:v10/reads/liver')
    """
    return "/".join([f"gtex:{release}", values, *([tissue] if tissue else [])])
