"""What a stage is: a function that makes one store, and can be asked what it would do.

``@stage(NORMALIZED, reads=("source",))`` declares the store that a function writes and which of its
arguments are inputs. The function is then called without its claim: it gets one when there is
something to do, and what stands there complete is summarized instead. ``.claim(...)`` takes the
same arguments and changes nothing.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import update_wrapper
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec

from dglzarr.storage.options import Options, Run
from dglzarr.storage.store import (
    StoreSummary,
    check_claim,
    check_matrices,
    summarize,
    take_claim,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dglzarr.storage.claims import Claim
    from dglzarr.storage.declare import StoreSpec

logger = logging.getLogger(__name__)

P = ParamSpec("P")


@dataclass(eq=False)
class Stage(Generic[P]):
    """A function that makes one store; see the module's docstring.

    Attributes
    ----------
    body
        Called with the claim and the arguments. They include ``target``, and may include
        ``options`` and ``run``.
    specs
        What it may write; of several the body chooses one.
    reads
        Arguments that name inputs: stores, models or files, one or several; None is none.
    files
        Arguments that name inputs which are files, and what the settings call them.
    records
        Other arguments that decide what is made, such as ``seed``.
    constants
        What is not a choice, but for the record.
    summary
        Returns the summary of what stands complete.
    damage
        Returns what is wrong with what stands there, "" where nothing is.
    """

    body: Callable[Concatenate[Claim, P], StoreSummary]
    specs: tuple[StoreSpec, ...]
    reads: Sequence[str] = ("source",)
    files: Mapping[str, str] = field(default_factory=dict)
    records: Sequence[str] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    summary: Callable[[Claim], StoreSummary] = summarize
    damage: Callable[[str], str] | None = None

    def __post_init__(self) -> None:
        update_wrapper(self, self.body)
        others = list(inspect.signature(self.body).parameters.values())[1:]  # without the claim
        self.__signature__ = inspect.Signature(others)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> StoreSummary:
        """Make the store, or find it made, and return its summary."""
        started = time.monotonic()
        run: Run = self._bound(args, kwargs).get("run") or Run()
        asked = replace(self.claim(*args, **kwargs), started=started)
        claim = take_claim(asked, overwrite=run.overwrite)
        is_done = claim.state == "unchanged"
        if run.verify_on_read and not is_done:
            for uri in self._inputs(self._bound(args, kwargs)).values():
                check_matrices(uri, on_progress=run.on_progress)
        found = self.summary(claim) if is_done else self.body(claim, *args, **kwargs)
        logger.info(
            "%s %s: %s in %.1f s, %.1f MB",
            found.schema,
            found.state,
            dict(found.sizes),
            found.seconds,
            found.nbytes / 1e6,
        )
        return found

    def claim(self, *args: P.args, **kwargs: P.kwargs) -> Claim:
        """Return what a call with these arguments would find and do; nothing is changed.

        Raises
        ------
        DglzarrError
            When an input cannot be read, or something that is not dglzarr's stands at the target.
        """
        bound = self._bound(args, kwargs)
        options = bound.get("options") or Options()
        inputs = self._inputs(bound)
        files = {r: path for name in self.files for r, path in _roles(name, bound[name])}
        return check_claim(
            bound["target"],
            self.specs,
            inputs=inputs,
            files={**files, **options.inputs()},
            parameters={
                **options.recorded(),
                **{name: bound[name] for name in self.records},
                **self.constants,
            },
            names={**options.setting_names(), **self.files},
            damage=self.damage,
        )

    @property
    def writes(self) -> str:
        """The name of the store that it makes, the first where the body chooses of several."""
        return self.specs[0].name

    def __reduce__(self) -> str:
        return str(self.__dict__["__name__"])  # a task finds it by its name

    def _inputs(self, bound: Mapping[str, Any]) -> dict[str, str]:
        """Return the stores, models and files that are read, by their role."""
        return {role: uri for name in self.reads for role, uri in _roles(name, bound[name])}

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        bound = self.__signature__.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


def stage(
    *specs: StoreSpec,
    **declared: Any,  # noqa: ANN401
) -> Callable[[Callable[Concatenate[Claim, P], StoreSummary]], Stage[P]]:
    """Return what makes a `Stage` of a function, declared by the fields of `Stage`."""
    return lambda body: Stage(body, specs, **declared)


def _roles(
    name: str, value: str | Sequence[str | tuple[str, ...]] | Mapping[str, str] | None
) -> Iterator[tuple[str, str]]:
    """Yield an argument's inputs with their roles: its name, of several with that of each.

    A name that comes again is numbered, so that an input which is added changes no other's role.
    """
    if isinstance(value, str):
        yield name, value
        return
    if isinstance(value, Mapping):
        yield from ((f"{name}.{key}", uri) for key, uri in value.items())
        return
    seen: Counter[str] = Counter()
    for uri in (u for one in value or () for u in ((one,) if isinstance(one, str) else one)):
        stem = PurePath(uri).stem
        seen[stem] += 1
        yield f"{name}.{stem}" + (f" {seen[stem]}" if seen[stem] > 1 else ""), uri
