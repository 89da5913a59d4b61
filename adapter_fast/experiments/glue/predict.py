"""A chosen run trained once more for its predictions, where it was not its cell's best when it was trained."""

from __future__ import annotations

from dataclasses import dataclass

from ...common.digest import digest
from ...tasks.trainer import Report
from ...tasks.tuning import environment
from ..grid.cells import Row
from ..grid.lab import Lab
from ..grid.spec import Spec
from ..grid.train import predict_unlabelled, train


@dataclass(frozen=True)
class Prediction:
    """A job of the engine: the unlabelled parts' predictions by the run of this spec."""

    spec: Spec

    @property
    def key(self) -> str:
        """A digest of the spec."""
        return digest({"predict": self.spec.key})

    @property
    def label(self) -> str:
        """In words, for screens."""
        return f"{self.spec.label}: once more, to predict"

    def run(self, lab: Lab, report: Report) -> Row:
        """Do it; the row names the spec's key."""
        trained = train(self.spec, lab, report)
        return {
            "key": self.key,
            "task": self.spec.task,
            "predicts": self.spec.key,
            "predicted": predict_unlabelled(trained, self.spec, lab),
            "train_seconds": round(trained.seconds, 2),
            **environment(),
        }
