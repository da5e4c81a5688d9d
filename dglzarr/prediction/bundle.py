"""The bundle: a panel and what predicts all other genes from it, as one file.

A zip that holds one Zarr store, ``bundle.zarr``, not compressed a second time: whatever reads Zarr
reads it, and unpacked it is the same bundle. Its objects are recorded with their digests, the
record with its SHA-256, so a bundle that was changed is refused. Nothing in it is code.
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dglzarr.errors import ConfigError, DglzarrError, SchemaError, StoreError
from dglzarr.kernels.panel_space import PANEL_SCALES, PanelSpace
from dglzarr.query import describe
from dglzarr.storage.files import sweep_place, told, whole
from dglzarr.storage.schemas import BUNDLE
from dglzarr.storage.store import open_store, read_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from dglzarr.kernels.panel_space import PanelScale

FOLDER = "bundle.zarr"
MOST_NBYTES = 2**33
"""Unpacked; a file that says more is no bundle."""

_SUFFIX = ".zip"
_DAMAGE = (OSError, ValueError, RuntimeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Names:
    """Labels, symbols and gene IDs of some features."""

    genes: list[str]
    symbols: list[str]
    gene_ids: list[str]

    def __len__(self) -> int:
        return len(self.genes)

    def called(self, places: NDArray[np.int64], n_shown: int = 5) -> str:
        """Return some of them as a person calls them."""
        shown = [self.symbols[i] or self.genes[i] for i in places[:n_shown]]
        return ", ".join(shown) + (", ..." if places.size > n_shown else "")


@dataclass(frozen=True, eq=False)
class Bundle:
    """What a bundle holds, in memory; arrays are named as in the store, see docs/stores.md."""

    place: str
    panel: Names
    targets: Names
    arrays: Mapping[str, NDArray[Any]]
    details: Mapping[str, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return an array."""
        return self.arrays[name]

    def of(self, name: str, scale: PanelScale) -> NDArray[Any]:
        """Return what an array says of one way of measuring."""
        found: NDArray[Any] = self.arrays[name][PANEL_SCALES.index(scale)]
        return found

    @cached_property
    def space(self) -> PanelSpace:
        """How the panel's own genes hang together."""
        ridge = float(self.details["alpha"]) / int(self.details["n_samples"])
        return PanelSpace.of(self.arrays["correlation"], ridge)


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse a place where a bundle cannot go.

    Raises
    ------
    ConfigError
        When its name does not say that it is a zip, or something stands there.
    """
    if output.suffix.lower() != _SUFFIX:
        raise ConfigError(f"--output: expected a name that ends in {_SUFFIX}, got '{output}'.")
    if output.is_dir() or (output.exists() and not overwrite):
        raise ConfigError(f"{output}: exists. Remove it, or give --overwrite or another --output.")


def pack(folder: Path, output: Path) -> None:
    """Write a finished store as a bundle, whole or not at all.

    Raises
    ------
    StoreError
        When the disk refuses.
    """
    with told(str(output)):
        output.parent.mkdir(parents=True, exist_ok=True)
        sweep_place(output)
        with whole(output) as partial, zipfile.ZipFile(partial, "w") as file:
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                file.write(path, f"{FOLDER}/{path.relative_to(folder).as_posix()}")


def load_bundle(place: str | Path) -> Bundle:
    """Return a bundle, checked and in memory.

    Parameters
    ----------
    place
        The file, or the folder that it was unpacked to.

    Raises
    ------
    StoreError
        When there is none, or it is not as it was written.
    SchemaError
        When it is of another version.
    """
    path = Path(place)
    if not path.exists():
        raise StoreError(f"{path}: no such bundle. Make one with 'dglzarr bundle STUDY'.")
    with _unpacked(path) as folder, _readable(path):
        ds = open_store(str(folder), BUNDLE)
        found = str(folder) if path.is_dir() else str(path)
        arrays = {str(name): ds[name].to_numpy() for name in ds.variables}
        attributes = read_attributes(str(folder)) or {}
    names = (("landmark", "landmark_symbol", "landmark_id"), ("gene", "gene_symbol", "gene_id"))
    panel, targets = (Names(*([str(v) for v in arrays[n]] for n in three)) for three in names)
    if tuple(str(scale) for scale in arrays["scale"]) != PANEL_SCALES:
        raise SchemaError(f"{path}: expected a bundle of scales {PANEL_SCALES}. Make it anew.")
    return Bundle(found, panel, targets, arrays, attributes["details"], attributes)


def describe_bundle(place: str | Path) -> dict[str, Any]:
    """Return schema, sizes, lineage and what a bundle was judged by, as of any store.

    Raises
    ------
    StoreError, SchemaError
        As `load_bundle`.
    """
    load_bundle(place)
    with _unpacked(Path(place)) as folder:
        return {**describe(str(folder)), "uri": str(place)}


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Yield the folder of a bundle's store."""
    if path.is_dir():
        yield path / FOLDER if (path / FOLDER).is_dir() else path
        return
    with tempfile.TemporaryDirectory(prefix="dglzarr-bundle-") as folder:
        with _readable(path), zipfile.ZipFile(path) as file:
            found = file.infolist()
            if {one.filename.partition("/")[0] for one in found} != {FOLDER}:
                raise StoreError(f"{path}: expected a bundle, got a zip of other files.")
            if sum(one.file_size for one in found) > MOST_NBYTES:
                raise StoreError(f"{path}: expected a bundle, got over {MOST_NBYTES:.0e} bytes.")
            file.extractall(folder)
        yield Path(folder, FOLDER)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever a damaged bundle raises into one line that names the file.

    Raises
    ------
    StoreError
        With the remedy.
    """
    remedy = "Get it anew from who made it, or make it with 'dglzarr bundle'."
    try:
        yield
    except SchemaError as error:
        raise SchemaError(f"{path}: {str(error).partition(': ')[2]} {remedy}") from error
    except DglzarrError as error:
        text = str(error)
        if text.startswith(f"{path}: expected a bundle"):
            raise
        what = text.partition(": ")[2].partition(". Remove")[0].removeprefix("cannot be read: ")
        raise StoreError(f"{path}: is no bundle as it was written: {what}. {remedy}") from error
    except _DAMAGE as error:
        what = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise StoreError(f"{path}: is no bundle as it was written: {what}. {remedy}") from error
