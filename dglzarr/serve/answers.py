"""What a study answers: everything that pages and the API tell, from one state of its stores.

The only module of the application that asks stores and the panel maker. What is asked most is in
memory; values of a gene are read when they are asked for, and are known to be of the same stores.
"""

from __future__ import annotations

import logging
import math
import threading
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dglzarr.errors import DglzarrError
from dglzarr.kernels.comparison import paired_difference
from dglzarr.kernels.split import SPLITS
from dglzarr.query.answers import Likeness, likeness_of, nearest
from dglzarr.query.labels import called, labels_told
from dglzarr.serve.genes import LONGEST_NAME, GeneIndex
from dglzarr.serve.groups import N_GROUPS, Groups, group_samples, spreads
from dglzarr.serve.later import Later
from dglzarr.serve.refusals import BadQuestion, Busy, NoGene, NotFound, NotMade
from dglzarr.serve.stamps import stamp_of
from dglzarr.storage.files import place_of, plain
from dglzarr.storage.rows import Rows
from dglzarr.storage.schemas import SPECS
from dglzarr.storage.store import open_labels, open_store
from dglzarr.storage.study import open_study
from dglzarr.storage.together import check_together

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from dglzarr.evaluation.order import Conditions, Ordered, PanelMaker
    from dglzarr.serve.cache import ArrayCache
    from dglzarr.serve.genes import Aliases

logger = logging.getLogger(__name__)

LABELS = ("series", "platform", "source", "split")
MOST_LABEL_VALUES = 2000
N_PANELS_KEPT = 16
MOST_AT_ONCE = 10**8
"""Values of a study of which all is prepared when it is opened."""


