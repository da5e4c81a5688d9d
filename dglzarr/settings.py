"""Settings of a study: the options of all stages in one TOML file, validated before any work.

Composes what the stages declare and declares only what belongs to none of them. Only the command
line, ``studies`` and the flows import this module.
"""

from __future__ import annotations

import os
import re
import tomllib
from contextlib import suppress
from datetime import date, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args

from pydantic import Field, ValidationError, model_validator

from dglzarr.access.discover import DiscoverOptions
from dglzarr.access.geo import ACCESSION, PLATFORM
from dglzarr.access.gtex import GtexValues, Release  # noqa: TC001  (pydantic reads annotations)
from dglzarr.access.options import FetchOptions
from dglzarr.errors import ConfigError, hint, shown
from dglzarr.stages.compare import CompareOptions
from dglzarr.stages.dedup import DedupOptions
from dglzarr.stages.enrich import EnrichOptions
from dglzarr.stages.evaluate import EvaluateOptions
from dglzarr.stages.explain import ExplainOptions
from dglzarr.stages.group import GroupOptions
from dglzarr.stages.ingest import SourceOptions
from dglzarr.stages.join import JoinOptions
from dglzarr.stages.normalize import NormalizeOptions
from dglzarr.stages.score import ScoreOptions
from dglzarr.stages.select import SelectOptions
from dglzarr.stages.stability import StabilityOptions
from dglzarr.stages.train import TrainOptions
from dglzarr.storage.buckets import check_address
from dglzarr.storage.cluster_options import ClusterOptions
from dglzarr.storage.options import Options, choice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pydantic_core import ErrorDetails

_N_SHOWN = 5


class SourceSettings(SourceOptions):
    """One ``[[sources]]`` entry: files, or what to fetch."""

    uri: str | None = choice(
        None,
        "a file, a pattern that stands for several, or the https, s3 or gs address of a public one",
        is_path=True,
        min_length=1,
    )
    by_ranges: bool = choice(
        False,
        "of an ARCHS4 file at an address, fetch the samples that only_series, only_matching or "
        "only_samples keep, by ranges of bytes",
    )
    geo: str | Annotated[tuple[str, ...], Field(strict=False)] | None = choice(
        None, "instead: an accession of GEO such as GSE10072, several, or a file of one a line"
    )
    platform: str | Annotated[tuple[str, ...], Field(strict=False)] = choice(
        (), "platforms to take of these series, as in GPL96; any takes all, of several in one too"
    )
    platform_table: bool = choice(
        False,
        "fetch GEO's table of the platform of these series too, which says of which genes its "
        "probes are",
    )
    gtex: Release | None = choice(None, "instead: a release of GTEx")
    gtex_values: GtexValues = choice("tpm", "which values of GTEx; v6 has RPKM for TPM")
    tissue: str | None = choice(
        None, "one tissue of GTEx, as its files are called, as in adipose_subcutaneous"
    )

    @model_validator(mode="after")
    def _one_of_three(self) -> SourceSettings:
        given = [name for name in ("uri", "geo", "gtex") if getattr(self, name) not in (None, ())]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise ValueError(f"expected one of uri, geo and gtex, got {got}")
        return self

    @model_validator(mode="after")
    def _ranges_of_an_address(self) -> SourceSettings:
        if self.by_ranges and "://" not in (self.uri or ""):
            raise ValueError("sources.by_ranges: expected an address as uri. Name one.")
        if self.by_ranges and not (self.only_series or self.only_matching or self.only_samples):
            raise ValueError(
                "sources.by_ranges: expected only_series, only_matching or only_samples beside it, "
                "since all samples are the whole file. Choose some."
            )
        return self

    @model_validator(mode="after")
    def _table_of_geo(self) -> SourceSettings:
        if self.platform_table and (self.geo is None or self.annotation is not None):
            got = "none" if self.geo is None else "an annotation too"
            raise ValueError(
                f"expected geo beside platform_table, and no annotation, got {got}. Correct it"
            )
        return self

    @model_validator(mode="after")
    def _platforms_of_geo(self) -> SourceSettings:
        for one in self.platforms:
            if one != "any" and not PLATFORM.fullmatch(one):
                raise ValueError(
                    f"expected a platform such as GPL96, or any, got {one!r}. Correct it"
                )
        return self

    @property
    def accessions(self) -> tuple[str, ...]:
        """Accessions of GEO, and files of them, as given."""
        return (self.geo,) if isinstance(self.geo, str) else self.geo or ()

    @property
    def platforms(self) -> tuple[str, ...]:
        """Platforms to take, any where none is named."""
        given = (self.platform,) if isinstance(self.platform, str) else self.platform
        return tuple(one.upper() if one.upper() != "ANY" else "any" for one in given)

    def anchored(self, anchor: Callable[[str], str]) -> SourceSettings:
        """Return the same with every file's name made absolute, files of accessions too."""
        geo = tuple(one if ACCESSION.fullmatch(one) else anchor(one) for one in self.accessions)
        return super().anchored(anchor).model_copy(update={"geo": geo} if geo else {})


