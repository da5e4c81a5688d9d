"""What is exported: samples, genes, what is known of them, and the values block by block."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import ConfigError, StoreError, hint
from dglzarr.kernels.slices import iter_slices
from dglzarr.query.answers import gene_table
from dglzarr.query.tree import open_study
from dglzarr.storage.declare import CHUNK_SAMPLES
from dglzarr.storage.rows import Rows
from dglzarr.storage.store import check_matrices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    Block = tuple[slice, NDArray[np.float32]]

_LINEAGE = (
    "uri", "store_id", "created", "dglzarr_version", "inputs", "parameters", "segments",
)  # fmt: skip
ROWS_NBYTES, COLUMNS_NBYTES = 2**23, 2**26
"""Of values that are in memory at once: of samples what a processor's cache holds, or nearly."""


@dataclass(frozen=True, eq=False)
class Selected:
    """Samples and genes of a study, to be written elsewhere.

    Attributes
    ----------
    tree
        The study.
    samples, genes
        What is known of each, a line each; the first column is its label.
    facts
        The same of genes as a Dataset, with ``latent_score`` where the study has scores.
    places
        Where the genes stand in the study, (gene,).
    on_progress
        Called with the samples, or genes, that are done, and all of them.
    """

    tree: xr.DataTree
    samples: pd.DataFrame
    genes: pd.DataFrame
    facts: xr.Dataset
    places: NDArray[np.int64]
    rows: Rows
    on_progress: Callable[[int, int], None]

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and genes."""
        return len(self.rows), self.places.size

    @property
    def attributes(self) -> dict[str, str]:
        """Where the values come from: attributes of the normalized store."""
        found = self.tree["normalized"].attrs
        return {name: str(found[name]) for name in _LINEAGE if name in found}

    def blocks(self, *, limit_nbytes: int = ROWS_NBYTES) -> Iterator[Block]:
        """Yield consecutive samples and their values (sample, gene), whole chunks of samples.

        Values are good until the next block is asked for, which is read while this one is worked
        on: the memory is used again.
        """
        n_samples, n_genes = self.shape
        windows = -(-n_samples // CHUNK_SAMPLES)
        parts = [
            slice(some.start * CHUNK_SAMPLES, min(some.stop * CHUNK_SAMPLES, n_samples))
            for some in iter_slices(windows, 4 * CHUNK_SAMPLES * n_genes, limit_nbytes=limit_nbytes)
        ]
        most = max(part.stop - part.start for part in parts)
        memories = [np.empty((most, n_genes), self.rows.dtype) for _ in parts[:2]]
        with ThreadPoolExecutor(1) as thread:
            coming = (
                thread.submit(self._read, part, memories[i % 2]) for i, part in enumerate(parts)
            )
            reading = next(coming)
            for part in parts:
                values, following = reading.result(), next(coming, None)
                yield part, values
                self.on_progress(part.stop, n_samples)
                reading = following or reading

    def _read(self, part: slice, memory: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the values of consecutive samples, of all genes in some memory."""
        index = np.arange(part.start, part.stop)
        is_whole = len(self.places) == self.rows.shape[1] and bool(
            (np.diff(self.places) == 1).all()
        )
        if is_whole:
            return self.rows.read_into(index, memory[: index.size])
        return self.rows.take(index, self.places)

    def gene_blocks(self, *, limit_nbytes: int = COLUMNS_NBYTES) -> Iterator[Block]:
        """Yield consecutive genes and their values (sample, gene), of all samples."""
        n_samples, n_genes = self.shape
        every = np.arange(n_samples)
        for part in iter_slices(n_genes, 4 * n_samples, limit_nbytes=limit_nbytes):
            yield part, self.rows.take(every, self.places[part])
            self.on_progress(part.stop, n_genes)


def select(
    root: str,
    *,
    panel: str = "",
    genes: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Selected:
    """Return all samples of a study, and its genes: all, those of a panel in its order, or some.

    Raises
    ------
    ConfigError
        When there is no such panel or gene.
    StoreError
        When the study is not complete, its panels and scores are of other genes, or values of all
        genes are asked for and are not as they were written.
    """
    tree = open_study(root)
    ask = tree.dgl
    if "normalized" not in tree.children:
        raise ConfigError(f"{root}: expected a study with 'normalized', got one without. Run it.")
    labels = tree["normalized"].dataset["gene"].values.tolist()
    if ask.names.labels != labels:
        raise StoreError(
            f"{root}: expected panels and scores of the genes of 'normalized', got those of others."
            " Run 'dglzarr mine' again."
        )
    if panel and genes:
        raise ConfigError("--panel: expected without --gene. Export twice.")
    if panel:
        places = ask.places(_genes_of(tree, panel))
    else:
        places = ask.names.find_all(genes) if genes else np.arange(len(labels))
    facts = ask.facts(places)
    every = np.arange(tree["normalized"].sizes["sample"])
    samples = ask.labels.table(every).to_dataframe().reset_index()
    segments = json.loads(tree["normalized"].attrs["segments"])  # those that the labels are of
    uris = [segment["uri"] for segment in segments]
    if not (panel or genes):  # all of it is read anyway, and what is written has no digests
        for uri in uris:
            check_matrices(uri)
    rows = Rows(uris)
    return Selected(tree, samples, gene_table(facts), facts, places, rows, on_progress)


def _genes_of(tree: xr.DataTree, panel: str) -> list[str]:
    if "landmarks" not in tree.children:
        raise ConfigError("--panel: expected a study with panels, got none. Run 'select'.")
    landmarks = tree["landmarks"].dataset
    names: list[Any] = landmarks["panel"].values.tolist()
    if panel not in names:
        raise ConfigError(
            f"--panel: expected one of {', '.join(map(str, names[:12]))}, got {panel[:60]!r}"
            f"{hint(panel, map(str, names))}."
        )
    labels = landmarks["panel_gene"].values[names.index(panel)]
    return [str(label) for label in labels if label]
