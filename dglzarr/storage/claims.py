"""What is to be made at a place, from what, and whether it stands there already.

Owns the comparison of two lineages and how a difference is told. Reads and writes nothing;
``store`` asks and acts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dglzarr.storage.declare import StoreSpec

State = Literal["new", "resumed", "unchanged"]
"""Nothing was there; an interrupted call is gone on with; it was complete."""

_N_SHOWN = 5
_RENAMED = {"shard_length": "shard_samples", "sample_column": "join_column"}  # since 0.1.0


class Difference(NamedTuple):
    """What a store was made from before, and what it is to be made from now; "" is none.

    Of a damaged one ``what`` tells what is wrong, and there is nothing else.
    """

    what: str
    before: str = ""
    now: str = ""
    is_input: bool = False
    is_damage: bool = False

    def __str__(self) -> str:
        if self.is_damage:
            return self.what
        if self.before == self.now:
            return f"{self.what}: {self.now} was changed or made anew"
        return f"{self.what}: {self.before or 'none'} -> {self.now or 'none'}"


@dataclass(frozen=True)
class Claim:
    """What is to be made at a place, and what stands there.

    Attributes
    ----------
    uri
        The place.
    specs
        What may be made there: one spec, or several of which the stage chooses.
    state
        ``"new"``, ``"resumed"`` or ``"unchanged"``; ``"refused"`` where something else stands
        there, for reasons that ``differences`` tell.
    started
        When the stage was called, by the monotonic clock.
    """

    uri: str
    specs: tuple[StoreSpec, ...]
    state: Literal["new", "resumed", "unchanged", "refused"]
    find_lineage: Callable[[StoreSpec], Mapping[str, Any]]
    differences: tuple[Difference, ...] = ()
    started: float = 0.0
    known: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> StoreSpec:
        """The spec of what is made there."""
        found = self.known.get("dglzarr_schema")
        return next((spec for spec in self.specs if spec.name == found), self.specs[0])

    @cached_property
    def lineage(self) -> Mapping[str, Any]:
        """What it is made from: inputs with their identities, and every recorded choice."""
        return self.find_lineage(self.spec)

    def refusal(self) -> str:
        """Return why nothing is made here, in one line."""
        if self.differences[0].is_damage:
            return f"{self.differences[0]} Use --overwrite to replace it."
        shown = [str(d) for d in self.differences[:_N_SHOWN]]
        if len(self.differences) > _N_SHOWN:
            shown.append(f"and {len(self.differences) - _N_SHOWN} more")
        of_inputs = all(d.is_input for d in self.differences)
        what = "from other inputs" if of_inputs else "with other parameters"
        return (
            f"{self.uri}: was made {what}: {'; '.join(shown)}. Replace it (--overwrite), add new "
            "sources with 'dglzarr grow', or use another root."
        )


def compare_lineages(
    found: Mapping[str, Any], wanted: Mapping[str, Any], *, section: str
) -> tuple[Difference, ...]:
    """Return how a store's lineage differs from what it is to be made from now.

    ``section`` is what the settings call the choices, as in ``ingest.annotation``.
    """
    version = "dglzarr_schema_version"
    for key in ("dglzarr_schema", version):
        if found.get(key) != wanted[key]:
            return (Difference(key, repr(found.get(key)), repr(wanted[key])),)
    found = _as_now(found, wanted)
    before, now = found["parameters"], wanted["parameters"]
    changed = [
        Difference(f"{section}.{key}", _shown(before.get(key)), _shown(now.get(key)))
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    old, new = _by_role(found["inputs"]), _by_role(wanted["inputs"])
    for role in dict.fromkeys([*new, *old]):
        one, other = old.get(role, {}), new.get(role, {})
        if one.get("store_id") != other.get("store_id"):
            what = _name(section, role, one or other)
            changed.append(Difference(what, _place(one), _place(other), is_input=True))
    if not changed and list(old) != list(new):
        was, is_now = (", ".join(map(_place, inputs.values())) for inputs in (old, new))
        changed.append(Difference("order of the inputs", was, is_now, is_input=True))
    return tuple(changed)


def _as_now(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a lineage as it is written now; 0.1.0 gave inputs no roles."""
    inputs = [dict(entry) for entry in found.get("inputs", [])]
    parameters = dict(found.get("parameters", {}))
    if not inputs or all("role" in entry for entry in inputs):
        return {**found, "inputs": inputs, "parameters": parameters}
    parameters = {_RENAMED.get(key, key): value for key, value in parameters.items()}
    role_of = {entry["store_id"]: entry["role"] for entry in wanted["inputs"]}
    model = parameters.pop("model_id", None)
    if model is not None:
        inputs.append({"uri": "", "store_id": model, "role": "model"})
    for number, entry in enumerate(inputs):
        entry.setdefault("role", role_of.get(entry["store_id"], f"input {number}"))
    order = [entry["role"] for entry in wanted["inputs"]]
    inputs.sort(key=lambda entry: order.index(entry["role"]) if entry["role"] in order else -1)
    kept = {key: value for key, value in parameters.items() if key in wanted["parameters"]}
    return {**found, "inputs": inputs, "parameters": kept}


def _by_role(inputs: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    return {entry["role"]: entry for entry in inputs}


def _name(section: str, role: str, entry: Mapping[str, str]) -> str:
    """Return what an input is called: a file by its setting, a store by its name."""
    if "stat" in entry:
        return f"{section}.{role}"
    return role


def _place(entry: Mapping[str, str]) -> str:
    return PurePath(entry["uri"]).name if entry else ""


def _shown(value: object) -> str:
    return "" if value is None else repr(value)
