"""What is to be made at a place, from what, and whether it stands there already.

Owns the comparison of two lineages and how a difference is told. Reads and writes nothing;
``store`` asks and acts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from dglzarr.storage.declare import StoreSpec

State = Literal["new", "resumed", "unchanged"]
"""Nothing was there; an interrupted call is gone on with; it was complete."""

_N_SHOWN = 5
_UNKNOWN = "input "  # and its number: the role of one of 0.1.0 that is not wanted now
_RENAMED = {"shard_length": "shard_samples", "sample_column": "join_column"}  # since 0.1.0
_FORMER = {"start": "random", "latent_activation": "hidden", "held_back": 0.0}  # a 0.1.0 model's
_UNRECORDED = {"contributions": ("latent", "frozen")}  # inputs of which 0.1.0 kept no record


class Difference(NamedTuple):
    """What a store was made from before, and what it is to be made from now; "" is none.

    Of a damaged one ``what`` tells what is wrong, and there is nothing else.
    """

    what: str
    before: str = ""
    now: str = ""
    is_input: bool = False
    remark: str = ""
    is_damage: bool = False

    def __str__(self) -> str:
        if self.is_damage:
            return self.what
        if self.before == self.now:
            return f"{self.what}: {self.now}{self.remark}"
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
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    names: Mapping[str, str],
    readable: Collection[int] = (),
) -> tuple[Difference, ...]:
    """Return how a store's lineage differs from what it is to be made from now.

    ``names`` tells what the settings call a parameter or a file, as in ``ingest.annotation``;
    ``readable`` are older versions that are as good as this one.
    """
    for key in ("dglzarr_schema", "dglzarr_schema_version"):
        is_old = key == "dglzarr_schema_version" and found.get(key) in readable
        if found.get(key) != wanted[key] and not is_old:
            return (Difference(key, repr(found.get(key)), repr(wanted[key])),)
    found = as_now(found, wanted)
    before, now = found["parameters"], wanted["parameters"]
    changed = {
        key: Difference(_name(key, names), _shown(before.get(key)), _shown(now.get(key)))
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    }
    old, new = _by_role(found["inputs"]), _by_role(wanted["inputs"])
    for role in dict.fromkeys([*new, *old]):
        one, other = old.get(role, {}), new.get(role, {})
        if one.get("store_id") == other.get("store_id"):
            continue
        what, places = _name(role, names), (_place(one), _place(other))
        as_value = changed.get(role)
        if as_value is None:
            remark = " was changed" if "stat" in other else " was made anew"
            changed[role] = Difference(what, *places, is_input=True, remark=remark)
        else:  # a value took the place of a file, or the other way round
            changed[role] = Difference(
                what, as_value.before or places[0], as_value.now or places[1]
            )
    if not changed and list(old) != list(new):
        was, is_now = (", ".join(map(_place, inputs.values())) for inputs in (old, new))
        return (Difference("order of the inputs", was, is_now, is_input=True),)
    return tuple(changed.values())


def as_now(found: Mapping[str, Any], wanted: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a lineage as it is written now.

    0.1.0 gave inputs no roles: they are those of the same identity in what is wanted. Inputs of
    which it kept no record are taken for those that are wanted; parameters, and a model, that
    nobody asks for any more are left out.
    """
    inputs = [dict(entry) for entry in found.get("inputs", [])]
    asked_for = (wanted or {}).get("parameters", {})
    former = _FORMER if found.get("dglzarr_schema") == "model" else {}
    parameters = {key: value for key, value in former.items() if key in asked_for}
    parameters |= found.get("parameters", {})
    if all("role" in entry for entry in inputs):
        return {**found, "inputs": inputs, "parameters": parameters}
    parameters = {_RENAMED.get(key, key): value for key, value in parameters.items()}
    asked = (wanted or {}).get("inputs", [])
    order = [entry["role"] for entry in asked]
    model = parameters.pop("model_id", None)
    if model is not None and (wanted is None or "model" in order):
        inputs.append({"uri": "", "store_id": model, "role": "model"})
    _give_roles(inputs, asked)
    if wanted is not None:
        known = {entry["role"] for entry in inputs}
        unknown = {*_UNRECORDED.get(wanted.get("dglzarr_schema", ""), ())} - known
        inputs += [dict(entry) for entry in wanted["inputs"] if entry["role"] in unknown]
        parameters = {k: v for k, v in parameters.items() if k in wanted["parameters"]}
    inputs.sort(key=lambda entry: order.index(entry["role"]) if entry["role"] in order else -1)
    return {**found, "inputs": inputs, "parameters": parameters}


def _give_roles(inputs: list[dict[str, str]], wanted: Sequence[Mapping[str, str]]) -> None:
    """Give each input that has no role that of the same one wanted, else of one of its name."""
    given = {entry.get("role") for entry in inputs}
    free = [entry for entry in wanted if entry["role"] not in given]
    for alike in (itemgetter("store_id"), _place):
        for entry in (entry for entry in inputs if "role" not in entry):
            same = next((other for other in free if alike(other) == alike(entry)), None)
            if same is not None:
                entry["role"] = same["role"]
                free.remove(same)
    for number, entry in enumerate(inputs):
        entry.setdefault("role", f"{_UNKNOWN}{number}")


def _by_role(inputs: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    return {entry["role"]: entry for entry in inputs}


def _name(key: str, names: Mapping[str, str]) -> str:
    """Return what a parameter or an input is called; one of several files as ``name.file``."""
    first, dot, rest = key.partition(".")
    return f"{names.get(first, first)}{dot}{rest}"


def _place(entry: Mapping[str, str]) -> str:
    return PurePath(entry["uri"]).name if entry else ""


def _shown(value: object) -> str:
    return "" if value is None or value == [] else repr(value)