class Answers:
    """A study as it stands at one moment.

    Parameters
    ----------
    name, root
        What the study is called here, and its folder.
    cache
        Keeps values of genes.
    aliases
        Other names of genes, as `GeneIndex` has them.

    Raises
    ------
    Busy
        When it is changed meanwhile.
    StoreError, SchemaError
        When it cannot be read.
    """

    def __init__(
        self, name: str, root: str, cache: ArrayCache, aliases: Aliases | None = None
    ) -> None:
        self.name, self.root, self._cache, self._aliases = name, root, cache, aliases
        self.stamp = stamp_of(root)
        self._study = open_study(root)
        self.problems: dict[str, str] = {}
        for name in ("normalized", "samples"):
            check_together(root, self._study.uris(name))
        self._load_samples()
        self._load_genes()
        self._by_label: dict[tuple[str, bool], Groups] = {}
        self._one_at_a_time = threading.Lock()
        self.maker: Later[PanelMaker] = Later(self._make_maker, "The panel maker of this study")
        self.likeness: Later[Likeness] = Later(self._make_likeness, "How alike genes are")
        self.mined: Later[Ordered] = Later(self._mined, "What the genes of the panel are for")
        self.order = lru_cache(maxsize=N_PANELS_KEPT)(self._order)
        self._rows = lru_cache(self._open_rows)
        self.check()

    def begin(self) -> None:
        """Begin what takes long: neighbours; of a small study also what panels need.

        That reads all samples; of a large one it is begun when somebody asks for it.
        """
        self.likeness.begin()
        if self.n_samples * len(self.genes) > MOST_AT_ONCE:
            return
        self.maker.begin()
        if "mined" in self.panels:
            self.mined.begin()

    def check(self) -> None:
        """Refuse where the study is another by now: nothing is told of two states at once."""
        if stamp_of(self.root) != self.stamp:
            raise Busy("This study is being changed. Ask again in some seconds.")

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Read something that was not read before: of this state of the study or not at all."""
        self.check()
        try:
            yield
        except OSError:
            self.check()
            raise
        self.check()

    # ------------------------------------------------------------ what is in memory

    def _load_samples(self) -> None:
        parts = [open_labels(uri, SPECS["normalized"]) for uri in self._study.uris("normalized")]
        masks = [open_labels(uri, SPECS["samples"]) for uri in self._study.uris("samples")]
        self._normalized_genes = parts[0]
        self.keep = np.concatenate([mask["keep"].values for mask in masks])
        self.split = np.concatenate([part["split"].values for part in parts])
        self.n_samples = int(self.keep.size)
        self._label_values = _sample_labels(parts, {"sample", *labels_told(parts[0], masks[0])})
        self.mean, self.std = masks[0]["gene_mean"].values, masks[0]["gene_std"].values

    def _load_genes(self) -> None:
        names = ("gene", "gene_symbol", "gene_id")
        told = {name: _texts(self._normalized_genes, name) for name in names}
        n_genes = len(told["gene"])
        self._landmarks = self._optional("landmarks", told["gene"])
        self._scores = self._optional("scores", told["gene"])
        self.score = np.full(n_genes, np.nan)
        if self._scores is not None:
            self.score = self._scores["score"].values
        by_score = np.argsort(np.nan_to_num(-self.score, nan=np.inf), kind="stable")
        self.rank = np.empty(n_genes, np.int64)
        self.rank[by_score] = np.arange(1, n_genes + 1)
        self.panels: dict[str, list[int]] = {}
        self.kinds: dict[str, str] = {}
        self.genes = GeneIndex(
            told["gene"], told["gene_symbol"], told["gene_id"], self.rank.tolist(), self._aliases
        )
        if self._landmarks is not None:
            self._load_panels(self._landmarks)
        self.latent_score = None if self._scores is None else self._scores["latent_score"].values
        self.latents = [] if self._scores is None else self._scores["latent"].values.tolist()

    def _load_panels(self, landmarks: xr.Dataset) -> None:
        self.panel_rank = landmarks["rank"].values
        place = {label: i for i, label in enumerate(self.genes.labels)}
        for name, kind, row in zip(
            _texts(landmarks, "panel"),
            _texts(landmarks, "kind"),
            landmarks["panel_gene"].values.tolist(),
            strict=True,
        ):
            self.panels[name] = [place[gene] for gene in map(str, row) if gene]
            self.kinds[name] = kind
        self.is_landmark = landmarks["is_landmark"].values

    def _optional(self, schema: str, genes: Sequence[str]) -> xr.Dataset | None:
        """Return a store of one line a gene, None where the study has none that can be read."""
        uri = self._study.uri(schema)
        try:
            ds = open_store(uri, SPECS[schema]).load()
            check_together(self.root, [uri])
        except DglzarrError as error:
            self.problems[schema] = str(error)
            if place_of(uri).exists():
                logger.warning("%s", error)
            return None
        if _texts(ds, "gene") != list(genes):
            self.problems[schema] = f"{schema}: made from other genes. Run its stage again."
            return None
        return ds

    def _made(self, schema: str, value: Any) -> Any:  # noqa: ANN401
        if value is None:
            stands = place_of(self._study.uri("scores" if schema == "scores" else "landmarks"))
            when = "that belong to it and can be read" if stands.exists() else "yet"
            raise NotMade(f"This study has no {schema} {when}. 'dglzarr mine' makes them.")
        return value

    # ------------------------------------------------------------ genes

    def facts(self) -> dict[str, Any]:
        """Return what the study is, in numbers."""
        counts = {name: int((self.split == code).sum()) for code, name in enumerate(SPLITS)}
        return {
            "study": self.name,
            "n_samples": self.n_samples,
            "n_kept": int(self.keep.sum()),
            "split": counts,
            "n_genes": len(self.genes),
            "n_series": len(set(self._label_values["series"])),
            "n_latent": len(self.latents),
            "panels": {n: {"kind": self.kinds[n], "size": len(g)} for n, g in self.panels.items()},
            "labels": self.labels,
            "segments": list(self._study.segments),
            "not_made": sorted(self.problems),
        }

    def find(self, name: str) -> list[int]:
        """Return the features that a name stands for, by rank.

        Raises
        ------
        NotFound
            When there is none, with names that are like it.
        """
        if len(name) > LONGEST_NAME:
            raise BadQuestion(f"name: expected at most {LONGEST_NAME} characters, got {len(name)}.")
        found = self.genes.find(name)
        if not found:
            near = tuple(self.genes.near(name))
            raise NoGene(f"This study has no gene {name!r}.", near)
        return found

    def gene(self, place: int) -> dict[str, Any]:
        """Return what is known of a feature."""
        genes = self.genes
        is_ranked = self._landmarks is not None
        return {
            "gene": genes.labels[place],
            "gene_symbol": genes.symbols[place],
            "gene_id": genes.ids[place],
            "called": genes.called(place),
            "rank_by_score": plain(self.rank[place]) if np.isfinite(self.score[place]) else None,
            "score": plain(self.score[place]),
            "rank": int(self.panel_rank[place]) if is_ranked else None,
            "is_landmark": bool(self.is_landmark[place]) if is_ranked else None,
            "mean": plain(self.mean[place]),
            "std": plain(self.std[place]),
        }

    def memberships(self, place: int) -> dict[str, int]:
        """Return the position of a feature on each panel that holds it, random ones aside."""
        return {
            name: genes.index(place) + 1
            for name, genes in self.panels.items()
            if self.kinds[name] != "random" and place in genes
        }

    def programs(self, place: int, n: int) -> list[dict[str, Any]]:
        """Return the latent units that use a feature most, and its rank in each."""
        scores = self._made("scores", self.latent_score)
        own = scores[:, place]
        return [
            {
                "latent": int(self.latents[unit]),
                "score": plain(own[unit]),
                "rank": int((scores[unit] > own[unit]).sum()) + 1,
                "share": plain(own[unit] / max(float(own.sum()), 1e-30)),
            }
            for unit in np.argsort(-own, kind="stable")[:n].tolist()
        ]

    def program(self, latent: int, n: int) -> list[dict[str, Any]]:
        """Return the features that a latent unit uses most."""
        scores = self._made("scores", self.latent_score)
        if latent not in self.latents:
            raise NotFound(f"This study has no latent unit {latent}; it has {len(self.latents)}.")
        own = scores[self.latents.index(latent)]
        best = np.argsort(-own, kind="stable")[:n].tolist()
        return [{**self.gene(place), "latent_score": plain(own[place])} for place in best]

    def neighbours(self, place: int, n: int) -> list[dict[str, Any]]:
        """Return the features most correlated with one, either way, over kept training samples."""
        r = self.likeness.get().correlations(place)
        best = nearest(r, place, n)
        return [{**self.gene(i), "r": plain(r[i])} for i in best.tolist()]

    # ------------------------------------------------------------ values over samples

    @cached_property
    def labels(self) -> list[str]:
        """The labels that samples can be grouped by, the most telling first."""
        found = {}
        for label in self._label_values:
            groups = self._groups(label)
            n_named = sum(members.size for members in groups.members)
            is_name = len(groups.names) > max(2, n_named // 2)
            if 2 <= len(groups.names) <= MOST_LABEL_VALUES and not is_name:
                found[label] = (label in LABELS, -n_named)
        return sorted(found, key=lambda label: found[label]) or ["series"]

    def _groups(self, label: str, *, trained: bool = False) -> Groups:
        """Return the kept samples by a label, all or those of training."""
        key = label, trained
        if key not in self._by_label:
            chosen = self.keep & (self.split == SPLITS.index("train")) if trained else self.keep
            self._by_label[key] = group_samples(label, self._label_values[label], chosen)
        return self._by_label[key]

    def _label(self, label: str) -> str:
        chosen = label or self.labels[0]
        if chosen not in self.labels:
            known = ", ".join(self.labels)
            raise BadQuestion(f"by: expected a label of the samples ({known}), got {label!r}.")
        return chosen

    def _values(self, schema: str, array: str, place: int) -> NDArray[np.float32]:
        """Return an array's values of a feature (sample,)."""

        def read() -> NDArray[np.float32]:
            with self._unchanged():
                return self._rows(schema, array).column(place)

        return self._cache.get((self.name, self.stamp, array, place), read)

    def _open_rows(self, schema: str, array: str) -> Rows:
        uris = self._study.uris(schema)
        check_together(self.root, uris)
        return Rows(uris, array)

    def expression(self, place: int, by: str = "", n: int = N_GROUPS) -> dict[str, Any]:
        """Return how a feature's normalized expression spreads in the groups of a label."""
        groups = self._groups(self._label(by))
        values = self._values("normalized", "expression", place)
        found = spreads(values, groups, n)
        return {
            "by": groups.label,
            "unit": "log2, quantile normalized",
            "n_groups": len(groups.names),
            "n_without": int(self.keep.sum()) - sum(m.size for m in groups.members),
            "spreads": found,
        }

    def scores_by(self, place: int, by: str = "", n: int = N_GROUPS) -> dict[str, Any]:
        """Return a feature's DeepLIFT score within the groups of a label.

        It is that of `scores`, of the kept training samples of each group.
        """
        groups = self._groups(self._label(by), trained=True)
        try:
            values = self._values("contributions", "contribution", place)
        except OSError as error:
            logger.warning("%s: contributions cannot be read: %s", self.name, error)
            raise NotMade("The contributions of this study are gone or damaged.") from error
        rows = [
            {"name": name, "n": int(members.size), "score": plain(_score(values[members]))}
            for name, members in zip(groups.names[:n], groups.members, strict=False)
        ]
        return {"by": groups.label, "n_groups": len(groups.names), "scores": rows}

    # ------------------------------------------------------------ panels

    def _make_maker(self) -> PanelMaker:
        from dglzarr.evaluation.order import PanelMaker  # noqa: PLC0415  (it takes seconds)

        with self._unchanged():
            return PanelMaker(self.root)

    def _make_likeness(self) -> Likeness:
        """Return what `neighbours` of the accessor compares, whatever other stores there are."""
        with self._unchanged():
            trained = self.keep & (self.split == SPLITS.index("train"))
            return likeness_of(self._study.uris("normalized")[0], trained)

    def _mined(self) -> Ordered:
        from dglzarr.evaluation.order import Conditions  # noqa: PLC0415

        mined = self._panel("mined")
        with self._one_at_a_time:
            return self.maker.get(wait=3600).order(Conditions(len(mined), start="mined"))

    def _panel(self, name: str) -> list[int]:
        self._made("panels", self._landmarks)
        if name not in self.panels:
            raise NotFound(f"This study has no panel {name!r}.", tuple(self.panels)[:5])
        return self.panels[name]

    def panel(self, name: str) -> list[dict[str, Any]]:
        """Return the genes of a panel, in its order."""
        return [
            {"position": i, **self.gene(place)}
            for i, place in enumerate(self._panel(name), start=1)
        ]

    def role(self, place: int) -> dict[str, Any]:
        """Return what a feature does on the mined panel, and what can be had instead.

        Of one that is not on it: the gene of the panel that is most like it.
        """
        mined = self._panel("mined")
        if place in mined:
            table = self.mined.get().table
            row = table[table["gene"] == self.genes.labels[place]].iloc[0]
            names = ("position", "why", "share", "serves", "instead")
            return {"on_panel": True, **{name: plain(row[name]) for name in names}}
        r = self.likeness.get().correlations(place)[mined]
        best = nearest(r, -1, 1).tolist()  # none of a gene without spread
        most_like = self.gene(mined[best[0]]) if best else None
        return {"on_panel": False, "most_like": most_like, "r": plain(r[best[0]]) if best else None}

    def compare(self, name: str, other: str) -> dict[str, Any]:
        """Return what two panels share, and how well each predicts the other genes."""
        ours, theirs = self._panel(name), self._panel(other)
        shared = set(ours) & set(theirs)
        return {
            "panels": [name, other],
            "sizes": [len(ours), len(theirs)],
            "shared": [self.gene(i) for i in ours if i in shared],
            "only": [[self.gene(i) for i in some if i not in shared] for some in (ours, theirs)],
            "errors": self._errors(name, other),
        }

    def _errors(self, name: str, other: str) -> list[dict[str, Any]]:
        """Return a row for each cohort and predictor: errors of two panels and their difference."""
        try:
            with self._unchanged():
                uri = self._study.uri("evaluation")
                ds = open_store(uri, SPECS["evaluation"])
                check_together(self.root, [uri])
                names = _texts(ds, "panel")
                if not {name, other} <= {*names}:
                    return []
                ds = ds.isel(panel=[names.index(name), names.index(other)]).load()
        except Busy:
            raise
        except DglzarrError as error:
            self.problems["evaluation"] = str(error)
            return []
        found = []
        for c, cohort in enumerate(_texts(ds, "cohort")):
            here = ds.isel(cohort=c, judged=np.flatnonzero(ds["judged_cohort"].values == cohort))
            for p, predictor in enumerate(_texts(ds, "predictor")):
                row = {"cohort": cohort, "predictor": predictor}
                found.append({**row, **_difference(here.isel(predictor=p))})
        return found

    def _order(self, asked: Conditions) -> Ordered:
        """Return a panel within conditions; one is made at a time."""
        maker = self.maker.get()
        with self._one_at_a_time:
            return maker.order(asked)


