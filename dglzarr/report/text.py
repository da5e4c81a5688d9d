"""What a run found, in lines of text, from finished stores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.evaluation.panels import excluded_lines, listed_line
from dglzarr.kernels.metrics import SIGNIFICANT
from dglzarr.models.files import HISTORY, read_history
from dglzarr.report.cautions import cautions
from dglzarr.report.genes import ranked
from dglzarr.report.panels import CHANCE, as_shown, measure, panel_rows
from dglzarr.report.tables import formatted
from dglzarr.sources.base import LeftOut
from dglzarr.storage.claims import as_now
from dglzarr.storage.files import place_of, plain
from dglzarr.storage.store import open_store, read_attributes
from dglzarr.storage.study import open_study, raw_name

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    import xarray as xr

    from dglzarr.evaluation.order import Ordered
    from dglzarr.models.files import History
    from dglzarr.report.lineage import Stores
    from dglzarr.report.panels import PanelRow
    from dglzarr.storage.study import Study


UNITS = {
    "counts": "read counts",
    "rpkm": "RPKM",
    "fpkm": "FPKM",
    "tpm": "TPM",
    "intensity": "intensities",
}
"""Units in words; an unstated one that is not seen is "raw"."""


def top_landmarks(root: str, n: int = 50) -> list[dict[str, Any]]:
    """Return the genes of the panel, the first n of a longer one, one mapping a gene.

    A gene without a score has None, and all have where the store is older than gains.
    """
    rows = ranked(open_store(open_study(root).uri("landmarks")))
    names = ("rank", "gene", "gene_symbol", "score", "gain", "is_forced")
    return [{name: plain(row[name]) for name in names} for row in rows[:n] if row["is_landmark"]]


def source_lines(root: str) -> list[str]:
    """Return what was decided about each source, a line each.

    A raw store of which no sample is in the study is of a source that was refused after it was
    read, unless it is a cohort.
    """
    study = open_study(root)
    segments = [open_store(uri) for uri in study.uris("expression")]
    names = {str(name) for joined in segments for name in np.unique(joined["source"].values)}
    lines = ["Sources:", *_raw_lines(study.raws(), names)]
    for segment, joined in zip(study.segments, segments, strict=True):
        details = joined.attrs["details"]
        shown = ", ".join(f"{n} {name}" for name, n in details["split_counts"].items())
        lines.append(
            f"Segment {segment}: {joined.sizes['sample']} samples ({shown}) x "
            f"{joined.sizes['gene']} features, {details['n_missing']} values missing"
        )
        lines += [f"  {note}" for note in details.get("notes", ())]
    return lines + drift_lines(root)


def _raw_lines(
    uris: Iterable[str], names: Collection[str], *, with_cohorts: bool = True
) -> list[str]:
    """Return what was decided about some sources, from their raw stores, and what was left out."""
    lines = []
    for uri in uris:
        raw = open_store(uri)
        details = raw.attrs["details"]
        if raw_name(uri) not in names and not (with_cohorts and details["role"] == "cohort"):
            continue
        found = details["quantiles"]
        unit = UNITS.get(details.get("unit"), "raw")
        scale = f"{unit} -> log2(x + 1)" if details["scale"] == "raw" else "log2 already"
        negative = (
            f", {details['n_negative']} negative values set to 0" if details["n_negative"] else ""
        )
        lines.append(
            f"  {Path(uri).stem}: {raw.sizes['sample']} samples, {raw.sizes['gene']} "
            f"features, median {found['median']:.4g}, 99 % {found['q99']:.4g}: {scale}{negative}"
            + (" (cohort)" if details["role"] == "cohort" else "")
        )
        lines += [f"    {note}" for note in source_notes(details)]
    return lines


def source_notes(details: Mapping[str, Any]) -> list[str]:
    """Return what was left out of a source, and what else its reader told; from its raw store."""
    left_out = details.get("left_out") or ()
    return [*map(LeftOut.told, left_out), *(details.get("notes") or ())]


def list_lines(landmarks: xr.Dataset) -> list[str]:
    """Return which entries of published lists, and of excluded genes, were not found."""
    details = landmarks.attrs["details"]
    n_found = {
        str(name): sum(str(gene) != "" for gene in row)
        for name, row in zip(landmarks["panel"].values, landmarks["panel_gene"].values, strict=True)
    }
    dates = details.get("dates") or {}
    lines = [
        listed_line(f"List {name}", n_found[name], missing, dates.get(name))
        for name, missing in (details.get("missing") or {}).items()
    ]
    lines += excluded_lines("select.excluded", details.get("excluded_missing") or ())
    return [line for line in lines if line]


def growth_lines(root: str) -> list[str]:
    """Return what the last growth added, and how far it was from the frozen reference."""
    study = open_study(root)
    joined, mask = (open_store(study.uri(name)) for name in ("expression", "samples"))
    names = sorted({str(name) for name in joined["source"].values})
    sources = ", ".join(names)
    n_new, n_dropped = joined.sizes["sample"], int((~mask["keep"].values).sum())
    n_all = sum(open_store(uri).sizes["sample"] for uri in study.uris("samples"))
    added = f"{n_new} samples of {sources}; {n_all} in all"
    return [
        f"Added as segment {study.segments[-1]}: {added}. Near-duplicates: {n_dropped}",
        *_raw_lines(study.raws(), names, with_cohorts=False),
        *(f"  {note}" for note in joined.attrs["details"].get("notes", ())),
        *drift_lines(root)[-1:],
        "Scores, panel and evaluation are those of before; 'dglzarr refit' makes them anew.",
    ]


def drift_lines(root: str) -> list[str]:
    """Return how far each grown segment was from the frozen quantile reference, a line each."""
    study = open_study(root)
    lines = []
    for segment, uri in list(zip(study.segments, study.uris("normalized"), strict=True))[1:]:
        details = open_store(uri).attrs["details"]
        lines.append(
            f"Drift of segment {segment} from the frozen reference: {details['drift_rms']:.3f} "
            f"log2 units (root mean square over quantiles), {details['drift_largest']:.3f} at most"
        )
    return lines


def headline(root: str, *, truth: str | Path | None = None) -> list[str]:
    """Return what a run found: sources, the panel, its accuracy beside others, the report.

    ``truth`` may name the file that tells which genes a simulated study planted.
    """
    study = open_study(root)
    landmarks = open_store(study.uri("landmarks"))
    evaluation = open_store(study.uri("evaluation"))
    rows = panel_rows(evaluation, landmarks)
    top = top_landmarks(root, 10)
    best = ", ".join(map(_called, top))
    details = landmarks.attrs["details"]
    size, distinct = details["n_landmarks"], details["n_distinct_genes"]
    unnamed = f" and {details['n_unnamed']} unnamed" if details["n_unnamed"] else ""
    genes = f"{distinct} distinct genes{unnamed}"
    if distinct is None:
        genes = "gene names unknown (give ingest.annotation)"
    lines = [
        *caution_lines(study, rows),
        *source_lines(root),
        f"Panel: {size} features, {genes}. First: {best}",
        *_gain_lines(landmarks),
        *list_lines(landmarks),
        reconstruction_line(study.uri("reconstruction")),
        *_panel_lines(rows),
        *_cohort_lines(evaluation),
    ]
    if truth is not None and Path(truth).is_file():
        hubs = set(json.loads(Path(truth).read_text(encoding="utf-8"))["hubs"])
        chosen = {str(g) for g in landmarks["gene"].values[landmarks["is_landmark"].values]}
        lines.append(
            f"Planted hub genes: {len(hubs & chosen)} of the {len(chosen)} genes of the panel; "
            f"{len(hubs)} are planted"
        )
    return [*lines, f"Report: {study.report}"]


def _gain_lines(landmarks: xr.Dataset) -> list[str]:
    """Return what the shares behind the genes mean, and what the whole panel adds up to."""
    if "gain" not in landmarks:
        return ["  (no gains: this panel was selected by an older version)"]
    total = float(np.nansum(landmarks["gain"].values))
    what = "what a gene took off the error of all genes in the training samples, those before it"
    return [f"  (in brackets: the gain, {what} known; {total:.1%} by the whole panel)"]


def caution_lines(study: Study, rows: Sequence[PanelRow]) -> list[str]:
    """Return the cautions of a study and what to do about each, a line each."""
    names = ("expression", "samples", "scores", "landmarks", "evaluation", "reconstruction")
    opened = {name: open_store(study.uris(name)) for name in names}
    found = cautions(opened, rows, _history(study, opened["reconstruction"]))
    if not found:
        return ["Cautions: none"]
    return ["Cautions:", *(f"  {number}. {one}" for number, one in enumerate(found, start=1))]


def _history(study: Study, reconstruction: xr.Dataset) -> History | None:
    """Return the learning curve of a study's network, None where it is gone."""
    inputs = as_now(reconstruction.attrs)["inputs"]
    place = next((Path(entry["uri"]).name for entry in inputs if entry["role"] == "model"), "")
    try:
        return read_history(place_of(study.root, "models", place, HISTORY))
    except (OSError, ValueError):
        return None


