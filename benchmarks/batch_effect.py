"""What centring series does to the comparison of panels, on real series of one platform.

    python benchmarks/batch_effect.py --folder ../shared/data --root batches

Two studies of the same HG-U133A series, one as measured and one with ``ingest.center_by =
"series"``, are cross-validated over whole series. Errors are in z units of each study's own
training samples, so that they are printed as shares of the error that the training mean makes in
the same study. Finished work is kept. Exit status 1 when the data are not there.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from dglzarr.report.comparison import ComparisonRow, comparison_rows
from dglzarr.settings import Settings, build_settings
from dglzarr.studies.cross_validate import cross_validate

TABLES = (
    "tables/GSE6481", "tables/GSE3726", "tables/GSE1751", "tables/GSE781", "tables/GSE3585",
    "tables/GSE20164", "more/tables/GSE3167_bladderbatch", "more/tables/GSE474",
    "more/tables/GSE1561_15", "more/tables/GSE6344",
)  # fmt: skip


def settings_of(folder: Path, root: Path, center_by: str | None, every: int) -> Settings:
    """Return the settings of one of the two studies, over every so manieth common probe."""
    listed = (folder / "annotation" / "probes_22268.txt").read_text(encoding="utf-8").split()
    root.mkdir(parents=True, exist_ok=True)
    (root / "probes.txt").write_text("\n".join(listed[::every]), encoding="utf-8")
    sources = [
        {"uri": f"{folder / name}_expr.tsv.gz", "sample_sheet": f"{folder / name}_samples.tsv"}
        for name in TABLES
    ]
    content = {
        "root": str(root / (center_by or "measured")),
        "sources": [*sources, {"uri": str(folder / "geo" / "GSE55235_series_matrix.txt.gz")}],
        "ingest": {"probes": str(root / "probes.txt"), "center_by": center_by},
        "select": {"n_random": 10, "n_landmarks": 100},
        "compare": {"selectors": ["greedy", "medoids"], "sizes": [20, 100], "n_folds": 4},
        "dedup": {"n_clusters": 20},
    }
    content["ingest"] = {key: value for key, value in content["ingest"].items() if value}
    return build_settings(content, name="batch_effect", folder=root)


def shares(rows: list[ComparisonRow]) -> dict[tuple[int, str], tuple[float, float, float]]:
    """Return each row's error as a share of the training mean's, and its interval to random."""
    (mean,) = (row.mae for row in rows if row.kind == "baseline")
    return {
        (row.size, row.family): (row.mae / mean, row.versus_low / mean, row.versus_high / mean)
        for row in rows
        if row.kind != "baseline"
    }


def _told(share: float, low: float, high: float) -> str:
    return f"{share:.3f}" + ("" if math.isnan(low) else f" ({low:+.3f} to {high:+.3f})")


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="the real data")
    parser.add_argument("--root", type=Path, required=True, help="folder of both studies")
    parser.add_argument("--every", type=int, default=4, help="every so manieth common probe")
    asked = parser.parse_args()
    folder, root = asked.folder.resolve(), asked.root.resolve()
    if not (folder / "tables").is_dir():
        sys.stderr.write(f"{folder}: expected the real data, got no folder tables.\n")
        return 1
    found = []
    for center_by in (None, "series"):
        settings = settings_of(folder, root, center_by, asked.every)
        found.append(shares(comparison_rows(cross_validate(settings).uri)))
    print("genes  panel     as measured                    series centred")
    for key in sorted({*found[0]} & {*found[1]}):
        told = [_told(*one[key]) for one in found]
        print(f"{key[0]:5}  {key[1]:8}  " + "      ".join(f"{text:25}" for text in told).rstrip())
    print("Share of the error of the training mean; in brackets: less that of random panels.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