def _score(values: NDArray[np.float32]) -> float:
    known = values[~np.isnan(values)]
    return abs(float(known.mean(dtype=np.float64))) if known.size else math.nan


def _difference(here: xr.Dataset) -> dict[str, Any]:
    """Return the errors of two panels of one cohort by one predictor, and their difference."""
    error, mae = here["sample_error"].values, here["mae"].values
    series = here["judged_series"].values.astype(object)
    found = paired_difference(error[0], error[1], series, (mae[0], mae[1]))
    known = ~np.isnan(mae).any(axis=0)
    share = float((mae[0, known] < mae[1, known]).mean()) if known.any() else math.nan
    return {
        "mae": [plain(value) for value in here["mean_mae"].values],
        "n_samples": int(here["n_samples"]),
        "n_targets": int(known.sum()),
        "share_better": plain(share),
        **{name: plain(value) for name, value in found._asdict().items()},
        "sign": found.sign,
    }


def _texts(ds: xr.Dataset, name: str) -> list[str]:
    return [str(value) for value in ds[name].values.tolist()]


def _sample_labels(parts: Sequence[xr.Dataset], taken: set[str]) -> dict[str, list[str]]:
    """Return the value of each label of each sample, "" where it has none.

    Labels of the files with a name that is taken are called as `dglzarr query` calls them.
    """
    names = list(dict.fromkeys(label for part in parts for label in _texts(part, "label")))
    own = {shown: names[place] for shown, place in called(names, taken).items()}
    found: dict[str, list[str]] = {label: [] for label in (*own, *LABELS)}
    for part in parts:
        known = _texts(part, "label")
        table = part["sample_label"].values
        for shown, label in own.items():
            is_known = label in known
            values = table[:, known.index(label)].tolist() if is_known else [""] * len(table)
            found[shown] += map(str, values)
        for label in LABELS[:-1]:
            found[label] += _texts(part, label)
        found["split"] += [SPLITS[code] for code in part["split"].values.tolist()]
    return found
