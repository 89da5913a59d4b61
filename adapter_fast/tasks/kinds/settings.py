"""What one tuning run is asked to do: everything that decides its result, in one JSON-able record."""

from __future__ import annotations

import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from ...common.errors import UserError
from ...config import PLACEMENTS, WIDEST
from . import KINDS

ADAPTER_METHODS = ("fused", "reference")
METHODS = (*ADAPTER_METHODS, "head", "full")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
LEARNING_RATES = {"fused": 1e-3, "reference": 1e-3, "head": 3e-3, "full": 5e-5}


@dataclass(frozen=True)
class Settings:
    """One tuning run. A size is a count when it is 1 or more, a fraction when it is below 1."""

    model: str
    task: str
    method: str = "fused"
    bottleneck: int = 64
    activation: str = "gelu_tanh"
    layer_norms: bool = True
    lr: float | None = None
    epochs: int = 3
    batch_size: int = 32
    max_length: int | None = None
    train_size: float | None = None
    validation_size: float | None = None
    test_size: float | None = None
    validation_file: str | None = None
    test_file: str | None = None
    text_columns: tuple[str, ...] = ("text",)
    label_column: str = "label"
    precision: str = "auto"
    seed: int = 0
    save_steps: int | None = None
    kind: str | None = None
    stride: int | None = None
    placement: str = "houlsby"
    layers: list[int] | None = None
    target_modules: str | None = None
    gradient_checkpointing: bool = False
    report_to: str = "none"
    skip_bad: bool = False
    metric: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text_columns", tuple(self.text_columns))  # a list on disk
        choices = (("method", METHODS), ("precision", PRECISIONS), ("placement", PLACEMENTS), ("kind", (*KINDS, None)))
        for name, allowed in choices:
            if getattr(self, name) not in allowed:
                raise UserError(
                    f"{name} must be one of {', '.join(filter(None, allowed))}, got {getattr(self, name)!r}"
                )
        for name in ("bottleneck", "epochs", "batch_size", "max_length", "save_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, got {value}")
        if self.bottleneck > WIDEST:
            raise UserError(f"bottleneck must be at most {WIDEST:,}, got {self.bottleneck:,}")
        if not 1 <= len(self.text_columns) <= 2:
            raise UserError(f"text_column must be given once, or twice for pairs, got {len(self.text_columns)}")
        if len(set(self.text_columns)) < len(self.text_columns):
            raise UserError(f"text_column must name two columns for pairs, got {self.text_columns[0]!r} twice")
        if self.stride is not None and self.stride < 0:
            raise UserError(f"stride must be at least 0, got {self.stride}")
        for name in ("train_size", "validation_size", "test_size"):
            check_part_size(name, getattr(self, name))
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr > 0):
            raise UserError(f"lr must be a positive number, got {self.lr}")

    @property
    def learning_rate(self) -> float:
        """The given learning rate, or the method's default."""
        return LEARNING_RATES[self.method] if self.lr is None else self.lr

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-able values."""
        return asdict(self)


def check_part_size(name: str, size: float | None) -> None:
    """Raise unless size is None, a fraction between 0 and 1, or a whole number of examples."""
    if size is None:
        return
    if not math.isfinite(size) or size <= 0 or (size >= 1 and size != int(size)):
        raise UserError(f"{name} must be a fraction below 1 or a whole number of examples, got {size}")


def read_settings(record: dict[str, Any], where: str) -> Settings:
    """The settings in a stored record; one that it lacks, since it came later, has its default.

    Args:
        record: as Settings.to_dict gives it. where: the record's file, as errors call it.

    Raises:
        UserError: a setting that this version does not know, no model or task, or a value out of range.
    """
    known = {field.name: field for field in fields(Settings)}
    if "text_column" in record:  # of an earlier version
        record = {"text_columns": [record["text_column"]], **record}
        del record["text_column"]
    unknown = sorted(record.keys() - known.keys())
    if unknown:
        raise UserError(
            f"{where} has the setting {unknown[0]!r} ({record[unknown[0]]!r}), which this version does not know: "
            "go on with the version that began the run"
        )
    lacking = [name for name, field in known.items() if field.default is MISSING and name not in record]
    if lacking:
        raise UserError(f"{where} is no run's record: it lacks {', '.join(lacking)}")
    try:
        return Settings(**record)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from None


def differences(ours: Settings, theirs: Settings) -> list[str]:
    """The settings in which two runs differ, as readable pairs: what theirs was, and what ours is."""
    mine, other = (json.loads(json.dumps(each.to_dict())) for each in (ours, theirs))  # a tuple is a list on disk
    return [f"{name} was {other[name]!r}, now {mine[name]!r}" for name in mine if mine[name] != other[name]]
