"""A study, or a panel of it, written whole to one file or folder of another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dglzarr.errors import ConfigError
from dglzarr.export.anndata import write_h5ad
from dglzarr.export.plain import write_zarr
from dglzarr.export.selected import select
from dglzarr.export.text import write_gct, write_parquet, write_tsv
from dglzarr.query.written import need_parquet
from dglzarr.storage.files import remove, sweep_place, told, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Format = Literal["h5ad", "gct", "tsv", "parquet", "zarr"]
FORMATS: tuple[Format, ...] = ("h5ad", "gct", "tsv", "parquet", "zarr")
_WRITERS = {"h5ad": write_h5ad, "gct": write_gct, "tsv": write_tsv, "parquet": write_parquet}


def export_study(
    root: str | Path,
    target: str | Path,
    form: Format,
    *,
    panel: str = "",
    genes: Sequence[str] = (),
    by_gene: bool = False,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[int, int]:
    """Write the normalized expression of a study with all labels; return samples and genes.

    Parameters
    ----------
    root
        Folder of the study.
    target
        File, or folder of a Zarr group, to write; nothing may stand there. It appears when it is
        whole; what a killed export left beside it is removed.
    form
        ``h5ad``, ``gct``, ``tsv``, ``parquet`` or ``zarr``.
    panel
        Genes of this panel alone, in its order.
    genes
        These genes alone, by any of their names.
    by_gene
        Of ``zarr``: gene by gene, for buckets.
    on_progress
        Called with what is done, and all there is to do.

    Raises
    ------
    ConfigError
        When a format, panel or gene is not known, or something stands at the target.
    StoreError
        When the study is not complete, or the target cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> export_study(study, f"{folder}/a.gct", "gct", panel="mined")
    (120, 12)
    """
    place = Path(target)
    if form not in FORMATS:
        raise ConfigError(f"--format: expected one of {', '.join(FORMATS)}, got {form!r}.")
    if by_gene and form != "zarr":
        raise ConfigError(f"--by-gene: expected with --format zarr, got {form}. Leave it out.")
    if form == "parquet":
        need_parquet()
    if place.exists():
        raise ConfigError(f"{place}: exists. Remove it, or choose another place with --output.")
    chosen = select(str(root), panel=panel, genes=genes, on_progress=on_progress)
    with told(str(place), remedy="Choose a writable place with free space."):
        sweep_place(place)
        with whole(place, if_absent=form != "zarr") as partial:
            try:
                if form == "zarr":
                    write_zarr(partial, chosen, by_gene=by_gene)
                else:
                    _WRITERS[form](partial, chosen)
            except BaseException:
                remove(partial)
                raise
    return chosen.shape
