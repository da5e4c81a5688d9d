"""How a choice is declared: once, in the stage that makes it, with type, bounds, default, meaning.

The settings file, ``--help``, ``docs/settings.md``, error messages and the lineage of a store come
from this one declaration. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it, and of how much."""


def choice(
    default: Any,  # noqa: ANN401  (of any type)
    meaning: str,
    *,
    paper: str = "",
    is_path: bool = False,
    is_recorded: bool = True,
    **bounds: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401  (stands for the value)
    """Return the declaration of one choice.

    Parameters
    ----------
    default
        Its value where none is given; ``...`` where one must be.
    meaning
        One line, as ``--help`` and docs/settings.md show it.
    paper
        What Kong et al. 2021 take, where it is not the default or they leave it open.
    is_path
        Whether text names a file: it is found from the settings file's folder and recorded as an
        input, by its digest.
    is_recorded
        Whether it changes what is made, and so belongs to the lineage.
    bounds
        As pydantic's: ``gt``, ``ge``, ``lt``, ``le``, ``pattern``, ``min_length``, ``strict``.
    """
    extra: Any = {"paper": paper, "is_path": is_path, "is_recorded": is_recorded}
    return Field(default, description=meaning, json_schema_extra=extra, **bounds)


class Options(BaseModel):
    """The choices of one stage, or of one section of the settings. It cannot be changed.

    A field is declared by `choice`; ``section`` is what the settings file calls them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    section: ClassVar[str] = ""

    @classmethod
    def of(cls, *sections: Options) -> Self:
        """Return those of some sections' choices that are of this stage, the first's before all."""
        known = {name: value for section in reversed(sections) for name, value in section}
        return cls(**{name: known[name] for name in cls.model_fields})

    @classmethod
    def recorded_in(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the choices that a store's parameters record; the others have their defaults."""
        return cls(**{key: value for key, value in parameters.items() if key in cls.model_fields})

    def files(self) -> dict[str, str]:
        """Return the files that are named, by choice; one of several as ``choice.name``."""
        found = {}
        for name in self._named("is_path"):
            value = getattr(self, name)
            if isinstance(value, str):
                found[name] = value
            elif isinstance(value, dict):
                found |= {f"{name}.{key}": path for key, path in value.items()}
        return found

    def inputs(self) -> dict[str, str]:
        """Return the files that belong to the lineage, by choice."""
        return self.files()

    def recorded(self) -> dict[str, Any]:
        """Return the values that belong to the lineage; named files do as inputs."""
        paths = self._named("is_path")
        files = [name for name in paths if isinstance(getattr(self, name), str | dict)]
        wanted = [name for name in self._named("is_recorded") if name not in files]
        return self.model_dump(mode="json", include=set(wanted))

    @classmethod
    def setting_names(cls) -> dict[str, str]:
        """Return what the settings call each choice: it is of the section that declares it."""
        found: dict[str, str] = {}
        for kind in cls.__mro__:
            if issubclass(kind, Options) and kind.section:
                found |= {name: f"{kind.section}.{name}" for name in kind.model_fields}
        return found

    def anchored(self, anchor: Callable[[str], str]) -> Self:
        """Return the same choices with every file's name made absolute."""
        update: dict[str, Any] = {}
        for name in self._named("is_path"):
            value = getattr(self, name)
            if isinstance(value, str):
                update[name] = anchor(value)
            elif isinstance(value, dict):
                update[name] = {key: anchor(path) for key, path in value.items()}
        for name, value in self:
            if isinstance(value, Options):
                update[name] = value.anchored(anchor)
            elif isinstance(value, tuple) and any(isinstance(v, Options) for v in value):
                update[name] = tuple(v.anchored(anchor) for v in value)
        return self.model_copy(update=update) if update else self

    @classmethod
    def _named(cls, mark: str) -> list[str]:
        """Return the names of the choices that have a mark."""
        return [name for name, field in cls.model_fields.items() if marks(field).get(mark)]


def marks(field: FieldInfo) -> dict[str, Any]:
    """Return what `choice` noted of a field beside pydantic's own: paper, is_path, is_recorded."""
    extra = field.json_schema_extra
    return dict(extra) if isinstance(extra, dict) else {"is_recorded": True}


@dataclass(frozen=True)
class Run:
    """How a stage is run; nothing in it changes what is made.

    Attributes
    ----------
    overwrite
        Replace what was made from other inputs or with other choices.
    on_progress
        Called with (what, done, total).
    """

    overwrite: bool = False
    on_progress: Progress | None = None
