"""Writes predictions: a Zarr store, an AnnData file, or tables; whole or not at all.

Samples are written block by block to the first two, so that memory does not grow with them.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dglzarr.errors import ConfigError
from dglzarr.prediction.bundle import load_bundle
from dglzarr.prediction.measured import MAX_MISSING, read_measured
from dglzarr.prediction.predict import Predictor
from dglzarr.query.h5ad import create_h5ad, mark, write_array, write_frame, write_texts
from dglzarr.storage.declare import shard_samples, text_array
from dglzarr.storage.files import file_input, sweep_place, told, whole
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import PREDICTION
from dglzarr.storage.store import (
    check_claim,
    create_store,
    finish,
    regions,
    take_claim,
    write_region,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dglzarr.kernels.panel_space import PanelScale
    from dglzarr.kernels.scale import Unit
    from dglzarr.prediction.measured import Measured
    from dglzarr.sources.base import SamplesIn

MATRICES = ("predicted", "lower", "upper")
TABLE_SAMPLES = 4096
"""Samples at most of a table of text."""

_KINDS = (".tsv", ".h5ad", ".zarr")


@dataclass(frozen=True, eq=False)
class Written:
    """Predictions that were written: where, of how much, and what should be known."""

    places: list[str]
    n_samples: int
    n_genes: int
    samples: pd.DataFrame
    notes: list[str]


def write_prediction(
    bundle: str | Path,
    measured: str | Path,
    output: str | Path,
    *,
    scale: PanelScale = "quantile",
    unit: Unit | None = None,
    max_missing: float = MAX_MISSING,
    samples_in: SamplesIn | None = None,
    run: Run = Run(),
) -> Written:
    """Write all other genes of a measured panel, with 95 % intervals.

    Parameters
    ----------
    bundle, measured
        A bundle; an expression file.
    output
        ``.zarr``: a store; ``.h5ad``: AnnData, with the interval as layers ``lower`` and
        ``upper``; ``.tsv``: a table of genes by samples, with ``.lower.tsv``, ``.upper.tsv``,
        ``.genes.tsv`` and ``.samples.tsv`` beside it.
    scale, unit, max_missing, samples_in
        As in `dglzarr.predict`.
    run
        Whether what stands there is replaced, and who is told of the progress.

    Raises
    ------
    ConfigError
        When the name says no format, or something stands there.
    SourceError, StoreError, SchemaError
        As in `dglzarr.predict`; when the disk refuses.
    """
    place = Path(output)
    if place.suffix not in _KINDS:
        raise ConfigError(f"--output: expected a name that ends in {_KINDS}, got '{output}'.")
    for one in [] if place.suffix == ".zarr" else _places(place):
        if one.exists() and (one.is_dir() or not run.overwrite):
            raise ConfigError(f"{one}: exists. Remove it, or give --overwrite or another --output.")
    loaded = load_bundle(bundle)
    predictor = Predictor(loaded, scale=scale, max_missing=max_missing)
    data = read_measured(
        measured, loaded, unit=unit, max_missing=max_missing, samples_in=samples_in
    )
    predictor.begin(data)
    parameters = {"scale": scale, "unit": unit or "log2", "max_missing": max_missing}
    job = _Job(
        predictor, data, place, parameters, {"bundle": loaded.place, "measured": str(measured)}, run
    )
    places = {".zarr": job.to_zarr, ".h5ad": job.to_anndata, ".tsv": job.to_tables}[place.suffix]()
    notes = [*data.notes, *predictor.notes(data)]
    n_genes = len(loaded.targets)
    return Written(places, len(data.samples), n_genes, predictor.samples(data), notes)


@dataclass(frozen=True, eq=False)
class _Job:
    """One file to be predicted and written."""

    predictor: Predictor
    data: Measured
    place: Path
    parameters: dict[str, Any]
    inputs: dict[str, str]
    run: Run

    def tell(self, done: int) -> None:
        if self.run.on_progress:
            self.run.on_progress("predicting samples", done, len(self.data.samples))

    # ------------------------------------------------------------ Zarr

    def to_zarr(self) -> list[str]:
        uri, names = str(self.place), self.predictor.bundle.targets
        asked = check_claim(uri, [PREDICTION], inputs=self.inputs, parameters=self.parameters)
        if asked.state == "refused" and not self.run.overwrite:
            why = "; ".join(map(str, asked.differences))
            raise ConfigError(
                f"{uri}: exists, made otherwise: {why}. Give --overwrite or another --output."
            )
        claim = take_claim(asked, overwrite=self.run.overwrite)
        labels = {
            "sample": text_array(self.data.samples),
            "gene": text_array(names.genes),
            "gene_symbol": text_array(names.symbols),
            "gene_id": text_array(names.gene_ids),
        }
        if claim.state == "new":
            create_store(claim, labels, region_length=shard_samples(len(self.data.samples)))
        for region in regions(uri):
            arrays = self._arrays(region.start, region.stop)
            if claim.state != "unchanged":
                write_region(uri, region, arrays)
        if claim.state != "unchanged":
            notes = [*self.data.notes, *self.predictor.notes(self.data)]
            finish(claim, arrays=self._told(), details={"notes": notes})
        return [uri]

    def _arrays(self, start: int, stop: int) -> dict[str, NDArray[np.float32]]:
        """Return the matrices of some samples."""
        shape = (stop - start, len(self.predictor.bundle.targets))
        found = {name: np.empty(shape, dtype=np.float32) for name in MATRICES}
        at = 0
        for block in self.predictor.blocks(self.data, start, stop):
            rows = slice(at, at + len(block.predicted))
            for name in MATRICES:
                found[name][rows] = getattr(block, name)
            at = rows.stop
            self.tell(start + at)
        return found

    def _told(self) -> dict[str, NDArray[Any]]:
        run = self.predictor
        return {
            "explained": run.bundle.of("explained", run.scale),
            "half_width": run.half_width,
            "gene_trusted": run.gene_trusted,
            "novelty": run.told("novelty").astype(np.float32),
            "n_imputed": run.told("n_imputed").astype(np.int32),
            "n_out_of_range": run.told("n_out_of_range").astype(np.int32),
            "lies_elsewhere": run.told("lies_elsewhere"),
            "sample_trusted": run.told("trusted"),
        }

    # ------------------------------------------------------------ AnnData

    def to_anndata(self) -> list[str]:
        """Write the layout of AnnData 0.8 and later, by h5py alone."""
        shape = (len(self.data.samples), len(self.predictor.bundle.targets))
        with told(str(self.place)), ExitStack() as made:
            self.place.parent.mkdir(parents=True, exist_ok=True)
            sweep_place(self.place)
            file = made.enter_context(create_h5ad(made.enter_context(whole(self.place))))
            layers = file["layers"]
            targets = [(file, "X"), (layers, "lower"), (layers, "upper")]
            arrays = [mark(of.create_dataset(n, shape, "f4"), "array") for of, n in targets]
            done = 0
            for block in self.predictor.blocks(self.data):
                rows = slice(done, done + len(block.predicted))
                for array, name in zip(arrays, MATRICES, strict=True):
                    array[rows] = getattr(block, name)
                done = rows.stop
                self.tell(done)
            for name, frame in (
                ("obs", self.predictor.samples(self.data)),
                ("var", self.predictor.genes()),
            ):
                write_frame(file, name, frame.reset_index(), with_categories=False)
            files = {role: path for role, path in self.inputs.items() if Path(path).is_file()}
            texts = {name: str(value) for name, value in self.parameters.items()}
            texts |= {role: file_input(path)["store_id"] for role, path in files.items()}
            write_texts(file["uns"], texts)
            notes = [*self.data.notes, *self.predictor.notes(self.data)]
            write_array(file["uns"], "notes", np.array(notes, dtype=object))
        return [str(self.place)]

    # ------------------------------------------------------------ tables

    def to_tables(self) -> list[str]:
        """Write tables with genes in rows, as they are read; that of predictions is the last."""
        n = len(self.data.samples)
        if n > TABLE_SAMPLES:
            raise ConfigError(
                f"--output: expected at most {TABLE_SAMPLES} samples for tables of text, got {n}. "
                "Take a name that ends in .zarr or .h5ad."
            )
        found = self._arrays(0, n)
        names = self.predictor.bundle.targets
        places = _places(self.place)
        with told(str(self.place)), ExitStack() as made:  # they take their places together
            for place in places:
                sweep_place(place)
            *matrices, samples, genes = [made.enter_context(whole(place)) for place in places]
            _table(genes, self.predictor.genes())
            _table(samples, self.predictor.samples(self.data))
            for what, path in zip(MATRICES, matrices, strict=True):
                table = pd.DataFrame(found.pop(what).T, names.genes, self.data.samples)
                _table(path, table.rename_axis("gene"))
            self.place.unlink(missing_ok=True)  # none stands beside tables of other predictions
        return [str(place) for place in places]


def _places(place: Path) -> list[Path]:
    """Return all that is written for one place; of a table the main one, then those beside it."""
    if place.suffix != ".tsv":
        return [place]
    return [place, *(place.with_suffix(f".{w}.tsv") for w in (*MATRICES[1:], "samples", "genes"))]


def _table(path: Path, table: pd.DataFrame) -> None:
    text = table.to_csv(sep="\t", float_format="%.5g", lineterminator="\n")
    path.write_bytes(text.encode("utf-8"))
