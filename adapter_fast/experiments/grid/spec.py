"""One run of an experiment: everything that decides its result, and the name that follows from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ...common.digest import digest
from ...tasks.kinds.settings import Settings

METHODS = ("adapters", "top", "layer-norms", "head", "full")
# Of what a run of each method does: raise it when the same spec would give another result.
VERSIONS = {"adapters": 3, "top": 2, "layer-norms": 3, "head": 3, "full": 2}


@dataclass(frozen=True)
class Spec:
    """A run: one method on one task with one learning rate, number of epochs and seed.

    Attributes:
        base, data: digests of the model's weights and of the task's parts, so that no other ones are taken for them.
        method: "adapters" (with LayerNorms and head); "top": the `top` highest layers and what is above them, the
            paper's variable fine-tuning; "layer-norms" and head; "head" alone; "full" fine-tuning.
        bottleneck, init_std, sublayers, layers, layer_norms: of adapters alone.
        spans: also score with the adapters of every contiguous span of layers removed (section 3.6).
    """

    model: str
    base: str
    task: str
    data: str
    method: str
    batch_size: int
    max_length: int
    precision: str
    bottleneck: int | None = None
    init_std: float | None = None
    sublayers: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    layer_norms: bool = True
    top: int | None = None
    stride: int | None = None
    spans: bool = False
    lr: float = 0.0
    epochs: int = 0
    seed: int = 0

    @property
    def key(self) -> str:
        """The run's name: a digest of all of the above."""
        return digest({"version": VERSIONS[self.method], **asdict(self)})

    @property
    def label(self) -> str:
        """The run in words, for screens."""
        return f"{self.task}, {method_name(asdict(self))}, lr {self.lr:g}, {self.epochs} epochs, seed {self.seed}"

    def settings(self) -> Settings:
        """The run as `adapter-fast tune` calls it."""
        return Settings(
            model=self.model,
            task=self.task,
            method={"adapters": "fused", "head": "head"}.get(self.method, "full"),
            bottleneck=self.bottleneck or 1,
            layer_norms=self.layer_norms,
            lr=self.lr,
            epochs=self.epochs,
            batch_size=self.batch_size,
            max_length=self.max_length,
            stride=self.stride,
            precision=self.precision,
            seed=self.seed,
        )

    def at(self, lr: float, epochs: int, seed: int) -> Spec:
        """The same with another learning rate, number of epochs and seed."""
        return replace(self, lr=lr, epochs=epochs, seed=seed)


def method_name(row: dict[str, Any]) -> str:
    """What trains, as tables call it: "adapters, m = 8", "top 2 layers", "full fine-tuning"."""
    method = row["method"]
    if method == "adapters":
        parts = [f"adapters, m = {row['bottleneck']}"]
        parts += [] if row["init_std"] is None else [f"σ = {row['init_std']:g}"]
        parts += [f"{' and '.join(row['sublayers'])} only".replace("_", "-")] if row["sublayers"] else []
        parts += [f"layers {','.join(map(str, row['layers']))}"] if row["layers"] else []
        parts += [] if row["layer_norms"] else ["LayerNorms frozen"]
        return ", ".join(parts)
    if method == "top":
        return "top layer" if row["top"] == 1 else f"top {row['top']} layers"
    return {"layer-norms": "LayerNorms and head", "head": "head only", "full": "full fine-tuning"}[method]
