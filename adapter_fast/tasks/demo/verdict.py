"""What the demo must show: fused and reference agree, the adapter survives its file, the accuracy is there."""

from __future__ import annotations

import math
from typing import Any

ACCURACY_BAR = 0.85
POINTS_BAR = 0.5
LOSS_BAR = 1e-4
LOSS_STEPS = 20
LOGIT_BAR = 1e-5


def demo_record(results: dict[str, Any], reload: dict[str, Any], adapter_bytes: int, quick: bool) -> dict[str, Any]:
    """The demo's record: every method's results, how fused and reference agree, the reload, and the checks."""
    fused, reference = results["fused"], results["reference"]
    points = 100 * abs(fused["accuracy"] - reference["accuracy"])
    loss_difference = largest_difference(fused["losses"][:LOSS_STEPS], reference["losses"][:LOSS_STEPS])
    lowest = min(fused["accuracy"], reference["accuracy"])
    checks = [
        _check(
            "reload",
            reload["accuracy"] == fused["accuracy"] and reload["logit_difference"] <= LOGIT_BAR,
            f"saved ({adapter_bytes / 1e6:.1f} MB) and loaded into a fresh model: accuracy {fused['accuracy']:.3f}, "
            f"then {reload['accuracy']:.3f}; logits {_within(reload['logit_difference'])}",
        ),
        _check(
            "losses",
            loss_difference <= LOSS_BAR,
            f"fused and reference: losses of the first {min(LOSS_STEPS, len(fused['losses']))} steps within "
            f"{loss_difference:.1e} of each other, relative (at most {LOSS_BAR:.0e})",
        ),
        _check(
            "agreement",
            points <= POINTS_BAR,
            f"fused and reference: accuracy {points:.2f} points apart (at most {POINTS_BAR})",
        ),
    ]
    if not quick:
        bar = f"adapters reach {lowest:.3f} accuracy (at least {ACCURACY_BAR})"
        checks.append(_check("accuracy", lowest >= ACCURACY_BAR, bar))
    return {
        "methods": results,
        "reload": reload,
        "adapter_bytes": adapter_bytes,
        "loss_difference": loss_difference,
        "accuracy_points_apart": points,
        "quick": quick,
        "checks": checks,
    }


def largest_difference(ours: list[float], theirs: list[float]) -> float:
    """The largest difference of two loss curves, relative to theirs; infinite where one is shorter or not a number."""
    if len(ours) != len(theirs) or not ours:
        return math.inf
    differences = [abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True)]
    return max(math.inf if math.isnan(value) else value for value in differences)


def _check(name: str, passed: bool, text: str) -> dict[str, Any]:
    return {"name": name, "passed": bool(passed), "text": text}


def _within(difference: float) -> str:
    return "bit for bit the same" if difference == 0 else f"within {difference:.1e}"
