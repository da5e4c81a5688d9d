"""A panel that can be ordered: chosen from a finished study within conditions, and their price.

Reads ``normalized.zarr``, ``samples.zarr`` and ``landmarks.zarr`` of a study and lists of genes;
writes nothing. Genes are chosen on the kept training samples, as `select` chooses them, with the
penalties that it chose; errors are those of the held-out samples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from dglzarr.errors import ConfigError, SourceError, StoreError
from dglzarr.evaluation.cohorts import HeldOut, kept_samples
from dglzarr.evaluation.panels import (
    PanelOptions,
    Rules,
    excluded_lines,
    feature_names,
    find_rules,
    undetected,
    unmatched,
)
from dglzarr.evaluation.sets import hold_sets
from dglzarr.evaluation.sketch import sketch_training
from dglzarr.kernels.comparison import bootstrap_interval
from dglzarr.kernels.exchange import panel_roles, shrink_order
from dglzarr.kernels.limits import Limits
from dglzarr.kernels.linear import predict_ridge, ridge_partial, ridge_path
from dglzarr.kernels.panels import CONSTANT, allowed_genes
from dglzarr.kernels.penalties import ALPHAS, Stretch, greedy_path, penalty_at
from dglzarr.sources.identifiers import find_genes, read_gene_list, read_gene_values
from dglzarr.storage.files import no_formula, put
from dglzarr.storage.rows import read_array
from dglzarr.storage.schemas import LANDMARKS, NORMALIZED, SAMPLES
from dglzarr.storage.store import open_labels, open_store, read_attributes
from dglzarr.storage.study import open_study
from dglzarr.storage.together import check_together

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dglzarr.kernels.linear import RidgePath
    from dglzarr.kernels.sketch import GeneSketch

    Index = NDArray[np.int64]
    Mask = NDArray[np.bool_]
    Float64 = NDArray[np.float64]

N_TARGETS, N_JUDGED = 2048, 1024
"""Genes and held-out samples at most that the price is told by."""

FAMILIES = {
    "ribosomal": r"(M?RP[LS]\d+([ABCX]|Y\d|AL|L\d?)?|RPLP[0-2]|RPSA)(P\d*)?|UBA52|FAU",
    "mitochondrial": r"MT-.+",
    "haemoglobin": r"HB([ABDEZ]|A[12]|G[12]|Q1|M)",
    "noncoding": r"LINC\d+|MIR(LET)?\d.*|SNOR[AD]\d.*|SCARNA\d+|RNU\d.*|.+-(AS|IT|OT|DT)\d*",
}
"""Genes by what HGNC calls them: whole symbols, in any letter case."""

_YES, _NO = ("1", "yes", "true", "y"), ("0", "no", "false", "n")
_CALLED = {
    "select.forced": "--include",
    "select.excluded": "--exclude",
    "select.exclude_controls": "--exclude-controls",
    "or give ingest.annotation to match by symbol": "or name them as the study does",
}


@dataclass(frozen=True)
class Conditions:
    """What a panel must be; whatever is left out does not bind.

    Attributes
    ----------
    size
        Genes of the panel.
    include, exclude
        Genes that it holds, first, and that it must not hold: names, or a file of them.
    exclude_controls, exclude_unnamed
        Leave out control probes, and features without a symbol and an ID.
    exclude_like
        Leave out genes by their symbol: names of ``FAMILIES``, or regular expressions of whole
        symbols, such as ``"ZNF.*"``.
    min_mean, max_mean
        Window of the mean expression in the training samples, log2.
    min_detected
        Least share of the training samples of one group of ``ingest.detection`` in which a gene is
        detected.
    feasible
        File of genes and yes or no: whether a probe for it can be made. A gene that it does not
        tell of cannot be chosen.
    sets, at_least
        GMT file of gene sets, and how many genes of each must be on the panel.
    costs, budget
        File of genes and costs (1 for one that it does not tell of), and what all genes may cost
        together. A gene is chosen by what it gains for its cost.
    start
        A panel that exists, a file of genes, or ``"mined"``: it is extended to the size, or made
        smaller.
    """

    size: int
    include: Sequence[str] | str = ()
    exclude: Sequence[str] | str = ()
    exclude_controls: bool = False
    exclude_unnamed: bool = False
    exclude_like: Sequence[str] = ()
    min_mean: float | None = None
    max_mean: float | None = None
    min_detected: float | None = None
    feasible: str = ""
    sets: str = ""
    at_least: int = 1
    costs: str = ""
    budget: float | None = None
    start: str = ""

    def parts(self) -> dict[str, Conditions]:
        """Return each condition that binds, alone."""
        free = Conditions(self.size)
        groups = (
            ("--include", ("include",)),
            ("--exclude", ("exclude",)),
            ("--exclude-controls", ("exclude_controls",)),
            ("--exclude-unnamed", ("exclude_unnamed",)),
            ("--exclude-like", ("exclude_like",)),
            ("expression window", ("min_mean", "max_mean")),
            ("--min-detected", ("min_detected",)),
            ("--feasible", ("feasible",)),
            ("--sets", ("sets", "at_least")),
            ("--costs", ("costs", "budget")),
            ("--start", ("start",)),
        )
        found = {}
        for name, fields in groups:
            alone = replace(free, **{field: getattr(self, field) for field in fields})
            if alone not in (free, replace(free, at_least=self.at_least)):
                found[name] = alone
        return found


@dataclass(frozen=True, eq=False)
class Price:
    """The error of the panel, of one without conditions, and what the difference may be."""

    error: float
    free: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Ordered:
    """A panel that can be ordered.

    Attributes
    ----------
    table
        A row a gene, in order: names, why it is on the panel, what it serves, what instead.
    price
        What all conditions cost together, and each alone where that was asked.
    n_left
        Genes that could be chosen.
    cost
        Of all its genes.
    n_judged
        Held-out samples that the errors are of.
    notes
        What should be known.
    """

    table: pd.DataFrame
    price: dict[str, Price]
    n_left: int
    cost: float
    n_judged: int
    notes: list[str]


class PanelMaker:
    """A finished study, ready for panels: its sketch is made once.

    Parameters
    ----------
    root
        Folder of the study.

    Raises
    ------
    StoreError
        When a store that is needed is absent, or was made from another than stands in the study.
    """

    def __init__(self, root: str) -> None:
        study = open_study(root)
        first = {name: study.uris(name)[0] for name in ("normalized", "samples")}
        self._source, self._samples = first["normalized"], first["samples"]
        self._expression = study.uris("expression")[0]
        self._ds = open_labels(self._source, NORMALIZED)
        mask = open_store(self._samples, SAMPLES)
        self._std, self._mean = mask["gene_std"].values, mask["gene_mean"].values
        self._landmarks = study.uri("landmarks")
        check_together(root, (self._source, self._samples, self._landmarks))
        known = self._made_before()
        penalties = known.get("details", {}).get("penalties") or []
        path = [Stretch(int(end), float(penalty)) for end, penalty in penalties]
        self._path: Sequence[Stretch] = path or CONSTANT
        self._parameters = known.get("parameters", {})
        seed = int(self._parameters.get("seed", 0))
        nothing = np.full(self._std.size, np.nan)
        self._sketch = sketch_training(self._source, self._samples, nothing, seed=seed)
        self._names = feature_names(self._ds)
        self._held = _HeldRows(self._source, self._samples)
        self._free: dict[int, Index] = {}

    def _made_before(self) -> dict[str, Any]:
        """Return what the study's panels were made with; nothing where it has none."""
        try:
            return read_attributes(self._landmarks) or {}
        except StoreError:
            return {}

    def order(self, asked: Conditions, *, each: bool = False) -> Ordered:
        """Return a panel within conditions, and what they cost.

        Parameters
        ----------
        asked
            The conditions.
        each
            Whether each condition is priced alone, too.

        Raises
        ------
        ConfigError
            When a gene is unknown or forced and excluded at once, or too few genes are left.
        SourceError
            When a file is not what it should be.
        """
        with threadpool_limits(1, user_api="blas"):  # two threads wait more than they gain
            return self._order(asked, each=each)

    def _order(self, asked: Conditions, *, each: bool) -> Ordered:
        notes: list[str] = []
        panel, why, allowed, cost, limits = self._choose(asked, notes)
        free = self._without_conditions(asked.size)
        price = {"all": self._price(panel, free)}
        if each:
            for name, alone in asked.parts().items():
                price[name] = self._price(self._choose(alone, [])[0], free)
        if panel.size < asked.size:
            notes.append(
                f"The panel ends with {panel.size} of {asked.size} genes: no other can be paid."
            )
        able = allowed if limits is None else allowed & limits.stand_ins(panel)
        table = self._table(panel, why, able, cost)
        notes += [*self._penalty_notes(panel.size), *_repeat_notes(table)]
        return Ordered(
            table,
            price,
            int(allowed.sum()) + sum(reason == "included" for reason in why),
            float(cost[panel].sum()),
            self._held.n_samples,
            notes,
        )

    def _penalty_notes(self, size: int) -> list[str]:
        """Return what a user should know of a penalty that was not chosen for a panel's size."""
        told, end = "", self._path[-1].end
        is_chosen = self._path is not CONSTANT
        if not is_chosen and self._parameters.get("selector", "greedy") != "greedy":
            told = (
                f"The study chose no penalties: one of {CONSTANT[0].penalty:g} was taken. Mine it "
                "with select.selector = 'greedy' to have them chosen."
            )
        elif is_chosen and size > end:
            told = (
                f"The study chose its penalty for panels of up to {end} genes: a larger one may do "
                f"a little better when it is mined with select.n_landmarks = {size}."
            )
        return [told] if told else []

    def why(self, ordered: Ordered, name: str) -> list[str]:
        """Return what a gene does on a panel, in words; or which of its genes is most like it.

        Raises
        ------
        ConfigError
            When the study has no such gene.
        """
        try:
            rules = self._rules(Conditions(1, include=(name,)))
        except ConfigError as error:
            raise ConfigError(str(error).replace("--include", "--why")) from None
        gene = self._names["genes"][rules.forced[0]]
        row = ordered.table[ordered.table["gene"] == gene]
        if len(row):
            one = row.iloc[0]
            return [
                (
                    f"{_called(one)} is gene {one['position']}: {one['why']}, "
                    f"{one['share']:.2f} % of what its genes would cost, each left out in turn."
                ),
                f"It serves {one['serves']}.",
                f"Instead: {one['instead']}.",
            ]
        z, panel = (
            self._sketch.rows,
            self._ds.indexes["gene"].get_indexer(pd.Index(ordered.table["gene"])),
        )
        own = z[:, rules.forced[0]]
        r = (own @ z[:, panel]) / np.maximum(
            np.linalg.norm(own) * np.linalg.norm(z[:, panel], axis=0), 1e-12
        )
        best = int(np.abs(r).argmax())
        return [
            (
                f"{name} is not on the panel. The gene of the panel most like it is "
                f"{_called(ordered.table.iloc[best])} (r = {r[best]:.2f})."
            )
        ]

    # ------------------------------------------------------------ what may be chosen

    def _rules(self, asked: Conditions) -> Rules:
        options = PanelOptions(
            forced=asked.include if isinstance(asked.include, str) else tuple(asked.include),
            excluded=asked.exclude if isinstance(asked.exclude, str) else tuple(asked.exclude),
            exclude_controls=asked.exclude_controls,
            exclude_unnamed=asked.exclude_unnamed,
        )
        try:
            return find_rules(self._ds, self._std, options, sizes=[asked.size], place="--size")
        except ConfigError as error:
            text = str(error)
            for before, now in _CALLED.items():
                text = text.replace(before, now)
            raise ConfigError(text) from None

    def _choose(
        self, asked: Conditions, notes: list[str]
    ) -> tuple[Index, list[str], Mask, Float64, Limits | None]:
        """Return a panel, why each gene is on it, what else may be chosen, costs and limits."""
        rules = self._rules(asked)
        notes += excluded_lines("--exclude", unmatched(self._ds, asked.exclude))
        start = self._start(asked.start)
        if clash := sorted({*start.tolist()} & {*rules.excluded}):
            raise ConfigError(
                f"--start: {self._labels(clash)} stand in --exclude too. Drop them from one."
            )
        allowed = allowed_genes("greedy", self._sketch, rules.forced, rules.excluded)
        can_be_made, cannot = self._feasible(asked, notes)
        allowed &= self._in_window(asked) & can_be_made
        allowed &= ~self._is_like(asked, notes)
        if asked.min_detected is not None:
            allowed[undetected(self._expression, asked.min_detected, "--min-detected")] = False
        must = np.array(rules.forced, dtype=np.int64)
        first = np.concatenate([must, start[~np.isin(start, must)]])
        if cannot[first].any():
            raise ConfigError(
                f"--feasible: says no of {self._labels(first[cannot[first]].tolist())}, which "
                "--include or --start holds. Drop them from one."
            )
        allowed[first] = False
        cost = self._costs(asked, notes)
        limits = self._limits(asked, cost, allowed, first, notes)
        if asked.size < first.size:
            ridge = penalty_at(self._path, first.size) * self._sketch.n_samples
            panel = shrink_order(self._sketch.rows, first, asked.size, ridge=ridge, forced=must)
        else:
            n_left = int(allowed.sum()) + first.size
            if n_left < asked.size:
                raise ConfigError(
                    f"--size: expected at most {n_left}, the genes that the conditions leave, got "
                    f"{asked.size}. Loosen a condition or ask for fewer genes."
                )
            panel = greedy_path(
                self._sketch, asked.size, self._path, forced=first, allowed=allowed, limits=limits
            )
        reasons = dict.fromkeys(limits.needed if limits else [], "chosen for a set")
        reasons |= dict.fromkeys(start.tolist(), "on the panel before")
        reasons |= dict.fromkeys(rules.forced, "included")
        why = [reasons.get(gene, "chosen") for gene in panel.tolist()]
        if limits is not None and (n_short := np.count_nonzero(limits.lacks(panel))):
            raise ConfigError(
                f"--sets: the panel that exists, made smaller to {asked.size} genes, holds fewer "
                f"than {asked.at_least} of {n_short} of {len(limits.member)} sets. Ask for more "
                "genes, fewer of each set, or leave out --start."
            )
        return panel, why, allowed, cost, limits

    def _without_conditions(self, size: int) -> Index:
        """Return the greedy panel of a size: the beginning of the study's own, where it is one."""
        if size not in self._free:
            known = self._parameters
            rules = ("forced", "excluded", "exclude_controls", "exclude_unnamed")
            is_free = known.get("selector") == "greedy" and not any(map(known.get, rules))
            is_free &= not {"forced", "excluded"} & self._files_of_rules()
            mined = self._start("mined") if is_free else np.empty(0, dtype=np.int64)
            is_known = mined.size >= size
            self._free[size] = mined[:size] if is_known else self._choose(Conditions(size), [])[0]
        return self._free[size]

    def _files_of_rules(self) -> set[str]:
        """Return which choices of the study's panels were files."""
        return {str(entry.get("role")) for entry in self._made_before().get("inputs", [])}

    def _start(self, start: str) -> Index:
        """Return the genes of a panel that exists."""
        if not start:
            return np.empty(0, dtype=np.int64)
        if start == "mined":
            ds = open_store(self._landmarks, LANDMARKS)
            genes = ds["panel_gene"].values[list(ds["panel"].values).index("mined")]
            return np.asarray(self._ds.indexes["gene"].get_indexer(genes), dtype=np.int64)
        return np.array(
            [features[0] for features in self._find(read_gene_list(start), "--start")],
            dtype=np.int64,
        )

    def _find(self, names: Sequence[str], place: str) -> list[list[int]]:
        """Return the features of genes, all of which must be measured."""
        found = find_genes(names, **self._names)
        if unknown := [n for n, features in zip(names, found, strict=True) if not features]:
            raise ConfigError(
                f"{place}: expected genes of the study, got {unknown[:5]!r} among {len(names)}. "
                "Correct or remove them."
            )
        return found

    def _in_window(self, asked: Conditions) -> Mask:
        low = -np.inf if asked.min_mean is None else asked.min_mean
        high = np.inf if asked.max_mean is None else asked.max_mean
        if not low < high:
            raise ConfigError(
                f"--min-mean, --max-mean: expected a window, got {low:g} to {high:g}. Swap them."
            )
        return np.asarray((self._mean >= low) & (self._mean <= high))

    def _is_like(self, asked: Conditions, notes: list[str]) -> Mask:
        """Return which genes have a symbol of those that are left out."""
        found = np.zeros(self._std.size, dtype=bool)
        expected = (
            f"--exclude-like: expected {', '.join(FAMILIES)} or a regular expression of symbols"
        )
        for name in asked.exclude_like:
            try:
                like = is_like(name, self._names["symbols"])
            except re.error as error:
                raise ConfigError(f"{expected}, got {name!r}: {error}.") from None
            if not like.any() and name not in FAMILIES:
                raise ConfigError(f"{expected}, got {name!r}, which no symbol is. Correct it.")
            notes.append(f"--exclude-like {name}: {int(like.sum())} of {like.size} genes.")
            found |= like
        return found

    def _feasible(self, asked: Conditions, notes: list[str]) -> tuple[Mask, Mask]:
        """Return which genes can be made, and of which the file says no."""
        allowed = np.ones(self._std.size, dtype=bool)
        refused = ~allowed
        if not asked.feasible:
            return allowed, refused
        told = read_gene_values(asked.feasible)
        if wrong := [v for v in told.values() if v.lower() not in (*_YES, *_NO)]:
            raise SourceError(f"--feasible: expected yes or no of each gene, got {wrong[0]!r}.")
        allowed[:] = False
        n_unknown = 0
        for value, features in zip(
            told.values(), find_genes(list(told), **self._names), strict=True
        ):
            n_unknown += not features
            allowed[features] = value.lower() in _YES
            refused[features] = value.lower() in _NO
        notes.append(
            f"--feasible: {int(allowed.sum())} of {allowed.size} genes can be made"
            + (
                f"; {n_unknown} of its {len(told)} genes are not in the study."
                if n_unknown
                else "."
            )
        )
        return allowed, refused

    def _costs(self, asked: Conditions, notes: list[str]) -> Float64:
        cost = np.ones(self._std.size)
        if not asked.costs:
            return cost
        told = read_gene_values(asked.costs)
        n_told = 0
        for (name, text), features in zip(
            told.items(), find_genes(list(told), **self._names), strict=True
        ):
            try:
                value = float(text)
            except ValueError:
                value = np.nan
            if not 0 < value < np.inf:
                raise SourceError(f"--costs: expected a number over 0 of {name}, got {text!r}.")
            cost[features] = value
            n_told += len(features)
        notes.append(f"--costs: {cost.size - n_told} genes have none there and count 1.")
        return cost

    def _limits(
        self, asked: Conditions, cost: Float64, allowed: Mask, first: Index, notes: list[str]
    ) -> Limits | None:
        """Return the limits of greedy selection, None where there are none."""
        if asked.at_least != 1 and not asked.sets:
            raise ConfigError(
                f"--at-least: expected --sets beside it, got {asked.at_least} alone. Give a file "
                "of sets, or leave it out."
            )
        if not (asked.costs or asked.sets or asked.budget is not None):
            return None
        budget = np.inf if asked.budget is None else asked.budget
        cheapest = float(cost[allowed].min(initial=np.inf))
        if not first.size and not budget >= cheapest:  # also of NaN
            raise ConfigError(
                f"--budget: expected {cheapest:g} at least, which the cheapest gene costs, got "
                f"{budget:g}."
            )
        if not cost[first].sum() <= budget:
            raise ConfigError(
                f"--budget: expected {cost[first].sum():g} at least, which the genes cost that are "
                f"included, got {budget:g}."
            )
        limits = Limits(asked.size, cost, budget, np.zeros((0, cost.size), dtype=np.uint16), 0)
        if asked.sets:
            notes += hold_sets(
                limits, asked.sets, asked.at_least, self._names, first=first, allowed=allowed
            )
        return limits

    # ------------------------------------------------------------ what comes out

    def _price(self, panel: Index, free: Index) -> Price:
        """Return what a panel costs in error beside one without conditions, NaN for unknown."""
        used = np.union1d(panel, free)
        open_ = np.setdiff1d(np.flatnonzero(self._std > 0), used)
        targets = np.sort(np.random.default_rng(0).permutation(open_)[:N_TARGETS])
        if not (targets.size and self._held.n_samples):
            return Price(*[np.nan] * 5)
        errors, others = (
            self._held.errors(self._sketch, genes, targets) for genes in (panel, free)
        )
        difference = errors - others
        low, high = bootstrap_interval(difference[None], self._held.series)[0]
        return Price(
            float(errors.mean()), float(others.mean()), float(difference.mean()), low, high
        )

    def _table(
        self, panel: Index, why: Sequence[str], allowed: Mask, cost: Float64
    ) -> pd.DataFrame:
        ridge = penalty_at(self._path, panel.size) * self._sketch.n_samples
        rows, products = self._sketch.rows, self._sketch.products
        roles = panel_roles(rows, panel, ridge=ridge, allowed=allowed, products=products)
        share = 100 * roles.loss / max(roles.loss.sum(), np.finfo(float).tiny)
        columns = {"gene": "genes", "gene_symbol": "symbols", "gene_id": "gene_ids"}
        return pd.DataFrame(
            {
                "position": np.arange(1, panel.size + 1),
                **{n: [self._names[of][g] for g in panel] for n, of in columns.items()},
                "why": why,
                "share": share,
                "mean": self._mean[panel],
                "cost": cost[panel],
                "serves": [
                    ", ".join(dict.fromkeys(map(self._label, served))) or "itself alone"
                    for served in roles.served
                ],
                "instead": [
                    ", ".join(
                        f"{self._label(g)} ({np.round(100 * (kept - 1)) + 0:+.0f} %)"
                        for g, kept in zip(genes, regained, strict=True)
                        if kept > -np.inf
                    )
                    or "none"
                    for genes, regained in zip(roles.substitute, roles.regained, strict=True)
                ],
            }
        )

    def _labels(self, genes: Sequence[int]) -> str:
        return ", ".join(self._label(gene) for gene in genes[:5])

    def _label(self, gene: int) -> str:
        return self._names["symbols"][gene] or self._names["genes"][gene]