def _called(gene: Mapping[str, Any]) -> str:
    """Return what a gene of the panel is called, that it is forced, and what it added."""
    told = ["forced"] if gene["is_forced"] else []
    told += [f"{gene['gain']:.1%}"] if gene["gain"] is not None else []
    name = gene["gene_symbol"] or gene["gene"]
    return f"{name} ({', '.join(told)})" if told else str(name)


def _panel_lines(rows: Sequence[PanelRow]) -> list[str]:
    """Return the error of each panel on held-out samples, and how it differs from the mined one."""
    here = [
        row for row in rows if (row.cohort, row.predictor) == (rows[0].cohort, rows[0].predictor)
    ]
    lines = ["Mean absolute error on held-out samples (z units, lower is better):"]
    for row in here:
        if row.kind != "random":
            word = f"  {row.word}" if row.word else ""
            lines.append(f"  {row.panel:<15} {formatted(row.mean_mae)}{word}")
    random = sorted(r.mean_mae for r in here if r.kind == "random" and np.isfinite(r.mean_mae))
    if random:
        mined = next((row.mean_mae for row in here if row.kind == "mined"), np.nan)
        n_above, mean = (
            sum(as_shown(error) > as_shown(mined) for error in random),
            sum(random) / len(random),
        )
        word = next((row.word for row in here if row.panel == CHANCE), "")
        lines.append(
            f"  {f'{len(random)} random':<15} {mean:.4f}{f'  {word}' if word else ''} "
            f"({random[0]:.4f} to {random[-1]:.4f}; {n_above} of them above the mined panel)"
        )
    return [*lines, "  (worse, better: than the mined panel, over series and over target genes)"]


