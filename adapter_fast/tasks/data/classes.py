"""The classes that a file's labels name, and labels that may or may not mean the same."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from ...common.errors import UserError

TRUTH = ("true", "false")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
PREDICTED = "--kind text-regression predicts numbers"
_INTEGER = re.compile(r"([+-]?)0*(\d+)")


class Classes:
    """Collects a file's classes with how and where they are written first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written: dict[str, dict[str, int]] = {}  # by class, the first line of each way to write it

    def add(self, line: int, written: str, name: str) -> str:
        """Note that this line writes the class so; the class."""
        self.written.setdefault(name, {}).setdefault(written, line)
        return name

    def line(self, name: str) -> int:
        """The first line with the class."""
        return next(iter(self.written[name].values()))

    def check(self) -> list[str]:
        """What was assumed where two labels may mean the same, a sentence each.

        Raises:
            UserError: truth values among numbers; one whole number written in two ways, as 7 and 007.
        """
        self._check_truth()
        self._check_integers()
        return [*self._same(), *self._alike(), *self._numbers()]

    def _numbers(self) -> list[str]:
        """A note where all classes are numbers, and not all of them whole."""
        numbers = {name: number_of(name) for name in self.written}
        part = next((name for name, number in numbers.items() if number is not None and number % 1), None)
        if part is None or None in numbers.values():
            return []
        said = f"the labels are numbers, as {part}, and taken for {len(self.written)} classes"
        return [f"{self.path}, line {self.line(part)}: {said}: {PREDICTED}"]

    def _check_truth(self) -> None:
        truth = [name for name in self.written if name.casefold() in TRUTH]
        numbers = [name for name in self.written if _NUMBER.fullmatch(name)]
        if truth and numbers and len(truth) + len(numbers) == len(self.written):
            raise UserError(
                f"{self.path}, line {self.line(numbers[0])}: the label {numbers[0]} is a number, and line "
                f"{self.line(truth[0])}'s {truth[0]} a truth value: expected one way to write the classes"
            )

    def _check_integers(self) -> None:
        first: dict[str, str] = {}
        for name in self.written:
            number = _INTEGER.fullmatch(name)
            if number is None:
                continue
            other = first.setdefault(number[1].strip("+") + number[2], name)
            if other != name:
                raise UserError(
                    f"{self.path}, line {self.line(name)}: the label {name} is the number of line "
                    f"{self.line(other)}'s {other}: expected one way to write a class"
                )

    def _same(self) -> list[str]:
        several = {name: written for name, written in self.written.items() if len(written) > 1}
        for name, written in several.items():
            (one, at), (other, line) = list(written.items())[:2]
            said = f"{self.path}, line {line}: {other} is taken for the class {name!r}, as line {at}'s {one} is"
            return [said + _others(len(several) - 1, "label")]
        return []

    def _alike(self) -> list[str]:
        pairs = alike(self.written)
        for one, other in pairs[:1]:
            said = f"{self.path}, line {self.line(other)}: {other!r} and line {self.line(one)}'s {one!r} look alike"
            return [f"{said}: taken for two classes{_others(len(pairs) - 1, 'pair')}"]
        return []


def number_of(written: str) -> float | None:
    """The finite number that is written so, None where it is none; float() takes 1_000 and nan too."""
    number = float(written) if _DECIMAL.fullmatch(written) else math.inf
    return number if math.isfinite(number) else None


def alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ in case, spaces, unseen marks or Unicode's spellings, or as 1.1 and 1.10 do."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_look(name), []).append(name)
    return [(group[0], group[1]) for group in groups.values() if len(group) > 1]


def _look(name: str) -> str:
    if _NUMBER.fullmatch(name):
        return name if "." not in name else name.rstrip("0")
    shown = (sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")
    return " ".join("".join(shown).casefold().split())


def _others(number: int, thing: str) -> str:
    return f" ({number:,} more such {thing}{'s' if number > 1 else ''})" if number else ""
