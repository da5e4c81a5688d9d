"""The parameters of a request: each declared where it is read, anything else refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dglzarr.errors import hint, shown
from dglzarr.serve.refusals import BadQuestion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.datastructures import QueryParams

LONGEST_TEXT = 200
MOST_NAMES = 2000
_APART = re.compile(r"[,;\s]+")


class Question:
    """Reads parameters one by one; `end` refuses those that nobody has read.

    Every error names the parameter, what is expected of it and what it is.
    """

    def __init__(self, parameters: QueryParams) -> None:
        self._given: dict[str, str] = {}
        self._read: list[str] = []
        for name, value in parameters.multi_items():
            if name in self._given:
                raise BadQuestion(f"{shown(name)}: expected once, got it again.")
            if "\0" in value:
                raise BadQuestion(f"{shown(name)}: expected text, got a zero byte.")
            self._given[name] = value

    def text(self, name: str, default: str = "", *, longest: int = LONGEST_TEXT) -> str:
        """Return a text without space around it."""
        self._read.append(name)
        value = self._given.get(name, default).strip()
        if len(value) > longest:
            raise BadQuestion(f"{name}: expected at most {longest} characters, got {len(value)}.")
        return value

    def needed(self, name: str) -> str:
        """Return a text that must be there."""
        if not (value := self.text(name)):
            raise BadQuestion(
                f"{name}: expected a value, got none. Add ?{name}=... to the address."
            )
        return value

    def number(self, name: str, default: int, *, low: int, high: int) -> int:
        """Return a whole number within bounds."""
        text = self.text(name)
        if not text:
            return default
        if not re.fullmatch(r"-?[0-9]{1,9}", text, re.ASCII) or not low <= int(text) <= high:
            raise BadQuestion(f"{name}: expected a number from {low} to {high}, got {text!r}.")
        return int(text)

    def real(self, name: str) -> float | None:
        """Return a number that is finite, None where none is given."""
        text = self.text(name)
        if not text:
            return None
        if not re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII):
            raise BadQuestion(f"{name}: expected a number, got {text!r}.")
        return float(text)

    def choice(self, name: str, known: Sequence[str]) -> str:
        """Return one of some words, by default the first."""
        text = self.text(name, known[0])
        if text not in known:
            raise BadQuestion(f"{name}: expected {', '.join(known)}, got {text!r}.")
        return text

    def flag(self, name: str) -> bool:
        """Return whether something is asked for."""
        return self.choice(name, ["", "on"]) == "on"

    def names(self, name: str) -> tuple[str, ...]:
        """Return names that commas or spaces keep apart, each once."""
        text = self.text(name, longest=MOST_NAMES * 16)
        found = tuple(dict.fromkeys(part for part in _APART.split(text) if part))
        if len(found) > MOST_NAMES:
            raise BadQuestion(f"{name}: expected at most {MOST_NAMES} genes, got {len(found)}.")
        return found

    def end(self) -> None:
        """Refuse parameters that nothing has asked for."""
        for name in self._given:
            if name not in self._read:
                known = ", ".join(dict.fromkeys(self._read)) or "no parameters"
                raise BadQuestion(
                    f"expected {known}, got {name[:LONGEST_TEXT]!r}{hint(name[:50], self._read)}."
                )
