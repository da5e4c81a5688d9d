"""Settings of a study: one TOML file, validated whole before any work starts.

Field names equal the keywords of the stage functions, so a section is passed on as it is. Only
the entry points and what plans whole studies import this module, no stage does.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dglzarr.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"expected each once, got {list(names)!r}")
    return names


Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Penalties = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, strict=False)]
Predictors = Annotated[
    tuple[Literal["ridge", "knn", "dgex"], ...],
    Field(min_length=1, strict=False),
    AfterValidator(_distinct),
]
Names = Annotated[tuple[str, ...], Field(strict=False)]
_BYTES = r"^(\d+(\.\d+)? *[kMGT]i?B|auto)$"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SourceSettings(_Section):
    """One ``[[sources]]`` entry: a file, or a pattern that stands for several."""

    uri: Annotated[str, Field(min_length=1)]
    role: Literal["train", "cohort"] = "train"
    unit: Literal["log2", "intensity", "counts", "rpkm", "tpm"] | None = None
    sample_sheet: str | None = None
    join_column: str | None = None


class IngestSettings(_Section):
    """How sources become one expression matrix; feature_kind "gene" joins platforms by symbol."""

    feature_kind: Literal["probe", "gene"] = "probe"
    probes: str | None = None
    annotation: str | None = None
    split_by: Literal["series", "sample"] = "series"
    test_fraction: Share = 0.2
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    min_coverage: Share = 0.9
    shard_samples: Count | None = None


class NormalizeSettings(_Section):
    """Quantile normalization; method "none" takes sources that are normalized already."""

    method: Literal["quantile", "none"] = "quantile"
    ties: Literal["midrank", "tie-mean", "dgex"] = "midrank"
    fit_on: Literal["train", "all"] = "train"


class DedupSettings(_Section):
    """Clusters and near-duplicates."""

    n_clusters: Count = 100
    threshold: Annotated[float, Field(ge=0)] = 1.0
    rule: Literal["greedy", "dgex"] = "greedy"
    epochs: Count = 3


class TrainSettings(_Section):
    """The AutoEncoder and its training; defaults are the paper's where it states them."""

    hidden: Annotated[int, Field(gt=0, le=100_000)] = 500
    n_latent: Annotated[int, Field(gt=0, le=100_000)] = 100
    activation: Literal["sigmoid", "tanh", "relu", "elu", "softplus"] = "sigmoid"
    output: Literal["linear", "sigmoid", "tanh", "relu", "elu", "softplus"] = "linear"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    dropout_position: Literal["hidden", "input"] = "hidden"
    l2: Annotated[float, Field(ge=0)] = 1e-6
    epochs: Count = 100
    batch_size: Count = 128
    window: Count = 10
    windows_in_memory: Count | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    patience: Count | None = None
    cache: Literal["auto", "memory", "stream"] = "auto"
    device: Literal["auto", "cpu", "gpu"] = "auto"


class ScoreSettings(_Section):
    """DeepLIFT."""

    deeplift_reference: Literal["mean", "zeros", "samples"] = "mean"
    n_references: Annotated[int, Field(ge=1, le=1000)] = 10
    layer: Literal["latent", "pre-activation"] = "latent"
    aggregation: Literal["mean-abs", "mean", "max", "variance-weighted"] = "mean-abs"
    group_by: str | None = None
    engine: Literal["closed-form", "shap"] = "closed-form"
    device: Literal["auto", "cpu", "gpu"] = "auto"


class SelectSettings(_Section):
    """Panels: how the mined one is chosen, and what it is compared with."""

    selector: str = "greedy"
    selectors: Names = ("top-score", "deeplift-greedy", "medoids")
    n_landmarks: Count = 943
    n_random: Count = 20
    forced: Names | str = ()
    excluded: Names | str = ()

    @property
    def files(self) -> dict[str, str]:
        """The lists that are files, by field."""
        lists = {"forced": self.forced, "excluded": self.excluded}
        return {name: value for name, value in lists.items() if isinstance(value, str)}


