"""Tiny studies for tests: genuine files, stores with chosen values, and ways to compare stores."""

import contextlib
import hashlib
import itertools
import math
import shutil
import tarfile
import time
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dask
import numpy as np
import pytest
import zarr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dglzarr.models.files import Layer, save_model
from dglzarr.stages.ingest import SourceFile, SourceOptions, ingest_all
from dglzarr.stages.join import JoinOptions, join
from dglzarr.storage import objects, study
from dglzarr.storage.claims import Claim
from dglzarr.storage.declare import StoreSpec
from dglzarr.storage.files import open_filesystem
from dglzarr.storage.options import Run
from dglzarr.storage.schemas import CONTRIBUTIONS, EXPRESSION, LANDMARKS, NORMALIZED, RAW, SAMPLES
from dglzarr.storage.store import (
    StoreSummary,
    check_claim,
    create_store,
    finish,
    map_regions,
    open_store,
    regions,
    store_input,
    take_claim,
    write_region,
)
from dglzarr.testing import (
    SimulatedExpression,
    simulate_expression,
    write_gctx,
    write_series_matrix,
)

TRAIN, VALIDATION, TEST = 0, 1, 2
LENGTHS = (16, 48, 112)
_KONG2021 = Path(__file__).parents[1] / "deploy" / "settings" / "kong2021.toml"
_SIZES = ("hidden", "n_latent", "epochs", "batch_size")
KONG2021: dict[str, Any] = {
    name: value
    for name, value in tomllib.loads(_KONG2021.read_text("utf-8"))["train"].items()
    if name not in _SIZES
}
"""The paper's network, which was that of 0.1.0 by default, of any size."""
TINY_SETTINGS: dict[str, Any] = {
    "root": "study",
    "sources": [{"uri": "GSE*"}],
    "ingest": {"shard_samples": 16},
    "dedup": {"n_clusters": 4},
    "select": {"n_random": 3},
    "cluster": {"kind": "none"},
}


def text(values: Sequence[Any]) -> NDArray[Any]:
    return np.array([str(v) for v in values], dtype=np.dtypes.StringDType())


def simulate(n_samples: int = 100, n_genes: int = 40, **options: Any) -> SimulatedExpression:
    options = {"n_hubs": 8, "n_programs": 3, "n_series": 5, "n_duplicates": 6, **options}
    return simulate_expression(n_samples, n_genes, **options)


def draw(rng: np.random.Generator, n_samples: int = 8, n_genes: int = 12) -> NDArray[np.float32]:
    """Values as of log2 expression."""
    return rng.uniform(4, 14, (n_samples, n_genes)).astype(np.float32)


def splits(n_samples: int, *, n_test: int = 20, n_validation: int = 10) -> NDArray[np.int8]:
    """A split whose test and validation samples stand among the training samples."""
    split = np.zeros(n_samples, dtype=np.int8)
    chosen = np.random.default_rng(7).permutation(n_samples)
    split[chosen[:n_test]] = TEST
    split[chosen[n_test : n_test + n_validation]] = VALIDATION
    return split


def write_files(
    folder: Path, simulated: SimulatedExpression, *, raw_series: Sequence[str] = ()
) -> list[SourceFile]:
    """One series matrix a series, with the raw store it goes to."""
    series = np.array(simulated.series)
    sources = []
    for accession in sorted(set(simulated.series)):
        rows = np.flatnonzero(series == accession)
        path = write_series_matrix(
            folder / f"{accession}_series_matrix.txt",
            simulated.expression[rows],
            samples=[simulated.samples[i] for i in rows],
            genes=simulated.genes,
            series=accession,
            platform=simulated.platform[rows[0]],
            scale="raw" if accession in raw_series else "log2",
            tissue=[simulated.tissue[i] for i in rows],
        )
        sources.append(SourceFile(str(path), str(folder / "raw" / f"{accession}.zarr")))
    return sources


