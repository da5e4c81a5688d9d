"""Tables of the faults that runs of `tests/chaos.py` recorded.

python tests/chaos_tables.py FILE...
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what was met by place and kind, and by step, as Markdown."""
    heads = ("faults", "run went on", "run died", "told in one line", "not told", "bytes equal")
    lines = [f"| place | fault | {' | '.join(heads)} |", f"| --- | --- {'| ---: ' * len(heads)}|"]
    places, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("place", "fault"))
    found = Counter((row["place"], row["fault"]) for row in rows)
    known = [(place, name) for place in places for name in names if found[place, name]]
    for place, name in [*known, ("all", "")]:
        ours = [r for r in rows if place == "all" or (r["place"], r["fault"]) == (place, name)]
        counts = (
            len(ours),
            sum(r["status"] == 0 for r in ours),
            sum(r["status"] < 0 for r in ours),
            sum(r["status"] > 0 and not r["untold"] for r in ours),
            sum(bool(r["untold"]) for r in ours),
            sum(not r["difference"] for r in ours),
        )
        lines.append(f"| {place} | {name} | {' | '.join(map(str, counts))} |")
    lines += [
        "",
        f"| during | {' | '.join(places)} | all |",
        f"| --- {'| ---: ' * len(places)}| ---: |",
    ]
    for step in dict.fromkeys(row["step"] for row in rows):
        met = [sum((r["step"], r["place"]) == (step, p) for r in rows) for p in places]
        lines.append(f"| {step} | {' | '.join(map(str, (*met, sum(met))))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    written = [line for name in sys.argv[1:] for line in Path(name).read_text("utf-8").splitlines()]
    sys.stdout.write(f"{tables([json.loads(line) for line in written])}\n")
