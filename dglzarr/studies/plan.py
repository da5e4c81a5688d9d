"""The order of the stages, written once, and the runs that follow it.

A `Plan` is a value: which stage makes which store from which others, with which options. Folds and
replicates are variants of it. ``mine`` and ``refit`` run its steps through ``execute``, which the
command line leaves as a plain call and the Prefect flow wraps into a task.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dglzarr.errors import ConfigError, DglzarrError, StoreError, hint, shown
from dglzarr.kernels.panels import SELECTORS
from dglzarr.sources import source_name
from dglzarr.stages.candidates import CandidateOptions, candidates
from dglzarr.stages.dedup import dedup
from dglzarr.stages.encode import encode
from dglzarr.stages.enrich import enrich
from dglzarr.stages.evaluate import evaluate
from dglzarr.stages.explain import ExplainOptions, explain
from dglzarr.stages.group import group
from dglzarr.stages.ingest import SourceFile, SourceOptions, ingest_all, ingest_claims
from dglzarr.stages.join import join
from dglzarr.stages.normalize import normalize
from dglzarr.stages.reconstruct import reconstruct
from dglzarr.stages.score import ScoreOptions, score
from dglzarr.stages.select import select
from dglzarr.stages.train import train
from dglzarr.storage.cluster import client
from dglzarr.storage.cluster_options import ClusterOptions
from dglzarr.storage.files import modified, place_of, told
from dglzarr.storage.options import Run
from dglzarr.storage.stage import Stage
from dglzarr.storage.store import is_complete, open_labels, open_store
from dglzarr.storage.study import (
    FIRST_SEGMENTS,
    Study,
    check_root,
    create_study,
    locked,
    open_study,
    planned_study,
    retire,
    write_manifest,
)
from dglzarr.storage.workers import Need
from dglzarr.studies.early import (
    check_absolute,
    check_extras,
    check_genes,
    check_labels,
    check_panels,
)
from dglzarr.studies.fetch import (
    Found,
    Wanted,
    fetched_files,
    get_missing,
    is_remote,
    refused_sources,
    wanted,
)
from dglzarr.studies.landing import Landing
from dglzarr.studies.refusals import REFUSED, read_refused, settle
from dglzarr.studies.scale import IMPORTS_NBYTES, KERAS_NBYTES, Scale, memory_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from dglzarr.settings import Settings, SourceSettings
    from dglzarr.storage.claims import Claim, Difference
    from dglzarr.storage.options import Options

    Execute = Callable[["Step", Run], Any]

logger = logging.getLogger(__name__)

StepState = Literal["done", "to do", "other settings", "other inputs", "damaged", "blocked"]

OPTIONAL = ("group", "enrich")
"""Steps that a study has only where its settings ask for them."""

STEPS = (
    "ingest", "join", "normalize", "dedup", "train", "encode", "reconstruct", "explain", "score",
    "select", "evaluate", *OPTIONAL, "report",
)  # fmt: skip

VERBS = {
    "ingest": ("ingest", "join"),
    "encode": ("encode", "reconstruct"),
    "score": ("explain", "score"),
}
"""Commands that run more than the step of their name."""

_REPORTED = (
    "expression", "normalized", "samples", "reconstruction", "contributions", "scores", "landmarks",
    "evaluation",
)  # fmt: skip
_STAGES: dict[str, Stage[Any]] = {
    "join": join, "normalize": normalize, "dedup": dedup, "train": train, "encode": encode,
    "reconstruct": reconstruct, "explain": explain, "score": score, "select": select,
    "candidates": candidates, "evaluate": evaluate, "group": group, "enrich": enrich,
}  # fmt: skip


_ON_WORKERS = (
    "ingest", "join", "normalize", "dedup", "encode", "reconstruct", "explain", "score", "evaluate",
)  # fmt: skip
"""Steps whose work is done by workers."""

_MOST_LOOKED_AT = 200
"""Raw stores that one process looks at sooner than a cluster starts."""


class Standing(NamedTuple):
    """Whether what a step writes stands there; why not, where something else does."""

    state: StepState
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One stage call: what it is named, what it does, and what it writes."""

    name: str
    func: Callable[..., Any]
    arguments: Mapping[str, Any]
    writes: str

    def __call__(self, run: Run = Run()) -> Any:  # noqa: ANN401
        """Run the stage.

        Raises
        ------
        DglzarrError
            Whatever the stage raises; an error of the disk names what was to be written.
        """
        with told(self.writes):
            return self.func(**self.arguments, run=run)

    def claims(self) -> list[Claim]:
        """Return what the stage would find and do; nothing is changed.

        Raises
        ------
        DglzarrError
            When an input cannot be read.
        """
        if self.func is ingest_all:
            return ingest_claims(**self.arguments)
        assert isinstance(self.func, Stage)
        return [self.func.claim(**self.arguments)]

    def reads(self) -> set[str]:
        """Return the URIs of the stores that the stage reads."""
        found = set()
        for name, value in self.arguments.items():
            if name != "target":
                several = value if isinstance(value, (list, tuple)) else [value]
                found |= {uri for uri in several if isinstance(uri, str)}
        return found