def stability_lines(uri: str) -> list[str]:
    """Return how far replicates agree, a line each; ``uri`` is the stability store."""
    ds = open_store(uri)
    found, size = ds.attrs["details"], ds.attrs["parameters"]["n_landmarks"]
    n_seeds = sum(str(name).startswith("seed-") for name in ds["replicate"].values)
    chance = f"{found['by_chance']:.1%}"
    lines = [f"By chance, two panels of {size} share {chance} of their genes; here, by score:"]
    for kind, who in (
        ("seeds", f"{n_seeds} seeds, all samples"),
        ("halves", f"{ds.sizes['replicate'] - n_seeds} halves of the samples"),
    ):
        if found[f"overlap_of_{kind}"] is not None:
            lines.append(
                f"{who}: two panels share {found[f'overlap_of_{kind}']:.1%} of their genes, "
                f"rank correlation of all scores {found[f'rank_correlation_of_{kind}']:.3f}"
            )
    lines.append(
        f"Among the highest scores of every seed: {found['n_in_every_seed']} of {size} genes"
    )
    return lines


def without_old_replicates(stores: Stores) -> Stores:
    """Return the stores of a study without a stability store of a network that is gone.

    ``stores`` names the URI of each store, or those of its segments.
    """
    if "stability" not in stores:
        return stores
    uris = (stores[name] for name in ("scores", "stability"))
    scores, stability = (
        read_attributes(uri if isinstance(uri, str) else uri[0]) or {} for uri in uris
    )
    if scores.get("store_id") in [found["store_id"] for found in stability.get("inputs", ())]:
        return stores
    return {name: uri for name, uri in stores.items() if name != "stability"}