class DGexSettings(_Section):
    """D-GEX's network, trained for every panel where ``evaluate.predictors`` names it."""

    hidden: Annotated[int, Field(gt=0, le=100_000)] = 3000
    n_layers: Annotated[int, Field(gt=0, le=3)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    optimizer: Literal["adam", "momentum"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    epochs: Count = 100
    batch_size: Count = 200
    patience: Count | None = 10


class EvaluateSettings(_Section):
    """How panels are judged."""

    panels: dict[str, str] = Field(default_factory=dict)
    predictors: Predictors = ("ridge",)
    alphas: Penalties = (1.0, 10.0, 100.0, 1000.0, 10000.0)
    neighbors: Annotated[tuple[Count, ...], Field(min_length=1, strict=False)] = (
        1, 2, 5, 10, 20, 50,
    )  # fmt: skip
    dgex: DGexSettings = DGexSettings()
    target_rule: Literal["gene", "feature"] = "gene"
    cohort_scale: Literal["train", "cohort"] = "train"


class GroupSettings(_Section):
    """Samples of known groups that the latent units should keep apart. No label: no test."""

    label: str = ""
    series: Annotated[tuple[str, ...], Field(strict=False)] = ()
    linkage: Literal["ward", "average", "complete"] = "ward"


class EnrichSettings(_Section):
    """Gene sets a panel is tested for: a GMT file, or OBO and GAF. Without either: no test."""

    gene_sets: str | None = None
    ontology: str | None = None
    associations: str | None = None
    namespace: Literal["molecular_function", "biological_process", "cellular_component"] = (
        "molecular_function"
    )
    min_size: Count = 10
    max_size: Count = 500

    @model_validator(mode="after")
    def _one_kind_of_sets(self) -> EnrichSettings:
        if (self.ontology is None) != (self.associations is None):
            raise ValueError("enrich.ontology: goes with associations; give both or neither")
        if self.gene_sets is not None and self.ontology is not None:
            raise ValueError("enrich.gene_sets: expected it or ontology, got both")
        if self.min_size > self.max_size:
            raise ValueError("enrich.min_size: expected at most max_size")
        return self

    @property
    def files(self) -> dict[str, str]:
        """The files named, by field; none when nothing is to be tested."""
        named = self.model_dump(include={"gene_sets", "ontology", "associations"})
        return {name: path for name, path in named.items() if path is not None}


class ClusterSettings(_Section):
    """Where Dask runs."""

    kind: Literal["local", "address", "none"] = "local"
    n_workers: Count = 2
    threads_per_worker: Count = 1
    memory_limit: Annotated[str, Field(pattern=_BYTES)] = "4GiB"
    address: str | None = None

    @model_validator(mode="after")
    def _address_goes_with_kind(self) -> ClusterSettings:
        if self.kind == "address" and not (
            self.address or os.environ.get("DASK_SCHEDULER_ADDRESS")
        ):
            raise ValueError("cluster.kind: 'address' needs address or DASK_SCHEDULER_ADDRESS")
        return self


class Settings(_Section):
    """A study."""

    root: Annotated[str, Field(min_length=1)]
    title: str = "Landmark genes"
    seed: Annotated[int, Field(ge=0)] = 0
    sources: Annotated[tuple[SourceSettings, ...], Field(min_length=1, strict=False)]
    ingest: IngestSettings = IngestSettings()
    normalize: NormalizeSettings = NormalizeSettings()
    dedup: DedupSettings = DedupSettings()
    train: TrainSettings = TrainSettings()
    score: ScoreSettings = ScoreSettings()
    select: SelectSettings = SelectSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    group: GroupSettings = GroupSettings()
    enrich: EnrichSettings = EnrichSettings()
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Settings:
        if all(source.role != "train" for source in self.sources):
            raise ValueError("sources: expected at least one of role 'train', got none")
        if self.ingest.test_fraction + self.ingest.validation_fraction >= 1:
            raise ValueError("ingest.test_fraction: with validation_fraction must be below 1")
        if "://" in self.root:
            raise ValueError(f"root: expected a local folder, got {self.root!r}")
        return self


def load_settings(
    path: str | Path, overrides: tuple[str, ...] = (), *, folder: str | Path | None = None
) -> Settings:
    """Return the validated settings of a TOML file.

    Relative paths, that of the study too, are taken from ``folder``, by default the file's own.
    ``overrides`` are ``section.key=value`` texts with TOML values; a bare word counts as text. The
    environment variable ``DGLZARR_ROOT`` replaces the file's root, an override replaces both.

    Raises
    ------
    ConfigError
        Naming the file and every unknown key, wrong type or impossible value.
    """
    file = Path(path)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: expected TOML, got {error}.") from error
    if root := os.environ.get("DGLZARR_ROOT"):
        content["root"] = root
    for override in overrides:
        _apply(content, override)
    return build_settings(content, name=str(file), folder=Path(folder or file.parent).resolve())


def build_settings(content: dict[str, Any], *, name: str, folder: Path) -> Settings:
    """Return validated settings with paths made absolute against ``folder``."""
    try:
        settings = Settings.model_validate(content)
    except ValidationError as error:
        problems = [_problem(details) for details in error.errors()]
        shown = "; ".join(problems[:5])
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ConfigError(f"{name}: {shown}{more}.") from error
    return _absolute(settings, folder)


def _problem(details: ErrorDetails) -> str:
    """Return one problem as ``section.key: what was expected, what was found``."""
    key = ".".join(str(part) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        return f"{key}: unknown key, correct or remove it"
    if details["type"] == "missing":
        return f"{key}: required, but missing"
    if details["type"] == "value_error":
        return details["msg"].removeprefix("Value error, ")
    return f"{key}: {details['msg']}, got {details['input']!r}"


def _apply(content: dict[str, Any], override: str) -> None:
    key, found, text = override.partition("=")
    *sections, name = (part.strip() for part in key.split("."))
    if not found or not all([*sections, name]):
        raise ConfigError(f"--set {override!r}: expected section.key=value.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise ConfigError(f"--set {override!r}: {section!r} is not a section.")
    content[name] = value


def _absolute(settings: Settings, folder: Path) -> Settings:
    def anchor(uri: str | None) -> str | None:
        return uri if uri is None or "://" in uri else str(folder / Path(uri).expanduser())

    sources = tuple(
        s.model_copy(update={"uri": anchor(s.uri), "sample_sheet": anchor(s.sample_sheet)})
        for s in settings.sources
    )
    ingest = settings.ingest.model_copy(
        update={
            "probes": anchor(settings.ingest.probes),
            "annotation": anchor(settings.ingest.annotation),
        }
    )
    panels = {name: anchor(uri) for name, uri in settings.evaluate.panels.items()}
    lists = {name: anchor(uri) for name, uri in settings.select.files.items()}
    sets = {name: anchor(path) for name, path in settings.enrich.files.items()}
    return settings.model_copy(
        update={
            "root": anchor(settings.root),
            "sources": sources,
            "ingest": ingest,
            "select": settings.select.model_copy(update=lists),
            "evaluate": settings.evaluate.model_copy(update={"panels": panels}),
            "enrich": settings.enrich.model_copy(update=sets),
        }
    )