@dataclass(frozen=True)
class Plan:
    """The steps of a study's first segment: ``plan["select"]``, or all in order.

    Attributes
    ----------
    settings
        The options of every stage.
    study
        Where stores stand.
    sources
        The files to read.
    seed
        Of all that is drawn.
    fold
        Which fold of how many of a cross-validation is the test split.
    places
        URIs of stores that stand elsewhere than in the study, by name; ``"model"`` is one.
    """

    settings: Settings
    study: Study
    sources: tuple[SourceFile, ...]
    seed: int
    fold: tuple[int, int] | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, *, study: Study | None = None) -> Plan:
        """Return the plan of a study; its grown segments stay as they are.

        What the study left out when it last grew stays out.

        Raises
        ------
        ConfigError
            When a source matches no file, two sources have one name, or a named file is absent;
            when a path is relative but workers are elsewhere.
        """
        if settings.cluster.is_elsewhere:
            check_absolute(settings)
        study = study or planned_study(settings.root)
        grown = sources_of(study.uris("expression")[1:])
        files = source_files(settings, study, without=read_refused(settings.root))
        sources = tuple(s for s in files if s.name not in grown)
        _check_files(settings)
        return cls(settings, study, sources, settings.seed)

    def variant(
        self,
        *,
        root: str | None = None,
        seed: int | None = None,
        fold: tuple[int, int] | None = None,
        places: Mapping[str, str] | None = None,
        **options: Options,
    ) -> Plan:
        """Return the same plan elsewhere, or with other options.

        Parameters
        ----------
        root
            Folder of the stores; the raw ones stay where they are.
        seed, fold, places
            As the attributes; ``places`` adds to those of the plan.
        options
            Of a stage, by section, as in ``evaluate=EvaluateOptions(...)``.

        Raises
        ------
        TypeError
            When there is no such section, or the options are another's.
        """
        for name, value in options.items():
            if not isinstance(value, type(getattr(self.settings, name, None))):
                raise TypeError(f"{name}: expected options of that section, got {value!r}")
        return replace(
            self,
            settings=self.settings.model_copy(update=options),
            study=self.study if root is None else Study(root, FIRST_SEGMENTS),
            seed=self.seed if seed is None else seed,
            fold=fold or self.fold,
            places={**self.places, **(places or {})},
        )

    def uri(self, name: str) -> str:
        """Return where a store, or the ``"model"``, stands."""
        if name in self.places:
            return self.places[name]
        if name == "model":
            return self.study.model(self.seed)
        return Study(self.study.root, self.study.segments[:1]).uri(name)

    def __getitem__(self, name: str) -> Step:
        """Return a step by name.

        Raises
        ------
        KeyError
            When there is no such step.
        """
        if name not in {*STEPS, *_STAGES}:
            raise KeyError(f"no step {name!r}: expected one of {', '.join(STEPS)}")
        if name == "ingest":
            return Step(name, ingest_all, {"sources": self.sources}, f"{self.study.root}/raw")
        if name == "report":
            return self._report()
        stage = _STAGES[name]
        target = self.uri(stage.writes)
        return Step(name, stage, {"target": target, **self._arguments(name)}, target)

    def __iter__(self) -> Iterator[Step]:
        """Yield the steps that the settings ask for, in order."""
        wanted = {"group": self.settings.group.label, "enrich": self.settings.enrich.files()}
        return (self[name] for name in STEPS if wanted.get(name, True))

    @property
    def compares_by_scores(self) -> bool:
        """Whether a compared selector reads DeepLIFT scores."""
        return any(SELECTORS[name].uses_score for name in self.settings.compare.selectors)

    def scoring(self) -> list[Step]:
        """Return the steps from training to scores, in order."""
        weighs = ExplainOptions.of(self.settings.score).weighs_by_latent
        names = ("train", *(("encode",) if weighs else ()), "explain", "score")
        return [self[name] for name in names]

    def _arguments(self, name: str) -> dict[str, Any]:
        """Return what a stage is called with, but for its target."""
        asked, uri, seed = self.settings, self.uri, {"seed": self.seed}
        data = {"source": uri("normalized"), "samples": uri("samples")}
        model = {"model": uri("model")}
        training, cohorts = (
            [s.raw for s in self.sources if s.options.role == role] for role in ("train", "cohort")
        )
        explained, scored = ExplainOptions.of(asked.score), ScoreOptions.of(asked.score)
        chosen = CandidateOptions.of(asked.compare, asked.select, asked.evaluate)
        latent = uri("latent") if explained.weighs_by_latent else None
        detected = uri("expression") if asked.select.min_detected is not None else None
        scores = uri("scores") if self.compares_by_scores else None
        judged = {**data, "landmarks": uri("landmarks"), "cohorts": cohorts}
        of_scores = {**data, "source": uri("scores"), "normalized": data["source"], **seed}
        of_scores |= {"expression": detected, "panels": asked.evaluate.panels}
        of_contributions = {**data, "source": uri("contributions"), "normalized": data["source"]}
        arguments: dict[str, dict[str, Any]] = {
            "join": {"source": training, "fold": self.fold, **seed, "options": asked.ingest},
            "normalize": {"source": uri("expression"), "options": asked.normalize},
            "dedup": {"source": uri("normalized"), **seed, "options": asked.dedup},
            "train": {**data, **seed, "options": asked.train},
            "encode": {**data, **model},
            "reconstruct": {**data, **model, "latent": uri("latent")},
            "explain": {**data, **model, "latent": latent, **seed, "options": explained},
            "score": {**of_contributions, "options": scored},
            "select": {**of_scores, "options": asked.select},
            "candidates": {**data, "scores": scores, **seed, "options": chosen},
            "evaluate": {**judged, **seed, "options": asked.evaluate},
            "group": {**judged, **model, "options": asked.group},
            "enrich": {"source": uri("landmarks"), "options": asked.enrich},
        }
        return arguments[name]

    def _report(self) -> Step:
        """Return the step that writes the page, with all that the study has by now."""
        settings, study = self.settings, self.study
        optional = {"groups": settings.group.label, "enrichment": settings.enrich.files()}
        asked = [name for name, wanted in optional.items() if wanted]
        made = [n for n in ("comparison", "stability") if is_complete(study.uri(n))]
        arguments = {
            "target": study.report,
            "stores": {name: study.uris(name) for name in (*_REPORTED, *asked, *made)},
            "model": self.uri("model"),
            "sources": [s.raw for s in self.sources],
            "title": settings.title,
        }
        return Step("report", _write_report, arguments, study.report)

    def standings(self) -> dict[str, Standing]:
        """Return how each step stands before anything is done; nothing is changed.

        Of a step in whose way something stands, whatever it is, the reasons tell.
        """
        found: dict[str, Standing] = {}
        pending: dict[str, str] = {}
        for step in self:
            if step.name == "report":
                is_behind = any(standing.state != "done" for standing in found.values())
                found["report"] = Standing("to do") if is_behind else report_standing(step)
            else:
                standing = _standing(step, pending)
                told = {reason for other in found.values() for reason in other.reasons}
                is_told = standing.reasons and set(standing.reasons) <= told
                found[step.name] = Standing("to do") if is_told else standing
        return found


