"""Damage every object of every store of a small study in five ways; who notices?

    python tests/damage.py

A simulated study is mined, compared and replicated once. Then each object of it is damaged: one bit
flipped, deleted, cut to half, its second half zeroed, or replaced by another object. Each time the
store is verified, alone and (once a kind of object and of damage in a store) by its study, opened,
asked a question, read as stages read it, made again by its stage, and the report is written. At
last each store is taken away whole. What comes back is compared with what came before the damage.
Two tables are printed; exit status 1 when `verify` misses a case, or anything but a matrix is read
wrong.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import dglzarr
from dglzarr import query
from dglzarr.errors import DglzarrError
from dglzarr.models.files import load_model
from dglzarr.settings import build_settings
from dglzarr.storage.objects import RECORD, list_objects
from dglzarr.storage.rows import Rows, read_array
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import check_matrices, open_store, read_attributes
from dglzarr.storage.study import MANIFEST, OPTIONAL, open_study
from dglzarr.studies.cross_validate import cross_validate
from dglzarr.studies.plan import Plan, mine, rewrite_report
from dglzarr.studies.stability import replicate
from tests.builders import simulate, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from dglzarr.settings import Settings

KINDS = ("bit flipped", "deleted", "cut to half", "half zeroed", "replaced")
VERIFIES = ("verify", "verify STUDY")
PATHS = ("open", "query", "stage reads", "verify_on_read", "stage again", "report")
FEW = ("normalized.zarr", "scores.zarr", "seed-0", "study")
SETTINGS: dict[str, Any] = {
    "root": "study",
    "sources": [{"uri": "GSE*"}],
    "ingest": {"split_by": "sample", "shard_samples": 32},
    "dedup": {"n_clusters": 4},
    "train": {"hidden": 8, "n_latent": 3, "epochs": 2, "batch_size": 16},
    "select": {"n_landmarks": 5, "n_random": 2},
    "group": {"label": "tissue"},
    "enrich": {"gene_sets": "sets.gmt", "min_size": 1},
    "compare": {"n_folds": 2, "sizes": [3], "selectors": ["variance"], "predictors": ["ridge"]},
    "stability": {"n_seeds": 2, "n_halves": 0},
    "cluster": {"kind": "none"},
}


@dataclass
class Tally:
    """How often each outcome was seen, by (what, path) and, of silent ones, by damage too."""

    seen: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    silent: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, what: str, path: str, outcome: str, kind: str, place: str) -> None:
        """Count an outcome."""
        self.seen.setdefault((what, path), Counter())[outcome] += 1
        if outcome.startswith(("WRONG", "crash")):
            self.silent[what, path, kind] += 1
            self.missed += [f"{place}: {path}: {outcome}"] if what != "matrix" else []
        if path in VERIFIES and outcome != "found":
            self.missed.append(f"{place}: {path}: {outcome}")

    def lines(self) -> Iterator[str]:
        """Yield the two tables."""
        yield "| Object | Cases | " + " | ".join((*VERIFIES, *PATHS)) + " |"
        yield "| --- " * (4 + len(PATHS)) + "|"
        for what in dict.fromkeys(what for what, _ in self.seen):
            cells = [self.seen.get((what, path), Counter()) for path in (*VERIFIES, *PATHS)]
            n_cases = max(cells[0].total(), cells[1].total())
            texts = [", ".join(f"{o} {n}" for o, n in sorted(c.items())) or "-" for c in cells]
            yield f"| {what} | {n_cases} | " + " | ".join(texts) + " |"
        yield ""
        yield "| Read unchecked | by | damage | wrong values |"
        yield "| --- | --- | --- | --- |"
        for (what, path, kind), n in sorted(self.silent.items()):
            yield f"| {what} | {path} | {kind} | {n} |"


@dataclass
class Place:
    """A store, what its objects are, what it holds, and what makes it."""

    uri: str
    whats: Mapping[str, str]
    reads: Mapping[str, Callable[[], Any]]
    again: Callable[[], str] | None = None
    expected: dict[str, Any] = field(default_factory=dict)


def prepare(folder: Path, *, all_stores: bool = True) -> Settings:
    """Return the settings of a small study that was made in a folder."""
    write_files(folder, simulate(64, 24, n_hubs=4, n_series=3, n_duplicates=4))
    genes = simulate(64, 24, n_hubs=4, n_series=3, n_duplicates=4).genes
    sets = ["\t".join([f"set{i}", "", *genes[i::3]]) for i in range(3)]
    (folder / "sets.gmt").write_text("\n".join(sets) + "\n")
    settings = build_settings(SETTINGS, name="damage", folder=folder)
    mine(settings)
    if all_stores:
        cross_validate(settings)
        replicate(settings)
    return settings


def places(settings: Settings) -> list[Place]:
    """Return the stores of a study, its model and its manifest."""
    root = settings.root
    steps = {step.writes: step for step in Plan.of(settings)}
    raws = {claim.uri: claim for claim in Plan.of(settings)["ingest"].claims()}
    assert set(raws) <= set(query.stores(root))
    found = []
    for uri in query.stores(root):
        step = steps.get(uri) or (Plan.of(settings)["ingest"] if uri in raws else None)
        found.append(Place(uri, _whats(uri), _reads(uri), step and _again(step, uri)))
    model = Plan.of(settings).uri("model")
    found.append(
        Place(
            model,
            dict.fromkeys(("model.json", "weights.npz"), "model"),
            {"stage reads": lambda: _layers(model)},
            lambda: "refused" if steps[model].claims()[0].state == "refused" else "made anew",
        )
    )
    manifest, segments = {MANIFEST: "manifest"}, open_study(root).segments
    found.append(
        Place(
            root,
            manifest,
            {
                "open": lambda: dglzarr.open(f"{root}#scores").load(),
                "query": lambda: query.table(f"{root}#scores"),
                "stage reads": lambda: open_study(root).segments,
            },
            lambda: _outcome(lambda: Plan.of(settings).study.segments, segments),
        )
    )
    return found


def _layers(model: str) -> list[Any]:
    return [part for layer in load_model(Path(model)).layers for part in layer[:2]]


def _whats(uri: str) -> dict[str, str]:
    """Return what each object of a store is."""
    spec = SPECS[read_attributes(uri)["dglzarr_schema"]]  # type: ignore[index]
    names = {"create": "labels", "finish": "results", "region": "partial results"}
    kinds = {a.name: "matrix" if a.is_matrix else names[a.written] for a in spec.arrays}
    whats = {
        name: kinds[name.partition("/")[0]] if "/c/" in name else "metadata of an array"
        for name in list_objects(uri)
    }
    return {**whats, "zarr.json": "attributes", RECORD: "record"}


def _reads(uri: str) -> dict[str, Callable[[], Any]]:
    spec = SPECS[read_attributes(uri)["dglzarr_schema"]]  # type: ignore[index]
    there = {name.partition("/")[0] for name in list_objects(uri)}

    def by_stages() -> list[Any]:
        open_store(uri)
        return [
            Rows(uri, a.name)[:] if a.is_matrix else read_array(uri, a.name)
            for a in spec.arrays
            if a.name in there
        ]

    return {
        "open": lambda: dglzarr.open(uri).load(),
        "query": lambda: query.table(uri, top=3),
        "stage reads": by_stages,
        "verify_on_read": lambda: (check_matrices(uri), by_stages()),
    }


def _again(step: Any, uri: str) -> Callable[[], str]:
    """Return what runs a step on a damaged store and tells what it did."""
    before = _contents(uri)

    def run() -> str:
        try:
            states = {claim.uri: claim.state for claim in step.claims()}
            if states[uri] == "unchanged":
                return "not read"
            step()
        except DglzarrError:
            return "refused"
        return "remade" if _contents(uri) == before else "WRONG"

    return run


def _contents(uri: str) -> dict[str, bytes]:
    names = list_objects(uri) if Path(uri, "zarr.json").exists() else ()
    return {name: Path(uri, name).read_bytes() for name in names}


def _is_same(found: Any, expected: Any) -> bool:
    if isinstance(found, list | tuple):
        return len(found) == len(expected) and all(map(_is_same, found, expected))
    if isinstance(found, np.ndarray):
        return bool(found.shape == expected.shape and found.tobytes() == expected.tobytes()) or (
            found.dtype.kind == "T" and found.tolist() == expected.tolist()
        )
    if hasattr(found, "identical"):
        return bool(found.identical(expected))
    if hasattr(found, "equals"):  # columns come in the order in which arrays were found
        return bool(found.sort_index(axis=1).equals(expected.sort_index(axis=1)))
    return bool(found == expected)


def _outcome(read: Callable[[], Any], expected: Any) -> str:
    try:
        return "right" if _is_same(read(), expected) else "WRONG"
    except (DglzarrError, ValueError) as error:
        return "refused" if isinstance(error, DglzarrError) else f"crash {type(error).__name__}"
    except Exception as error:  # noqa: BLE001  (whatever it is, it is no refusal)
        return f"crash {type(error).__name__}"


def damaged(content: bytes, kind: str, other: bytes, rng: np.random.Generator) -> bytes | None:
    """Return an object's bytes after some damage, None for no object."""
    half = len(content) // 2
    if kind == "bit flipped":
        at, bit = int(rng.integers(len(content))), int(rng.integers(8))
        return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
    return {
        "deleted": None,
        "cut to half": content[:half],
        "half zeroed": content[:half] + bytes(len(content) - half),
        "replaced": other,
    }[kind]