def write_source(
    folder: Path,
    name: str,
    values: Any,
    genes: Sequence[str] | None = None,
    *,
    samples: Sequence[str] | None = None,
    scale: Literal["log2", "raw"] = "log2",
    **options: Any,
) -> SourceFile:
    """A source of chosen values: a series matrix."""
    path = write_series_matrix(
        folder / f"{name}_series_matrix.txt.gz",
        np.asarray(values, dtype=np.float32),
        samples=samples or [f"{name}-{i}" for i in range(len(values))],
        genes=genes or [f"{i}_at" for i in range(np.shape(values)[1])],
        series=name,
        platform="GPL96",
        scale=scale,
    )
    return SourceFile(
        str(path), str(folder / "raw" / f"{name}.zarr"), options=SourceOptions(**options)
    )


def write_gctx_source(folder: Path, name: str, values: Any) -> SourceFile:
    """A source of chosen values: a GCTX."""
    path = write_gctx(
        folder / f"{name}_x.gctx",
        np.asarray(values, dtype=np.float32),
        samples=[f"{name}-{i}" for i in range(len(values))],
        genes=[f"{i}_at" for i in range(np.shape(values)[1])],
    )
    return SourceFile(str(path), str(folder / "raw" / f"{name}.zarr"))


def ingest_and_join(
    sources: Sequence[SourceFile],
    target: str,
    *,
    like: Sequence[str] = (),
    seed: int = 0,
    run: Run = Run(),  # noqa: B008  (it is frozen)
    **options: Any,
) -> StoreSummary:
    """The raw stores of some files, and those of role train joined."""
    ingest_all(sources, run=run)
    raws = [source.raw for source in sources if source.options.role == "train"]
    return join(raws, target, like=like, seed=seed, options=JoinOptions(**options), run=run)


def printed(values: Any) -> NDArray[np.float32]:
    """What a text file of five decimals gives back."""
    return np.array([[float(f"{v:.5f}") for v in row] for row in values], dtype=np.float32)


def write_matrix(
    uri: Path | str,
    spec: StoreSpec,
    values: NDArray[np.floating[Any]],
    *,
    split: NDArray[np.int8] | None = None,
    shard: int = 16,
    genes: Sequence[str] | None = None,
    symbols: Sequence[str] | None = None,
    ids: Sequence[str] | None = None,
    series: Sequence[str] | None = None,
    tissues: Sequence[Any] | None = None,
    called: Sequence[str] = ("tissue",),
    prefix: str = "s",
    details: dict[str, Any] | None = None,
    rate: NDArray[np.floating[Any]] | None = None,
) -> str:
    """A complete raw, expression or normalized store of chosen values; detection rates of all.

    ``tissues`` are the values of the labels that are ``called`` so, of each sample one or several.
    """
    uri = str(uri)
    n_samples, n_genes = values.shape
    genes = list(genes or [f"{i:03d}_at" for i in range(n_genes)])
    labels: dict[str, NDArray[Any]] = {
        "sample": text([f"{prefix}{i:03d}" for i in range(n_samples)]),
        "gene": text(genes),
        "gene_symbol": text(symbols or [""] * n_genes),
        "series": text(["GSE1"] * n_samples if series is None else series),
        "platform": text(["GPL96"] * n_samples),
        "label": text(called if tissues else []),
        "sample_label": text(np.ravel(tissues or [])).reshape(n_samples, -1 if tissues else 0),
    }
    if spec is not RAW:
        labels["gene_id"] = text(ids or [""] * n_genes)
        labels["source"] = labels["series"]
        labels["split"] = splits(n_samples) if split is None else split
    if spec is NORMALIZED:
        ordered = np.sort(np.nan_to_num(values.astype(np.float64), nan=8.0), axis=1)
        labels["quantile_reference"] = ordered.mean(axis=0)
        labels["quantile"] = np.arange(n_genes, dtype=np.int32)
    results: dict[str, NDArray[Any]] = {}
    if rate is not None:
        labels["detection_group"] = text(["all"])
        results = {
            "detection_rate": rate[np.newaxis].astype(np.float32),
            "n_detection": np.array([n_samples], np.int32),
        }
    claim = claimed(uri, spec)
    create_store(claim, labels, region_length=shard)
    for region in regions(uri):
        block = values[region.rows]
        arrays = {"expression": block}
        if spec is EXPRESSION:
            arrays["n_missing"] = np.isnan(block).sum(axis=1)
        write_region(uri, region, arrays)
    finish(claim, arrays=results, details=details or {})
    return uri