def _standing(step: Step, pending: dict[str, str]) -> Standing:
    """Return how one step stands.

    ``pending`` are the stores that steps before it will make anew ("new"), go on with ("resumed")
    or may not replace ("refused"); its own are added.
    """
    awaited = {pending[uri]: Path(uri).name for uri in sorted(step.reads()) if uri in pending}
    try:
        claims = step.claims()
    except DglzarrError as error:
        if not awaited:  # something else is in its way
            pending[step.writes] = "refused"
            return Standing("blocked", (str(error),))
        claims = []
    differences = [difference for claim in claims for difference in claim.differences]
    if awaited:  # its inputs will be others
        differences = [d for d in differences if not d.is_input]
    if differences:
        pending |= {claim.uri: "refused" for claim in claims}
        return Standing(_state_of(differences), tuple(dict.fromkeys(map(str, differences))))
    if not awaited:
        pending |= {one.uri: one.state for one in claims if one.state in ("new", "resumed")}
        return Standing("done" if all(one.state == "unchanged" for one in claims) else "to do")
    pending[step.writes] = next(s for s in ("refused", "new", "resumed") if s in awaited)
    if pending[step.writes] == "new" and any(claim.state != "new" for claim in claims):
        return Standing("other inputs", (f"{awaited['new']} will be made anew",))
    return Standing("to do")


