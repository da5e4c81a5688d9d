"""Compare two mined studies: every array of every store, the weights of models, the clusters.

    python benchmarks/compare_studies.py OLD NEW --from samples/cluster samples/centroid

Stores are matched by where they stand in the study, whatever made them: this reads Zarr and NumPy's
files alone. An array is equal in every value, or near, where its name is among those that may be
(--near) and no value is off by more than a millionth, or different. Of samples stores the inertia
of the clusters is printed too: the sum over training samples of the squared distance of the
projection to the nearest mean of a cluster. Exit status 1 when an array differs, or stands in one
study only, and is not of those that may (--from).
"""

from __future__ import annotations

import argparse
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

TOLERANCE = 1e-6
FROM_CLUSTERS = ("samples/cluster", "samples/centroid")
NEAR = ("groups/ari", "groups/nmi", "groups/silhouette", "groups/tree")
_IDENTITY = re.compile(r"^[0-9a-f]{8}$")  # names a folder of replicates, another in every study
_BLOCK = 2048


def places(root: Path) -> dict[str, Path]:
    """Return the stores and the weights of models below a study, by their place in it."""
    found = [path.parent for path in root.rglob("*.zarr/zarr.json")]
    found += root.rglob("weights.npz")
    named: dict[str, Path] = {}
    for path in sorted(found):
        parts = path.relative_to(root).parts
        place = "/".join("*" if _IDENTITY.match(part) else part for part in parts)
        named["/".join(parts) if place in named else place] = path
    return named


def arrays(path: Path) -> Mapping[str, Any]:
    """Return what is sliced as an array, by name."""
    if path.suffix == ".npz":
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    return dict(zarr.open_group(str(path), mode="r").arrays())


def blocks(array: Any) -> Iterator[NDArray[Any]]:  # noqa: ANN401  (of Zarr or of NumPy)
    """Yield the values of an array by a few rows."""
    if not array.shape:
        yield np.asarray(array[()])[None]
        return
    for start in range(0, array.shape[0], _BLOCK):
        yield np.asarray(array[start : start + _BLOCK])


def difference(old: Any, new: Any) -> tuple[str, float]:  # noqa: ANN401
    """Return how two arrays differ, "" where they do not, and the largest relative difference.

    It is relative to the old value, or to one where that is smaller; infinite where a value is
    missing in one of them, or where they hold no numbers of one type and shape.
    """
    if old.shape != new.shape:
        return f"shape {old.shape} -> {new.shape}", np.inf
    if old.dtype != new.dtype:
        return f"type {old.dtype} -> {new.dtype}", np.inf
    n_different, largest, relative = 0, 0.0, 0.0
    is_number = old.dtype.kind in "iuf"
    for before, after in zip(blocks(old), blocks(new), strict=True):
        differs = before != after
        if is_number:
            differs &= ~(np.isnan(before) & np.isnan(after))
        n_different += int(differs.sum())
        if is_number and differs.any():
            one, other = before[differs].astype(float), after[differs].astype(float)
            off = np.abs(one - other)
            off[np.isnan(off)] = np.inf
            scale = np.where(np.isfinite(one), np.abs(one), 1).clip(min=1)
            largest, relative = max(largest, off.max()), max(relative, (off / scale).max())
    if not n_different:
        return "", 0.0
    words = f"{n_different} of {old.size} values"
    if not is_number:
        return words, np.inf
    return f"{words}, largest difference {largest:.3g}", relative


def compare_store(
    place: str, old: Path, new: Path, expected: set[str], near: set[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield what is to be said of each array of a store: a word, the array, how it differs."""
    store = place.rpartition("/")[2].removesuffix(".zarr")
    before, after = arrays(old), arrays(new)
    for name in sorted({*before, *after}):
        label, may_differ = f"{place}/{name}", bool({store, f"{store}/{name}"} & expected)
        if name not in after or name not in before:
            word = "only in old" if name in before else "only in new"
            yield (f"{word}, expected" if may_differ else word), label, ""
            continue
        text, relative = difference(before[name], after[name])
        if not text:
            word = "equal"
        elif relative <= TOLERANCE and f"{store}/{name}" in near:
            word = "near"
        else:
            word = "different, expected" if may_differ else "different"
        yield word, label, text


def inertia(samples: Path) -> float | None:
    """Return the inertia of a samples store's clusters, None without the store they are of."""
    store, split = arrays(samples), None
    with suppress(FileNotFoundError, KeyError):
        split = arrays(samples.with_name("normalized.zarr"))["split"][:]
    if split is None or not {"projection", "cluster"} <= set(store):
        return None
    points = np.asarray(store["projection"][:], dtype=float)[split == 0]
    cluster = np.asarray(store["cluster"][:])[split == 0]
    if not len(points):
        return None
    means = [points[cluster == label].mean(axis=0) for label in np.unique(cluster)]
    nearest = np.full(len(points), np.inf)
    for mean in means:
        np.minimum(nearest, ((points - mean) ** 2).sum(axis=1), out=nearest)
    return float(nearest.sum())


def main() -> int:
    """Print a line an array; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old", type=Path, help="root of a study")
    parser.add_argument("new", type=Path, help="root of another")
    parser.add_argument(
        "--from", dest="expected", nargs="*", default=FROM_CLUSTERS, metavar="STORE[/ARRAY]",
        help="may differ or stand in one study only: those of the clusters, instead of %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--near", nargs="*", default=NEAR, metavar="STORE/ARRAY",
        help="may be off by a millionth, instead of %(default)s",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="leave out what is equal")
    asked = parser.parse_args()
    expected, near = set(asked.expected), set(asked.near)
    old, new = places(asked.old), places(asked.new)
    for root, found in ((asked.old, old), (asked.new, new)):
        if not found:
            parser.error(f"{root}: expected a study, got no stores")
    counts: dict[str, int] = {}
    for place in sorted({*old, *new}):
        store = place.rpartition("/")[2].removesuffix(".zarr")
        if place in old and place in new:
            lines = list(compare_store(place, old[place], new[place], expected, near))
        else:
            word = "only in old" if place in old else "only in new"
            lines = [(f"{word}, expected" if store in expected else word, place, "")]
        for word, label, text in lines:
            counts[word] = counts.get(word, 0) + 1
            if word != "equal" or not asked.quiet:
                print("\t".join(filter(None, (word, label, text))))
        if store == "samples" and place in old and place in new:
            sums = [inertia(found[place]) for found in (old, new)]
            if sums[0] is not None and sums[1] is not None:
                change = (sums[1] - sums[0]) / (sums[0] or 1)
                print(f"inertia\t{place}\t{sums[0]:.6g} -> {sums[1]:.6g} ({change:+.2%})")
    print("; ".join(f"{n} {word}" for word, n in sorted(counts.items())))
    return int(any(word in counts for word in ("different", "only in old", "only in new")))


if __name__ == "__main__":
    sys.exit(main())