class ScoreSettings(ExplainOptions, ScoreOptions):
    """DeepLIFT: what is explained, and how contributions become scores."""


class Settings(Options):
    """A study."""

    root: str = choice(
        ...,
        "folder of the results, on a disk or in a bucket: s3://BUCKET/FOLDER (also gs://, az://), "
        "whose credentials the environment has",
        is_path=True,
        min_length=1,
    )
    title: str = choice("Landmark genes", "heading of the report")
    seed: int = choice(0, "of the split, the k-means, the network and all that is drawn", ge=0)
    verify_on_read: bool = choice(
        False,
        "compare the matrices that a stage reads with their digests before it begins: they are "
        "read once more; labels and results always are compared",
        is_recorded=False,
    )
    sources: Annotated[tuple[SourceSettings, ...], Field(strict=False)] = choice(
        ..., "the files to read", min_length=1
    )
    ingest: JoinOptions = JoinOptions()
    normalize: NormalizeOptions = NormalizeOptions()
    dedup: DedupOptions = DedupOptions()
    train: TrainOptions = TrainOptions()
    score: ScoreSettings = ScoreSettings()
    select: SelectOptions = SelectOptions()
    evaluate: EvaluateOptions = EvaluateOptions()
    group: GroupOptions = GroupOptions()
    enrich: EnrichOptions = EnrichOptions()
    compare: CompareOptions = CompareOptions()
    stability: StabilityOptions = StabilityOptions()
    cluster: ClusterOptions = ClusterOptions()
    fetch: FetchOptions = FetchOptions()
    discover: DiscoverOptions = DiscoverOptions()

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Settings:
        if all(source.role != "train" for source in self.sources):
            raise ValueError("sources: expected at least one of role 'train', got none")
        if "://" in self.root:
            check_address(self.root)
        return self

    def named_files(self) -> dict[str, str]:
        """Return the files that the sections name, by setting, as in ``ingest.annotation``."""
        sections = ((name, value) for name, value in self if isinstance(value, Options))
        return {
            f"{section}.{name}": path
            for section, options in sections
            for name, path in options.files().items()
        }


# ---------------------------------------------------------------- reading


def load_settings(
    path: str | Path, overrides: tuple[str, ...] = (), *, folder: str | Path | None = None
) -> Settings:
    """Return the validated settings of a TOML file.

    Relative paths, that of the study too, are taken from ``folder``, by default the file's own.
    ``overrides`` are ``section.key=value`` texts with TOML values; a bare word, a date or a time
    counts as text. The environment variable ``DGLZARR_ROOT`` replaces the file's root, an override
    replaces both.

    Raises
    ------
    ConfigError
        Naming the file and every unknown key, wrong type or impossible value.
    """
    file = Path(path)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except IsADirectoryError as error:
        raise ConfigError(f"{file}: expected a file of settings (.toml), got a folder.") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: expected text in UTF-8, got byte {error.start} of another encoding. Save it "
            "as UTF-8."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: expected TOML, got {error}.") from error
    if root := os.environ.get("DGLZARR_ROOT"):
        content["root"] = root
    for override in overrides:
        _apply(content, override)
    return build_settings(content, name=str(file), folder=Path(folder or file.parent).resolve())


def build_settings(content: dict[str, Any], *, name: str, folder: Path) -> Settings:
    """Return validated settings with paths made absolute against ``folder``.

    Raises
    ------
    ConfigError
        Naming every problem.
    """

    def anchor(uri: str) -> str:
        if len(f"{uri}.".splitlines()) > 1:
            raise ConfigError(f"{name}: expected a path of one line, got {uri!r}.")
        if "://" in uri:
            return uri
        try:
            path = folder / Path(uri).expanduser()
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                path.stat()
        except (OSError, RuntimeError, ValueError) as error:  # too long, no such home, a NUL
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"{name}: expected a path, got {uri[:60]!r} ({reason}).") from error
        return str(path)

    try:
        return Settings.model_validate(content).anchored(anchor)
    except ValidationError as error:
        found = error.errors()
        within = {details["loc"][:n] for details in found for n in range(len(details["loc"]))}
        problems = [  # a list of wrong entries is not told to be empty as well
            _problem(one) for one in found if one["type"] != "too_short" or one["loc"] not in within
        ]
        shown = "; ".join(problems[:_N_SHOWN])
        more = f"; and {len(problems) - _N_SHOWN} more" if len(problems) > _N_SHOWN else ""
        raise ConfigError(f"{name}: {shown}{more}.") from error