def _state_of(differences: Sequence[Difference]) -> StepState:
    if any(difference.is_damage for difference in differences):
        return "damaged"
    is_input = all(difference.is_input for difference in differences)
    return "other inputs" if is_input else "other settings"


def report_standing(step: Step) -> Standing:
    """Return whether the page is of this title and younger than all stores it tells of."""
    page = place_of(step.writes)
    if not page.exists():
        return Standing("to do")
    stores = [uri for uris in step.arguments["stores"].values() for uri in uris]
    records = [place_of(uri, "zarr.json") for uri in stores]
    made = max((modified(record) for record in records if record.exists()), default=0.0)
    is_titled = escape(step.arguments["title"]) in page.read_text(encoding="utf-8")
    return Standing("done" if is_titled and modified(page) >= made else "to do")


def _write_report(*, run: Run, **arguments: Any) -> str:  # noqa: ANN401
    del run  # it takes seconds, and is always written anew
    from dglzarr.report.page import write_report  # noqa: PLC0415  (matplotlib takes a second)

    return write_report(**arguments)


# ---------------------------------------------------------------- sources


def source_files(
    settings: Settings, study: Study, *, without: Collection[str] = ()
) -> list[SourceFile]:
    """Return the files that the settings' patterns stand for, sorted within each pattern.

    Parameters
    ----------
    settings, study
        What names them, and where their raw stores are.
    without
        What is left out: fetched sources as the lock calls them, and raw stores by name.

    Raises
    ------
    ConfigError
        When a pattern matches no file, or two files would have one raw store.
    """
    found: dict[str, SourceFile] = {}
    for i, source in enumerate(settings.sources):
        place = f"sources.{i}"
        is_fetched = is_remote(source)
        files = (
            fetched_files(settings, place, without=without) if is_fetched else _local(place, source)
        )
        for file in files:
            path, name = file.path, source_name(file.path)
            if name in without:
                continue
            if name in found:
                is_same = found[name].path == path
                raise ConfigError(
                    f"{place}.uri: {path} is listed twice. Remove one of the two."
                    if is_same
                    else f"{place}.uri: {path} and {found[name].path} are both named {name!r}. "
                    "Rename one of the files."
                )
            found[name] = _source_file(study, source, file)
    return list(found.values())