def reconstruction_line(uri: str) -> str:
    """Return how well the network rebuilds test samples; ``uri`` is the reconstruction store."""
    ds = open_store(uri)
    found = ds.attrs["details"]
    if found["mean_mae"] is None:
        return "Reconstruction: no test samples to judge it on"
    error = f"mean absolute error {found['mean_mae']:.4f} (z units)"
    place = f"Reconstruction of {found['n_test']} held-out samples: {error}"
    if found["mean_pcc"] is None:
        return f"{place}; no gene has enough values in them for a correlation"
    return (
        f"{place}, mean correlation {found['mean_pcc']:.4f}; "
        f"{found['n_significant']} of {ds.sizes['gene']} genes pass the permutation test"
    )


def _cohort_lines(evaluation: xr.Dataset) -> list[str]:
    """Return how well the mined panel does on each cohort, a line each."""
    lines = []
    for cohort, found in evaluation.attrs["details"]["cohorts"].items():
        share = f"{found['n_measured']} of {found['n_genes']} genes measured"
        if found["mined"] is None:
            lines.append(f"Cohort {cohort}: {share}: too few to judge. Give ingest.annotation.")
        else:
            lines.append(
                f"Cohort {cohort}: {share}, {found['n_landmarks']} of the mined panel; error "
                f"mined {formatted(found['mined'])}, mean of random {formatted(found['random'])}, "
                f"training mean {formatted(found['mean'])}; {_agreement(evaluation, cohort)}"
            )
    return lines


def _agreement(evaluation: xr.Dataset, cohort: str) -> str:
    """Return how well the mined panel's predictions of a cohort's targets agree with the truth."""
    pcc, null = (measure(evaluation, n, "mined", cohort) for n in ("pcc", "null_fraction"))
    pcc, null = pcc[np.isfinite(pcc)], null[np.isfinite(null)]
    if not (pcc.size and null.size):
        return "correlation undefined"
    share = (null < SIGNIFICANT).mean()
    return f"mean correlation {pcc.mean():.4f}, {share:.2%} of {null.size} targets significant"


def order_lines(ordered: Ordered, n_shown: int = 10) -> list[str]:
    """Return a panel that can be ordered: its first genes, its price, and what should be known."""
    table, price = ordered.table, ordered.price
    reasons = ", ".join(f"{n} {why}" for why, n in table["why"].value_counts(sort=False).items())
    lines = [f"{len(table)} genes ({reasons}) of {ordered.n_left} that could be chosen."]
    shown = table.head(n_shown)
    lines += [
        f"{row['position']:>4}  {row['gene']}{' (included)' if row['why'] == 'included' else ''}  "
        f"{row['gene_symbol'] or '-'}  {row['share']:.2f} %  "
        f"serves {row['serves']}; instead {row['instead']}"
        for _, row in shown.iterrows()
    ]
    if len(table) > n_shown:
        lines.append(f"      and {len(table) - n_shown} more.")
    if not np.allclose(table["cost"], 1):
        lines.append(f"They cost {ordered.cost:g}.")
    whole = price["all"]
    if np.isnan(whole.error):
        why = "no other gene varies" if ordered.n_judged else "the study has no test samples"
        return [*lines, f"What the panel costs in error cannot be told: {why}.", *ordered.notes]
    lines.append(
        f"Error of {ordered.n_judged} held-out samples: {whole.error:.4f} (z units); of a panel "
        f"of the same size without conditions {whole.free:.4f}."
    )
    for name, one in price.items():
        if name == "all" and one.error == one.free:  # the same panel: nothing is to be priced
            continue
        what = "The conditions cost" if name == "all" else f"{name} alone costs"
        interval = (
            f" (95 % over series {one.low:+.4f} to {one.high:+.4f})"
            if np.isfinite(one.low)
            else " (fewer than 3 held-out series: no interval)"
        )
        lines.append(f"{what} {one.difference:+.4f}{interval}.")
    return lines + ordered.notes
