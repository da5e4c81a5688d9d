"""Where a gene stands in a study and why, in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dglzarr.errors import ConfigError
from dglzarr.evaluation.order import Conditions
from dglzarr.query.answers import gene_table

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.evaluation.order import PanelMaker

MINED = "mined"


def why(facts: xr.Dataset, places: NDArray[np.int64], maker: PanelMaker, *, root: str) -> list[str]:
    """Return some lines for every feature asked for: rank, panels, part on the mined panel.

    Parameters
    ----------
    facts
        What is known of every gene of the study.
    places
        Where those that are asked for stand in it.
    maker
        Of the study, and ``root`` its folder.

    Raises
    ------
    ConfigError
        When the study has no panel.
    """
    if "panel" not in facts.coords or MINED not in facts["panel"].values:
        raise ConfigError(
            f"{root}: expected a study with a mined panel, got none. Run 'dglzarr mine'."
        )
    size = int(facts["on_panel"].sel(panel=MINED).sum())
    ordered = maker.order(Conditions(size, start=MINED))
    is_copied = facts.sizes.get("latent", 0) >= facts.sizes["gene"]
    lines = []
    for row in gene_table(facts.isel(gene=places)).to_dict(orient="records"):
        lines.append(_place(row, size, facts.sizes["gene"]))
        known = f"{row['gene']} is not on the panel. "
        told = [
            line.removeprefix(known).replace(": on the panel before, ", ": ")
            for line in maker.why(ordered, row["gene"])
        ]
        lines += [f"  {line}" for line in (*told, *_known(row, is_copied=is_copied))]
    return lines


def _place(row: dict[Hashable, Any], size: int, n_genes: int) -> str:
    """Return where a gene stands."""
    symbol = row.get("gene_symbol")
    called = f"{symbol} ({row['gene']})" if symbol and symbol != row["gene"] else row["gene"]
    panels = row["panels"].split("; ")
    on = "on" if MINED in panels else "not on"
    others = [name for name in panels if name not in ("", MINED) and not _is_random(name)]
    if n_random := sum(map(_is_random, panels)):
        others.append(f"{n_random} random ones")
    also = f", on {', '.join(others)}" if others else ""
    return f"{called}: rank {row['rank']:,} of {n_genes:,}, {on} the mined panel of {size}{also}."


def _is_random(panel: str) -> bool:
    return panel.startswith("random-")


def _is_number(value: Any) -> bool:  # noqa: ANN401
    return value is not None and math.isfinite(value)


def _known(row: dict[Hashable, Any], *, is_copied: bool) -> list[str]:
    """Return what else is known of a gene, where the study has it."""
    lines = []
    if row.get("latent_units"):
        lines.append(f"Of the latent units it moves most (unit: score) {row['latent_units']}.")
    if _is_number(row.get("gene_mean")) and _is_number(row.get("gene_std")):
        lines.append(
            f"Expression over kept training samples: mean {row['gene_mean']:.2f}, standard "
            f"deviation {row['gene_std']:.2f} (log2)."
        )
    if _is_number(row.get("reconstruction_pcc")):
        but = ", which says nothing: its latent layer is as wide as the genes" if is_copied else ""
        lines.append(
            f"The network rebuilds its held-out values with r = {row['reconstruction_pcc']:.2f}"
            f"{but}."
        )
    return lines