def _source_file(study: Study, source: SourceSettings, file: Found) -> SourceFile:
    """Return a file with its raw store, and what the settings and its fetching say of it."""
    name = source_name(file.path)
    options = SourceOptions.of(source).model_copy(update=file.options)
    if options.sample_sheet:
        sheet = options.sample_sheet.replace("{stem}", name)
        options = options.model_copy(update={"sample_sheet": sheet})
    return SourceFile(file.path, study.raw(name), options)


def _local(place: str, source: SourceSettings) -> list[Found]:
    """Return the files of this machine that an entry of the settings stands for."""
    pattern = str(source.uri)
    if paths := sorted(str(p) for p in _matching(pattern)):
        return [Found(path) for path in paths]
    if Path(pattern).is_dir():
        raise ConfigError(
            f"{place}.uri: expected files, got the folder {pattern}. "
            "Add a pattern, such as /*_series_matrix.txt.gz."
        )
    advice = _by_accession(pattern)
    told = f".{advice}" if advice else f"{_file_hint(pattern)}."
    raise ConfigError(f"{place}.uri: no such file: {pattern}{told}")


def sources_of(expression: Sequence[str]) -> set[str]:
    """Return the names of the sources that some expression stores hold."""
    return {str(name) for uri in expression for name in set(open_store(uri)["source"].values)}


def _check_files(settings: Settings) -> None:
    """Refuse settings that name a file which is not there, before any work."""
    beside = {
        f"sources.{i}.{name}": path
        for i, source in enumerate(settings.sources)
        for name, path in source.files().items()
        if name != "uri" and "{stem}" not in path
    }
    for name, path in {**settings.named_files(), **beside}.items():
        if "://" in path:
            raise ConfigError(
                f"{shown(name)}: expected a file of this machine, got {path[:60]!r}. Download it, "
                "and name the file."
            )
        if not Path(path).is_file():
            raise ConfigError(f"{shown(name)}: no such file: {path}{_file_hint(path)}.")


def _file_hint(path: str) -> str:
    """Return the file of the same folder that is named most like one that is not there."""
    place = Path(path)
    if "*" in place.name or not place.parent.is_dir():
        return ""
    return hint(place.name, (other.name for other in place.parent.iterdir() if other.is_file()))


def _matching(pattern: str) -> list[Path]:
    """Return the files that a pattern, or a plain path, stands for; hidden ones if it says so."""
    path = Path(pattern)
    if path.is_file():
        return [path]
    is_hidden = path.name.startswith(".")
    try:
        found = list(path.parent.glob(path.name)) if path.name else []
    except ValueError as error:
        raise ConfigError(f"sources: expected a pattern, got {pattern!r} ({error}).") from error
    return [p for p in found if p.is_file() and (is_hidden or not p.name.startswith("."))]


def _by_accession(uri: str) -> str:
    """Return how an accession of GEO is written, "" for another name."""
    name = Path(uri).name.upper()
    return f' An accession is written geo = "{name}".' if re.fullmatch(r"GSE\d+", name) else ""


# ---------------------------------------------------------------- runs


def call(step: Step, run: Run) -> Any:  # noqa: ANN401
    """Run a step, plainly."""
    return step(run)