def claimed(
    uri: str,
    spec: StoreSpec,
    *,
    inputs: dict[str, str] | None = None,
    parameters: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Claim:
    """A claim that may be acted on."""
    asked = check_claim(uri, [spec], inputs=inputs or {}, parameters=parameters or {})
    return take_claim(asked, overwrite=overwrite)


def write_store(
    uri: Path | str,
    spec: StoreSpec,
    arrays: dict[str, Any],
    *,
    details: dict[str, Any] | None = None,
    parameters: dict[str, Any] | None = None,
) -> str:
    """A complete store without regions; arrays that are not given are empty, 0 or false."""
    uri = str(uri)
    given = {name: np.asarray(values) for name, values in arrays.items()}
    sizes = {dim: n for a in spec.arrays if a.name in given
             for dim, n in zip(a.dims, given[a.name].shape, strict=True)}  # fmt: skip
    for array in spec.arrays:
        if array.name in given or not array.required:
            continue
        size = [sizes[dim] for dim in array.dims]
        is_text = array.dtype == "str"
        given[array.name] = np.full(size, "") if is_text else np.zeros(size, array.dtype)
    labels = {a.name for a in spec.arrays if a.written == "create"}
    claim = claimed(uri, spec, parameters=parameters)
    create_store(claim, {name: given[name] for name in given if name in labels})
    finish(
        claim,
        arrays={name: given[name] for name in given if name not in labels},
        details=details or {},
    )
    return uri


def write_contributions(
    uri: Path | str,
    contribution: NDArray[np.float32],
    genes: Sequence[str],
    *,
    n_latent: int = 2,
    prefix: str = "s",
) -> str:
    """A complete contributions store of chosen values; of latent units nothing is known."""
    uri, (n_samples, n_genes) = str(uri), contribution.shape
    claim = claimed(uri, CONTRIBUTIONS)
    coords = {
        "sample": text([f"{prefix}{i:03d}" for i in range(n_samples)]),
        "gene": text(genes),
        "latent": np.arange(n_latent, dtype=np.int32),
        "region": np.arange(-(-n_samples // 16), dtype=np.int32),
        "reference": np.arange(1, dtype=np.int32),
        "deeplift_reference": np.zeros((1, n_genes), np.float32),
        "latent_weight": np.full(n_latent, 1 / n_latent),
    }
    create_store(claim, coords, region_length=16)
    for region in regions(uri):
        block = contribution[region.rows]
        arrays = {
            "latent_total": np.zeros((1, n_latent, n_genes)),
            "gene_total": block.sum(axis=0, dtype=np.float64)[np.newaxis],
            "n_scored": np.array([len(block)]),
            "delta_error": np.zeros(len(block), np.float32),
            "contribution": block,
        }
        write_region(uri, region, arrays)
    finish(claim)
    return uri


def write_landmarks(
    uri: Path | str, panels: dict[str, Sequence[str]], genes: dict[str, NDArray[Any]]
) -> str:
    """A complete landmarks store of chosen panels; ``genes`` are the labels of all genes."""
    n_positions = max(map(len, panels.values()))
    rows = [[*panel, *[""] * (n_positions - len(panel))] for panel in panels.values()]
    kinds = {"mined": "mined", "random": "random"}
    arrays = {
        **genes,
        "panel": text(list(panels)),
        "kind": text([kinds.get(name.partition("-")[0], "published") for name in panels]),
        "panel_gene": np.array(rows, dtype=np.dtypes.StringDType()),
        "position": np.arange(n_positions, dtype=np.int32),
    }
    return write_store(uri, LANDMARKS, arrays)


def write_samples(uri: Path | str, normalized: str, *, keep: NDArray[np.bool_]) -> str:
    """A complete samples store with a chosen mask; moments are numpy's."""
    uri = str(uri)
    ds = open_store(normalized, NORMALIZED)
    values = ds["expression"].values[keep & (ds["split"].values == TRAIN)].astype(np.float64)
    n_samples, n_genes = ds["expression"].shape
    coords = {"sample": ds["sample"].values, "gene": ds["gene"].values}
    sizes = {"sample": n_samples, "gene": n_genes}
    for array in SAMPLES.arrays:
        if array.is_coord and array.dims == (array.name,) and array.name not in coords:
            coords[array.name] = np.arange(1, dtype=np.int32)
    claim = claimed(uri, SAMPLES, inputs={"source": normalized})
    create_store(claim, coords)
    arrays = {
        array.name: np.zeros([sizes.get(dim, 1) for dim in array.dims])
        for array in SAMPLES.arrays
        if array.written == "finish"
    }
    with warnings.catch_warnings(action="ignore"):
        arrays |= {"gene_mean": np.nanmean(values, axis=0), "gene_std": np.nanstd(values, axis=0)}
    arrays |= {"keep": keep, "duplicate_of": text([""] * n_samples)}
    finish(claim, arrays=arrays)
    return uri


def write_model(
    path: Path | str,
    normalized: str,
    samples: str,
    *,
    seed: int = 0,
    lineage: Mapping[str, Any] | None = None,
) -> str:
    """An untrained model of genes - 12 - 4 - 12 - genes, recorded as another training's."""
    known = lineage or {"inputs": [store_input(u) for u in (normalized, samples)], "parameters": {}}
    ds, mask = open_store(normalized), open_store(samples)
    n_genes = ds.sizes["gene"]
    rng = np.random.default_rng(seed)
    widths = [n_genes, 12, 4, 12, n_genes]
    layers: list[Layer] = [
        (
            rng.normal(0, 0.5, (n_in, n_out)).astype(np.float32),
            rng.normal(0, 0.1, n_out).astype(np.float32),
            "linear" if i == 3 else "sigmoid",
        )
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths))
    ]
    save_model(
        Path(path),
        layers,
        config={"n_genes": n_genes, "seed": seed},
        genes=[str(g) for g in ds["gene"].values],
        gene_mean=mask["gene_mean"].values,
        gene_std=mask["gene_std"].values,
        inputs=known["inputs"],
        parameters=known["parameters"],
    )
    return str(path)


def write_manifest(root: Path | str, segments: Sequence[str]) -> None:
    """Replace a study's manifest, or write its first."""
    known = Path(root, study.MANIFEST).exists()
    here = study.open_study(str(root)) if known else study.Study(str(root), ())
    study.write_manifest(here, segments)


# ---------------------------------------------------------------- any store

N_GENES = 7


def whole_array(array, sizes):
    """Values that tell each element of an array from the others."""
    numbers = np.arange(math.prod(sizes[d] for d in array.dims))
    shape = tuple(sizes[d] for d in array.dims)
    if array.dtype == "str":
        return np.array([f"{array.name}-{i}" for i in numbers]).reshape(shape)
    return numbers.astype(array.dtype).reshape(shape)


class KnownStore:
    """A store of any spec with known values, to be written in steps."""

    def __init__(self, uri, spec=RAW, *, n_samples=70, region_length=16, first=0, n_genes=N_GENES):
        self.uri = str(uri)
        self.spec = spec
        self.region_length = region_length
        n_regions = math.ceil(n_samples / region_length)
        sizes = {"sample": n_samples, "gene": n_genes, "region": n_regions}
        self.sizes = {d: sizes.get(d, 3) for a in spec.arrays for d in a.dims}
        self.arrays = {"sample": np.array([f"s{i}" for i in range(first, first + n_samples)])}
        self.ran = []

    def __getitem__(self, name):
        if name not in self.arrays:
            self.arrays[name] = whole_array(self.spec[name], self.sizes)
        return self.arrays[name]

    def written(self, when):
        return {a.name: self[a.name] for a in self.spec.arrays if a.written == when}

    def claim(self, **options):
        return claimed(self.uri, self.spec, **options)

    def create(self, **options):
        length = self.region_length if self.spec.region_arrays else None
        create_store(self.claim(**options), self.written("create"), region_length=length)
        return self

    def values(self, region):
        own = slice(region.index, region.index + 1)
        return {
            a.name: self[a.name][own if a.dims[0] == "region" else region.rows]
            for a in self.spec.region_arrays
        }

    def write(self, uri, region):
        self.ran.append(region.index)
        write_region(uri, region, self.values(region))
        return region.index

    def write_missing(self):
        if self.spec.region_arrays:
            map_regions(self.write, self.uri, what="write")
        return self

    def finish(self, **options):
        claim = Claim(self.uri, (self.spec,), "new", dict, started=time.monotonic())
        return finish(claim, arrays=self.written("finish"), **options)

    def complete(self):
        self.create().write_missing().finish()
        return self


def set_attributes(uri, **changes):
    objects.set_attributes(str(uri), **changes)


def record_again(uri):
    """Take what stands in a store for what was written there."""
    filesystem, path = open_filesystem(str(uri))
    found = objects.list_objects(str(uri))
    record = {name: objects.measure(filesystem, f"{path}/{name}") for name in found}
    set_attributes(uri, objects_sha256=objects.write_record(str(uri), record))


def shard(uri, region, name="expression"):
    return Path(uri, name, "c", str(region), "0")


def older_study(folder: Path) -> Path:
    """The study that 0.1.0 mined, in a folder of its own."""
    archive = Path(__file__).parent / "data" / "study-0.1.0.tar.xz"
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / "study" / "mined"


# ---------------------------------------------------------------- comparisons


def digests(root: Path | str) -> dict[str, str]:
    """SHA-256 of every object but metadata, which carries a time and a name of its own."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(root).rglob("*"))
        if path.is_file() and path.name != "zarr.json"
    }


def shard_digests(store: KnownStore) -> dict[str, str]:
    """SHA-256 of every shard of expression."""
    return digests(Path(store.uri, "expression", "c"))


def times(root: Path | str) -> dict[str, int]:
    """When each file was last changed."""
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in sorted(Path(root).rglob("*"))
        if path.is_file()
    }


def wait_for(is_so: Callable[[], object], seconds: float = 100) -> None:
    """Look again and again until something is so; fail where it takes too long."""
    ends = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < ends
        time.sleep(0.01)


def remove_regions(uri: Path | str, names: Sequence[str], indices: Sequence[int]) -> None:
    """Take a store back to where it was before some regions were written."""
    zarr.open_group(str(uri), mode="r+").attrs.update({"complete": False})
    for name in names:
        for index in indices:
            place = Path(uri, name, "c", str(index))
            shutil.rmtree(place) if place.is_dir() else place.unlink()


class BrokenError(Exception):
    """Stands for whatever may stop a task."""


class Breaks:
    """A region function that fails after some calls."""

    def __init__(self, func: Any, after: int) -> None:
        self.func, self.left = func, after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self.left:
            raise BrokenError("broken")
        self.left -= 1
        return self.func(*args, **kwargs)


@contextlib.contextmanager
def no_computing() -> Iterator[None]:
    """Let every dask computation fail."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("computed")

    with dask.config.set(scheduler=refuse):
        yield


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """Write figures that show nothing: drawing is half of the work of a small study."""

    def written(_figure: Figure, file: Any, **how: object) -> None:
        file.write(b"<svg></svg>" if how["format"] == "svg" else b"")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", written)
        yield
