"""Owns the turning of loops into machine code, for the few that numpy takes several passes for."""

from collections.abc import Callable
from functools import cache
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@cache
def compiled(func: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Return a function of arrays and numbers as machine code that runs without Python's lock.

    Other threads go on meanwhile. It is compiled at its first call in a process, which takes about
    a second: worth it for what is called all through a training, not for a stage's few tasks.

    Raises
    ------
    ImportError
        Where numba is not installed (the extra ``train`` brings it).
    """
    import numba  # noqa: PLC0415  (takes half a second)

    machine_code: Callable[Arguments, Result] = numba.njit(nogil=True)(func)
    return machine_code