def mine(
    settings: Settings,
    *,
    only: Sequence[str] = STEPS,
    run: Run = Run(),
    execute: Execute = call,
) -> dict[str, Any]:
    """Run the steps of a study in order; return what each returned, by step.

    Parameters
    ----------
    settings
        The study.
    only
        Steps to run; the others must have been run before.
    run
        Whether stores made otherwise are replaced, and who is told of the progress.
    execute
        Runs one step; the default calls it. A flow passes one that makes it a task.

    Raises
    ------
    DglzarrError
        Whatever a stage raises; nothing that it left looks complete.
    """
    check_root(settings.root)
    left_out = read_refused(settings.root)
    if left_out:
        logger.warning("%s: %d sources stay left out (%s)", settings.root, len(left_out), REFUSED)
    _get_sources(settings, left_out, run, is_read="ingest" in only and not run.overwrite)
    _asked_steps(settings, only, run, planned_study(settings.root))
    with locked(settings.root, is_new=True):
        study = create_study(settings.root)
        if run.overwrite and len(study.segments) > 1:
            raise StoreError(
                f"{settings.root}: expected a study of one segment to overwrite, got "
                f"{len(study.segments)}: it has grown. Run 'dglzarr refit' instead."
            )
        # anew: another run may have ended since, and the study have grown
        return run_steps(settings, _asked_steps(settings, only, run, study), run, execute)


def _asked_steps(settings: Settings, only: Collection[str], run: Run, study: Study) -> list[Step]:
    """Return the steps of these names, whose packages are there.

    Raises
    ------
    ConfigError
        When there are none, or what one that is to run needs is not installed.
    """
    steps = [step for step in Plan.of(settings, study=study) if step.name in only]
    if not steps:
        first = next(iter(only))
        raise ConfigError(f"{first}: expected settings, got none. Add a section [{first}].")
    check_extras(settings, {step.name: "" if run.overwrite else step.writes for step in steps})
    return steps


def _get_sources(settings: Settings, left_out: Collection[str], run: Run, *, is_read: bool) -> None:
    """Fetch what is missing; meanwhile accessions that have come are read, where that is asked.

    Raises
    ------
    DglzarrError
        When something cannot be had, or the settings name a file that is not there.
    """
    _check_files(settings)
    study = planned_study(settings.root)
    missing = {one.source for one in wanted(settings)}
    others = {file.name for file in source_files(settings, study, without={*missing, *left_out})}
    with Landing(settings.root) as landing:

        def read(one: Wanted, files: Sequence[Found]) -> None:
            read_now = [_source_file(study, one.settings, file) for file in files]
            is_apart = {*others, *left_out}.isdisjoint(file.name for file in read_now)
            if is_read and is_apart and one.settings.uri is None:  # an address may give any name
                for file in read_now:
                    landing.read(file)

        get_missing(settings, without=left_out, on_progress=run.on_progress, on_fetched=read)


def refit(settings: Settings, *, run: Run = Run(), execute: Execute = call) -> dict[str, Any]:
    """Mine a grown study anew, all sources in one new segment; return what each step returned.

    What the study left out when it last grew stays out, and so does what cannot be had now; where
    that is more than ``fetch.max_refused`` of all, nothing is done.

    The manifest is replaced when everything is done. The segments it listed before stay on disk
    for readers that have them open, until 'dglzarr compact' removes them. Model, scores, panels and
    evaluation are one a study: they are replaced as they are made, before the manifest.

    Raises
    ------
    DglzarrError
        Whatever a stage raises; the segments stay as they were, and the next call goes on.
    """
    check_root(settings.root)
    fetched = {one.source for one in wanted(settings)}
    refused = {
        name: why for name, why in read_refused(settings.root).items() if name not in fetched
    }
    refused |= refused_sources(settings, on_progress=run.on_progress)
    with locked(settings.root):
        before = open_study(settings.root)
        study = Study(before.root, (before.next_segment,))
        n_sources = len(source_files(settings, study, without=refused)) + len(refused)
        settle(settings.root, refused, n_sources, settings.fetch.max_refused)
        steps = Plan.of(settings, study=study)
        done = run_steps(settings, steps, replace(run, overwrite=True), execute)
        retire(before.root, before.segments)
        write_manifest(before, study.segments)
    return done


def rewrite_report(settings: Settings, *, seed: int | None = None) -> Any:  # noqa: ANN401
    """Write a study's report with what the study has by now."""
    return Plan.of(settings).variant(seed=seed)["report"]()


