"""Mine all but two real series, grow by those two, refit; show what was rewritten and what is new.

    python benchmarks/grow_real.py --folder ../shared/data --root grown

The study is that of deploy/settings/real.toml. Says, after each step: how many objects of the old
segment, raw stores, model and scores have other bytes than before; how many samples old and new
readers see; and how far the new samples are from the frozen reference. Exit status 1 when anything
old was rewritten.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import dglzarr
from dglzarr.cli import guarded
from dglzarr.report.text import drift_lines
from dglzarr.settings import Settings, SourceSettings, load_settings
from dglzarr.storage.files import file_sha256
from dglzarr.storage.store import open_store
from dglzarr.storage.study import open_study, planned_study
from dglzarr.studies.grow import grow
from dglzarr.studies.plan import mine, refit, source_files

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTINGS = Path(__file__).parents[1] / "deploy" / "settings" / "real.toml"
HELD = ("GSE3585", "GSE5109")
CHANGED_BY_GROWTH = ("study.json", "report.html")


def without(settings: Settings, held: Sequence[str]) -> Settings:
    """Return settings that name every file of a study but those of some sources."""
    sources = [
        SourceSettings(uri=file.path, **file.options.model_dump())
        for file in source_files(settings, planned_study(settings.root))
        if file.name not in held
    ]
    return settings.model_copy(update={"sources": tuple(sources)})


def digests(root: str) -> dict[str, str]:
    """Return the SHA-256 of every file of a study, metadata too, but for its lock."""
    files = (p for p in sorted(Path(root).rglob("*")) if p.is_file() and p.name != "study.lock")
    return {str(p.relative_to(root)): file_sha256(str(p)) for p in files}


def rewritten(before: dict[str, str], root: str) -> list[str]:
    """Return the files that are gone or have other bytes, but for manifest and report."""
    after = digests(root)
    changed = [name for name, digest in before.items() if after.get(name) != digest]
    return [n for n in changed if n not in CHANGED_BY_GROWTH and not n.startswith("report_data/")]


def show_growth(settings: Settings, held: Sequence[str]) -> int:
    """Mine, grow and refit; print what is seen, and return how many old files were rewritten."""
    root = settings.root
    _timed("mine", lambda: mine(without(settings, held)))
    before = digests(root)
    reader = dglzarr.open(f"{root}#normalized")
    checksum = _checksum(reader)
    samples = set(reader["sample"].values)
    print(f"  {len(samples)} samples in segments {open_study(root).segments}")

    _timed("grow", lambda: grow(settings))
    changed = rewritten(before, root)
    grown = dglzarr.open(f"{root}#normalized")
    new = set(grown["sample"].values) - samples
    dropped = int((~dglzarr.open(f"{root}#samples")["keep"].values[len(samples) :]).sum())
    print(f"  {len(before)} files before, {len(changed)} of them rewritten: {changed[:5]}")
    print(f"  {grown.sizes['sample']} samples in segments {open_study(root).segments}")
    print(f"  {len(new)} new, of {', '.join(_sources(grown, new))}; {dropped} near-duplicates")
    is_same = checksum == _checksum(reader) and reader.sizes["sample"] == len(samples)
    print(f"  the reader opened before sees {reader.sizes['sample']} samples, unchanged: {is_same}")
    print("\n".join(f"  {line}" for line in drift_lines(root)))
    segment = open_store(open_study(root).uris("normalized")[-1])
    print(f"  the new segment's reference is the old one: {_same_reference(root, segment)}")

    _timed("refit", lambda: refit(settings))
    last = open_store(open_study(root).uris("normalized")[-1])
    print(f"  {last.sizes['sample']} samples in segments {open_study(root).segments}")
    segments = {n: d for n, d in before.items() if n.startswith(("segments/", "raw/"))}
    print(f"  old segments and raw stores rewritten: {len(rewritten(segments, root))}")
    return len(changed) + (not is_same)


def _sources(ds: Any, samples: set[Any]) -> list[str]:  # noqa: ANN401
    pairs = zip(ds["sample"].values, ds["source"].values, strict=True)
    return sorted({str(source) for sample, source in pairs if sample in samples})


def _same_reference(root: str, segment: Any) -> bool:  # noqa: ANN401
    first = open_store(open_study(root).uris("normalized")[0])
    return np.array_equal(first["quantile_reference"], segment["quantile_reference"])


def _checksum(ds: Any) -> float:  # noqa: ANN401
    return float(np.nansum(ds["expression"].values, dtype=np.float64))


def _timed(name: str, call: Any) -> None:  # noqa: ANN401
    started = time.monotonic()
    call()
    print(f"{name}: {time.monotonic() - started:.0f} s")


def main() -> None:
    """Run on the folder asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", required=True, help="the data folder of make real")
    parser.add_argument("--root", default="grown", help="folder of the study to be made")
    parser.add_argument("--held", nargs="+", default=list(HELD), help="sources to grow by")
    parser.add_argument("--set", action="append", default=[], help="section.key=value")
    asked = parser.parse_args()
    root = str(Path(asked.root).resolve())
    if Path(root).exists():
        sys.exit(f"{root}: expected no study yet. Remove it, or name another --root.")
    overrides = (f"root={root!r}", *asked.set)
    settings = load_settings(SETTINGS, overrides, folder=asked.folder)
    if show_growth(settings, asked.held):
        sys.exit(1)


if __name__ == "__main__":
    sys.exit(guarded(main))