def _problem(details: ErrorDetails) -> str:
    """Return one problem as ``section.key: what was expected, what was found``."""
    key = ".".join(shown(str(part)) for part in details["loc"])
    if details["type"] == "extra_forbidden":
        known = _keys_at(details["loc"][:-1])
        return f"{key}: unknown key, correct or remove it{hint(str(details['loc'][-1]), known)}"
    if details["type"] == "missing":
        return f"{key}: required, but missing"
    if details["type"] == "value_error":
        told = details["msg"].removeprefix("Value error, ").removesuffix(".")
        return f"{key}: {told}" if key.startswith("sources") and told.startswith("exp") else told
    known = re.findall(r"'([^']*)'", str(details.get("ctx", {}).get("expected", "")))
    return f"{key}: {details['msg']}, got {details['input']!r}{hint(str(details['input']), known)}"


def _keys_at(place: Sequence[int | str]) -> list[str]:
    """Return the keys that a section takes, none where it takes any."""
    kind: Any = Settings
    for part in place:
        if isinstance(part, int):
            continue
        field = kind.model_fields.get(part)
        inner = field and [field.annotation, *get_args(field.annotation)]
        kind = next(
            (k for k in inner or () if isinstance(k, type) and issubclass(k, Options)), None
        )
        if kind is None:
            return []
    return list(kind.model_fields)


def _apply(content: dict[str, Any], override: str) -> None:
    key, found, text = override.partition("=")
    *sections, name = (part.strip() for part in key.split("."))
    if not found or not all([*sections, name]):
        raise ConfigError(f"--set {override!r}: expected section.key=value.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if isinstance(value, date | time):  # no setting is one: 00:30:00 is a walltime
        value = text
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise ConfigError(f"--set {override!r}: {section!r} is not a section.")
    content[name] = value


# ---------------------------------------------------------------- describing


class Setting(NamedTuple):
    """One key of the settings file, in words."""

    key: str
    values: str
    default: str
    meaning: str
    paper: str


def describe_settings(section: str = "") -> list[Setting]:
    """Return every key that can be set, in order; of one section alone where it is named."""
    schema = Settings.model_json_schema()
    found = [*_described(schema, "", schema["$defs"])]
    return [one for one in found if one.key.startswith(f"{section}.")] if section else found


def _described(schema: dict[str, Any], prefix: str, defs: dict[str, Any]) -> Iterator[Setting]:
    for name, field in schema["properties"].items():
        inner = defs.get(field.get("$ref", "").rpartition("/")[2])
        rows = defs.get(field.get("items", {}).get("$ref", "").rpartition("/")[2])
        if inner or rows:
            yield from _described(inner or rows or {}, f"{prefix}{name}.", defs)
            continue
        is_required = name in schema.get("required", ())
        yield Setting(
            f"{prefix}{name}",
            _values(field),
            "required" if is_required else _as_toml(field.get("default")),
            field.get("description", ""),
            field.get("paper", ""),
        )


def _values(field: dict[str, Any]) -> str:
    """Return which values a key takes, in words."""
    if "anyOf" in field:
        return " or ".join(_values(one) for one in field["anyOf"] if one.get("type") != "null")
    if "enum" in field:
        return ", ".join(field["enum"])
    if "const" in field:
        return str(field["const"])
    if field.get("type") == "array":
        return f"list of {_values(field.get('items', {'type': 'string'}))}"
    if field.get("type") == "object":
        is_text = field.get("additionalProperties") == {"type": "string"}
        return f"table of name = {'text' if is_text else 'value'}"
    names = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}
    bounds = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    told = [f"{sign} {field[bound]:g}" for bound, sign in bounds.items() if bound in field]
    return " ".join([names.get(field.get("type", ""), "value"), ", ".join(told)]).strip()


def _as_toml(value: object) -> str:
    """Return a default as one would write it in the file, "" for none."""
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, list):
        return f"[{', '.join(map(_as_toml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"