def on_cluster(settings: Settings, steps: Sequence[Step]) -> AbstractContextManager[Any]:
    """Return the settings' cluster, whose workers are looked at before steps run on it."""
    if settings.cluster.kind == "none":
        return client(settings.cluster)
    if settings.cluster.is_elsewhere:
        check_absolute(settings)
    return client(
        settings.cluster,
        root=settings.root,
        files=_sources_to_read(steps),
        needs=_needs(settings, steps),
    )


def _sources_to_read(steps: Sequence[Step]) -> list[str]:
    """Return the files that workers will read."""
    found = {step.name: step for step in steps}
    reading = found.get("ingest", found.get("read"))
    if reading is None or ("join" in found and is_complete(found["join"].writes)):
        return []
    sources: Sequence[SourceFile] = reading.arguments["sources"]
    return [path for s in sources for path in (s.path, *s.options.files().values())]


def _needs(settings: Settings, steps: Sequence[Step]) -> dict[str, Need]:
    """Return the memory that workers need, by step; none where no size is known yet."""
    try:
        scale = _scale(settings, steps)
    except (DglzarrError, OSError):  # which a step tells of
        scale = None
    if scale is None:
        return {}
    nbytes = memory_of(scale)
    found = {}
    for name in (step.name for step in steps if step.name in _ON_WORKERS):
        alone = KERAS_NBYTES if name == "encode" else IMPORTS_NBYTES
        found[name] = Need(alone, nbytes[name] - alone)
    return found


def _scale(settings: Settings, steps: Sequence[Step]) -> Scale | None:
    """Return the scale of some steps, by a matrix that they read or else by the sources."""
    for step in steps:
        source = step.arguments.get("normalized", step.arguments.get("source"))
        if isinstance(source, str) and is_complete(source):
            sizes = open_labels(source).sizes
            return Scale(settings, (), {}, sizes["sample"], sizes["gene"])
    ingest = next((step for step in steps if step.name == "ingest"), None)
    return None if ingest is None else Scale.of(settings, ingest.arguments["sources"])


def run_steps(
    settings: Settings, steps: Iterable[Step], run: Run, execute: Execute = call
) -> dict[str, Any]:
    """Run steps in order on the settings' cluster; return what each returned."""
    done: dict[str, Any] = {}
    run = replace(run, verify_on_read=settings.verify_on_read)
    steps = list(steps)
    todo = list(steps)
    if todo and _is_read(todo[0]) and not run.overwrite:
        with client(ClusterOptions(kind="none")):  # a cluster takes longer to start than to look
            done[steps[0].name] = execute(todo.pop(0), run)
        _check_made(settings, steps[0], steps, run)
    if todo:
        with on_cluster(settings, steps):
            for step in todo:
                done[step.name] = execute(step, run)
                _check_made(settings, step, steps, run)
    return done


def _is_read(step: Step) -> bool:
    """Return whether a step is the reading of a few sources that all have been read."""
    if step.name != "ingest" or len(step.arguments["sources"]) > _MOST_LOOKED_AT:
        return False
    return all(is_complete(source.raw) for source in step.arguments["sources"])


def _check_made(settings: Settings, step: Step, steps: Sequence[Step], run: Run) -> None:
    """Refuse to go on where what a step has made shows that the settings cannot be met."""
    if step.name == "ingest":
        read = step.arguments["sources"]
        train, cohorts = (
            [open_labels(s.raw) for s in read if s.options.role == role]
            for role in ("train", "cohort")
        )
        check_labels(settings, train, cohorts)
    selects = [other.arguments for other in steps if other.name == "select"]
    if step.name == "join":
        check_genes(settings, open_labels(step.writes), selects=bool(selects))
    if step.name == "dedup" and selects:
        evaluates = any(other.name == "evaluate" for other in steps)
        rule = settings.evaluate.target_rule if evaluates else None
        check_panels(selects[0], rule, on_progress=run.on_progress)