def try_place(
    place: Place,
    tally: Tally,
    *,
    kinds: Sequence[str] = KINDS,
    names: Iterable[str] = (),
    report: Callable[[], Any] | None = None,
    reported: set[tuple[str, str]] | None = None,
    root: str = "",
    seed: int = 0,
) -> None:
    """Damage objects of one store in every way, one after another, and tell who notices."""
    rng = np.random.default_rng(seed)
    expected = {path: read() for path, read in place.reads.items()}
    reported = set() if reported is None else reported
    by_study: set[tuple[str, str]] = set()
    contents = {name: Path(place.uri, name).read_bytes() for name in place.whats}
    for name in names or place.whats:
        others = [c for n, c in contents.items() if n != name and c != contents[name]]
        other = others[int(rng.integers(len(others)))] if others else b"{}"
        what = place.whats[name]
        for kind in kinds:
            wrong = damaged(contents[name], kind, other, rng)
            if wrong == contents[name]:
                continue
            at = f"{place.uri}/{name}, {kind}"
            _put(place, name, wrong)
            tally.add(what, "verify", _verified(place), kind, at)
            if root and (what, kind) not in by_study:
                by_study.add((what, kind))
                tally.add(what, "verify STUDY", _verified_by_study(root), kind, at)
            for path, read in place.reads.items():
                tally.add(what, path, _outcome(read, expected[path]), kind, at)
            if report and (what, kind) not in reported:
                reported.add((what, kind))
                tally.add(what, "report", _reported(report), kind, at)
            if place.again:
                tally.add(what, "stage again", place.again(), kind, at)
            for file, content in contents.items():
                if not Path(place.uri, file).exists() or file == name or what == "matrix":
                    _put(place, file, content)