class _HeldRows:
    """Held-out samples, at most ``N_JUDGED`` of them, that panels are judged on."""

    def __init__(self, source: str, samples: str) -> None:
        held = np.flatnonzero(kept_samples(source, samples, "test"))
        some = held[:: max(1, -(-held.size // N_JUDGED))]
        chosen = np.zeros(kept_samples(source, samples).size, dtype=bool)
        chosen[some] = True
        cohort = HeldOut(source, samples, chosen)
        self._z = cohort.columns(np.arange(read_array(samples, "gene_std").size))
        self.series, self.n_samples = cohort.series, some.size

    def errors(self, sketch: GeneSketch, panel: Index, targets: Index) -> Float64:
        """Return the mean error of each sample over targets, by ridge fitted on the sketch.

        The penalty is that of the lowest error on the first inner fold of the sketch.
        """
        alphas = [alpha * sketch.n_samples for alpha in ALPHAS]
        rows = sketch.rows
        held = np.arange(len(rows)) % 10 == 0 if sketch.group is None else sketch.group == 0
        tuned = _fit(rows[~held], panel, targets)
        tried = predict_ridge(tuned, rows[held][:, panel], alphas)
        best = int(np.argmin([np.abs(p - rows[held][:, targets]).mean() for p in tried]))
        x = np.nan_to_num(self._z[:, panel])
        predicted = predict_ridge(_fit(rows, panel, targets), x, [alphas[best]])[0]
        return np.asarray(np.nanmean(np.abs(predicted - self._z[:, targets]), axis=1), np.float64)


def is_like(name: str, symbols: Sequence[str]) -> Mask:
    """Return which symbols are of a family, or match a regular expression whole.

    Of symbols joined by ``/`` or blanks one is enough.

    Raises
    ------
    re.error
        When it is no regular expression.

    Examples
    --------
    >>> is_like("ribosomal", ["RPL13A", "RPS6KA1", "MRPL12", "A1BG /// RPSA"]).tolist()
    [True, False, True, True]
    >>> is_like("znf.*", ["ZNF74", ""]).tolist()
    [True, False]
    """
    pattern = re.compile(FAMILIES.get(name, name), re.IGNORECASE)
    return np.array(
        [any(part and pattern.fullmatch(part) for part in re.split(r"[\s/]+", s)) for s in symbols],
        dtype=bool,
    )


def _fit(rows: NDArray[np.float32], panel: Index, targets: Index) -> RidgePath:
    return ridge_path(ridge_partial(rows[:, panel], rows[:, targets]))


def check_sheet(path: Path) -> None:
    """Refuse an order sheet that is called as another kind of file.

    Raises
    ------
    ConfigError
        Saying how it may be called.
    """
    if path.suffix not in ("", ".tsv", ".csv"):
        raise ConfigError(
            f"--output: expected a file of .tsv or .csv, got {path.suffix!r}. Name it so."
        )


def write_sheet(ordered: Ordered, path: Path) -> None:
    """Write the order sheet, a row a gene: tab-separated, or by commas as .csv.

    Raises
    ------
    ConfigError
        When the file is called otherwise.
    """
    check_sheet(path)
    table = ordered.table.map(no_formula)
    separator = "," if path.suffix == ".csv" else "\t"
    text = table.to_csv(sep=separator, index=False, float_format="%.4g", lineterminator="\n")
    put(str(path), text.encode("utf-8"))


def _repeat_notes(table: pd.DataFrame) -> list[str]:
    """Return which genes stand on a panel by several features."""
    symbols = table["gene_symbol"][table["gene_symbol"] != ""]
    repeated = list(dict.fromkeys(symbols[symbols.duplicated()]))
    if not repeated:
        return []
    shown = ", ".join(map(str, repeated[:5])) + (", ..." if len(repeated) > 5 else "")
    what = "gene stands" if len(repeated) == 1 else "genes stand"
    return [f"{len(repeated)} {what} there by several features ({shown})."]


def _called(row: pd.Series[Any]) -> str:
    symbol, gene = str(row["gene_symbol"]), str(row["gene"])
    return f"{symbol} ({gene})" if symbol and symbol != gene else gene
