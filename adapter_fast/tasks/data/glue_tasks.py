"""GLUE's tasks as data: columns, classes, metrics, and where their parts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SCORES = (0.0, 5.0)  # the range of STS-B's labels


class Part(NamedTuple):
    """Where a part is: a file of the task's folder, and a split of its configuration on the hub."""

    file: str
    split: str


@dataclass(frozen=True)
class GlueTask:
    """One task.

    Attributes:
        name: the folder's, as GLUE publishes it.
        config: the configuration's of nyu-mll/glue.
        texts: the columns of the one or two texts. hub_texts: the same on the hub.
        label: the column of the labels.
        labels: the classes in GLUE's order, as the files and the leaderboard write them; empty: a number from 0 to 5.
        metrics: what GLUE publishes; the first is what Table 1 of the paper reports, and settings are chosen by.
        header: of labelled files that have none of their own.
        row_id: the column of the rows' names; labelled files may lack it.
        skip_short: leave out rows with too few columns, as readers of QQP do for questions that hold a line break.
        labelled, unlabelled: the parts.
    """

    name: str
    config: str
    texts: tuple[str, ...]
    hub_texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    header: tuple[str, ...] | None = None
    row_id: str = "index"
    skip_short: bool = False
    labelled: Mapping[str, Part] = field(
        default_factory=lambda: {"train": Part("train.tsv", "train"), "validation": Part("dev.tsv", "validation")}
    )
    unlabelled: Mapping[str, Part] = field(default_factory=lambda: {"test": Part("test.tsv", "test")})

    def is_head(self, header: Sequence[str], row: Sequence[str]) -> bool:
        """Whether a labelled file of this task begins with such a line, and this one below it (without a head, these
        two rows)."""
        if self.header:
            return len(header) == len(self.header) and header[1] in self.labels and header[2] in ("", "*")
        named = bool({"index", "id", "#1 ID"} & set(header)) or len(header) == 2
        if not named or not {*self.texts, self.label} <= set(header) or len(row) != len(header):
            return False
        label = row[header.index(self.label)]
        return label in self.labels if self.labels else label.replace(".", "", 1).isdecimal()

    def rules(self, metric: str | None) -> str:
        """How its files are read, in words; by GLUE's metric where no other was asked for."""
        texts = " and ".join(map(repr, self.texts)) + (" as a pair" if len(self.texts) == 2 else "")
        return f"by GLUE's rules for {self.name}: {texts}, label {self.label!r}, metric {metric or self.metrics[0]}"


SENTENCES = ("sentence1", "sentence2")
BINARY = ("0", "1")
ENTAILED = ("entailment", "not_entailment")
INFERENCE = ("entailment", "neutral", "contradiction")

GLUE = {
    task.name: task
    for task in (
        GlueTask(
            "CoLA",
            "cola",
            ("sentence",),
            ("sentence",),
            "label",
            BINARY,
            ("matthews",),
            header=("source", "label", "author_label", "sentence"),
        ),
        GlueTask("SST-2", "sst2", ("sentence",), ("sentence",), "label", BINARY, ("accuracy",)),
        GlueTask("MRPC", "mrpc", ("#1 String", "#2 String"), SENTENCES, "Quality", BINARY, ("f1", "accuracy")),
        GlueTask("STS-B", "stsb", SENTENCES, SENTENCES, "score", (), ("spearman", "pearson")),
        GlueTask(
            "QQP",
            "qqp",
            ("question1", "question2"),
            ("question1", "question2"),
            "is_duplicate",
            BINARY,
            ("f1", "accuracy"),
            row_id="id",
            skip_short=True,
        ),
        GlueTask(
            "MNLI",
            "mnli",
            SENTENCES,
            ("premise", "hypothesis"),
            "gold_label",
            INFERENCE,
            ("accuracy",),
            labelled={
                "train": Part("train.tsv", "train"),
                "validation": Part("dev_matched.tsv", "validation_matched"),
                "mismatched": Part("dev_mismatched.tsv", "validation_mismatched"),
            },
            unlabelled={
                "test_matched": Part("test_matched.tsv", "test_matched"),
                "test_mismatched": Part("test_mismatched.tsv", "test_mismatched"),
            },
        ),
        GlueTask("QNLI", "qnli", ("question", "sentence"), ("question", "sentence"), "label", ENTAILED, ("accuracy",)),
        GlueTask("RTE", "rte", SENTENCES, SENTENCES, "label", ENTAILED, ("accuracy",)),
        GlueTask("WNLI", "wnli", SENTENCES, SENTENCES, "label", BINARY, ("accuracy",)),
    )
}

# The diagnostic set has no labels to train or choose by: it is a part of MNLI's, whose models answer it.
DIAGNOSTIC = GlueTask(
    "AX",
    "ax",
    SENTENCES,
    ("premise", "hypothesis"),
    "label",
    INFERENCE,
    ("matthews",),
    labelled={},
    unlabelled={"AX": Part("diagnostic.tsv", "test")},
)


def plain_name(name: str) -> str:
    """A task's or a folder's name without case and punctuation: "SST-2", "sst-2" and "sst2" are one task."""
    return name.lower().replace("-", "").replace("_", "")


def find_task(name: str) -> GlueTask | None:
    """The task of this name, of its folder's or its configuration's; None for another."""
    return next((task for task in GLUE.values() if plain_name(name) == plain_name(task.name)), None)