def _put(place: Place, name: str, content: bytes | None) -> None:
    path = Path(place.uri, name)
    if content is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def take_away(place: Place, tally: Tally, root: str) -> None:
    """Take a store or model away whole: does the study's `verify` miss it?"""
    hidden = Path(f"{root}.taken")
    Path(place.uri).rename(hidden)
    tally.add("whole store", "verify STUDY", _verified_by_study(root), "deleted", place.uri)
    hidden.rename(place.uri)


def is_needed(place: Place, root: str) -> bool:
    """Return whether a study is not whole without a store: neither optional nor a replicate's."""
    if place.uri == root:
        return False
    name = Path(place.uri).name.removesuffix(".zarr")
    return name not in OPTIONAL


def _verified(place: Place) -> str:
    if not place.uri.endswith(".zarr"):
        return _verified_by_study(place.uri.partition("/models/")[0])
    try:
        return "found" if query.verify(place.uri)["problems"] else "MISSED"
    except DglzarrError:
        return "found"


def _verified_by_study(root: str) -> str:
    """Return what the command on a whole study says."""
    try:
        found = query.verify_study(root)
    except DglzarrError:
        return "found"
    return "found" if any(line["problems"] for line in found) else "MISSED"


def _reported(report: Callable[[], Any]) -> str:
    try:
        report()
    except DglzarrError:
        return "refused"
    except Exception as error:  # noqa: BLE001  (whatever it is, it is no refusal)
        return f"crash {type(error).__name__}"
    return "written"


def try_few(folder: Path, tally: Tally, wanted: tuple[str, ...] = FEW) -> None:
    """Damage one object of each kind in some stores of a mined study, and take each store away."""
    settings = prepare(folder, all_stores=False)
    for place in places(settings):
        if place.uri.endswith(wanted):
            first = {what: name for name, what in reversed(place.whats.items())}
            try_place(place, tally, names=first.values(), root=settings.root)
        if is_needed(place, settings.root):
            take_away(place, tally, settings.root)


def try_all(folder: Path, tally: Tally) -> None:
    """Damage every object of a study that was mined, compared and replicated."""
    settings = prepare(folder)
    reported: set[tuple[str, str]] = set()  # once a kind of object and of damage
    how: dict[str, Any] = {"reported": reported, "root": settings.root}
    for place in places(settings):
        sys.stderr.write(f"{place.uri}\n")
        try_place(place, tally, report=lambda: rewrite_report(settings), **how)
        if is_needed(place, settings.root):
            take_away(place, tally, settings.root)


def main() -> int:
    """Damage everything; print the tables and what was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder of the study, kept")
    parser.add_argument("--small", action="store_true", help="one object of each kind, few stores")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="damage-"))
    folder.mkdir(parents=True, exist_ok=True)
    tally = Tally()
    try:
        with dask.config.set(scheduler="synchronous"):
            (try_few if arguments.small else try_all)(folder, tally)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    sys.stdout.write("\n".join([*tally.lines(), "", *tally.missed, ""]))
    return 1 if tally.missed else 0


if __name__ == "__main__":
    sys.exit(main())
