"""GLUE's folders in small, in exactly the published formats, and the hub's parquet files; a tiny model learns them."""

from __future__ import annotations

import random
from pathlib import Path

from tiny_task import FILLER, TOPICS

BROKEN = '12\t13\tis this question"\tbroken by a line'  # QQP has rows like this: a question with a line break in it
INFERENCE = ("entailment", "neutral", "contradiction")
LABELS = {
    "CoLA": ("0", "1"),
    "SST-2": ("0", "1"),
    "MRPC": ("0", "1"),
    "QQP": ("0", "1"),
    "MNLI": INFERENCE,
    "QNLI": ("entailment", "not_entailment"),
    "RTE": ("entailment", "not_entailment"),
    "WNLI": ("0", "1"),
}
TASKS = ("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI")
MNLI_COLUMNS = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse"
MNLI_COLUMNS += "\tsentence2_parse\tsentence1\tsentence2"
STSB_COLUMNS = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2"
HUB = {  # configuration, fields, labels
    "CoLA": ("cola", ("sentence",), ("unacceptable", "acceptable")),
    "SST-2": ("sst2", ("sentence",), ("negative", "positive")),
    "MRPC": ("mrpc", ("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    "STS-B": ("stsb", ("sentence1", "sentence2"), ()),
    "QQP": ("qqp", ("question1", "question2"), ("not_duplicate", "duplicate")),
    "MNLI": ("mnli", ("premise", "hypothesis"), INFERENCE),
    "QNLI": ("qnli", ("question", "sentence"), ("entailment", "not_entailment")),
    "RTE": ("rte", ("sentence1", "sentence2"), ("entailment", "not_entailment")),
    "WNLI": ("wnli", ("sentence1", "sentence2"), ("not_entailment", "entailment")),
    "AX": ("ax", ("premise", "hypothesis"), INFERENCE),
}


def examples(task: str, rows: int, seed: int) -> list[tuple[str, str, str]]:
    """(first, second, label): the second text's topic tells the label; STS-B's score is its share of grain."""
    chance = random.Random(f"{task} {seed}")
    made = []
    for i in range(rows):
        first = " ".join(chance.choices(FILLER, k=4))
        filler = chance.choices(FILLER, k=2)
        if task == "STS-B":
            grain = i % 5
            words = chance.choices(TOPICS["grain"], k=grain) + chance.choices(TOPICS["metal"], k=4 - grain)
            label = f"{1.25 * grain:.3f}"
        else:
            labels = LABELS[task]
            words = chance.choices(TOPICS[list(TOPICS)[i % len(labels)]], k=3)
            label = labels[i % len(labels)]
        made.append((first, " ".join([*filler, *words]), label))
    return made


def write_glue(folder: Path, tasks: tuple[str, ...] = TASKS, rows: int = 24) -> Path:
    """The tasks' folders, with 2/3 of the rows in the parts that are scored and 1/4 in the test parts."""
    for task in tasks:
        own = folder / task
        own.mkdir(parents=True, exist_ok=True)
        kinds = ("_matched", "_mismatched") if task == "MNLI" else ("",)
        _write(own / "train.tsv", *_labelled(task, examples(task, rows, 0), train=True))
        for n, kind in enumerate(kinds, start=1):
            _write(own / f"dev{kind}.tsv", *_labelled(task, examples(task, 2 * rows // 3, n), train=False))
            _write(own / f"test{kind}.tsv", *_test(task, examples(task, rows // 4, 10 + n)))
    return folder


def write_diagnostic(folder: Path, rows: int = 3) -> Path:
    """diagnostic/diagnostic.tsv, as download_glue_data.py places it."""
    (folder / "diagnostic").mkdir(parents=True, exist_ok=True)
    lines = [f"{i}\t{first}\t{second}" for i, (first, second, _) in enumerate(examples("MNLI", rows, 99))]
    _write(folder / "diagnostic" / "diagnostic.tsv", ["index\tsentence1\tsentence2", *lines])
    return folder


def _write(path: Path, lines: list[str], end: str = "\n", mark: str = "") -> None:
    path.write_bytes((mark + "".join(line + end for line in lines)).encode())


def _labelled(task: str, made: list[tuple[str, str, str]], train: bool) -> tuple:
    rows = list(enumerate(made))
    if task == "CoLA":
        return ([f"gj04\t{label}\t{'*' if label == '0' else ''}\t{second}" for _, (_, second, label) in rows],)
    if task == "SST-2":
        return (["sentence\tlabel", *(f"{second} \t{label}" for _, (_, second, label) in rows)],)
    if task == "MRPC":
        lines = [f"{label}\t{700 + i}\t{900 + i}\t{first}\t{second}" for i, (first, second, label) in rows]
        return ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *lines], "\r\n", "\ufeff"
    if task == "STS-B":
        lines = [
            f"{i}\tmain-captions\tMSRvid\t2012test\t{i:04}\tnone\tnone\t{first}\t{second}\t{score}"
            for i, (first, second, score) in rows
        ]
        return ([f"{STSB_COLUMNS}\tscore", *lines],)
    if task == "QQP":
        lines = [f"{133 + i}\t{2 * i}\t{2 * i + 1}\t{first}\t{second}\t{label}" for i, (first, second, label) in rows]
        return (["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", *lines, *([BROKEN] if train else [])],)
    if task == "MNLI":
        annotators = ["label1"] if train else [f"label{n}" for n in range(1, 6)]
        lines = [
            "\t".join([_mnli(i, first, second), *[label] * len(annotators), label])
            for i, (first, second, label) in rows
        ]
        return (["\t".join([MNLI_COLUMNS, *annotators, "gold_label"]), *lines],)
    texts = "question\tsentence" if task == "QNLI" else "sentence1\tsentence2"
    lines = [f"{i}\t{first}\t{second}\t{label}" for i, (first, second, label) in rows]
    return ([f"index\t{texts}\tlabel", *lines],)


def _test(task: str, made: list[tuple[str, str, str]]) -> tuple:
    rows = list(enumerate(made))
    if task in ("CoLA", "SST-2"):
        return (["index\tsentence", *(f"{i}\t{second}" for i, (_, second, _) in rows)],)
    if task == "MRPC":
        lines = [f"{i}\t{700 + i}\t{900 + i}\t{first}\t{second}" for i, (first, second, _) in rows]
        return (["index\t#1 ID\t#2 ID\t#1 String\t#2 String", *lines],)
    if task == "STS-B":
        lines = [
            f"{i}\tmain-captions\tMSRvid\t2012test\t{i:04}\tnone\tnone\t{first}\t{second}"
            for i, (first, second, _) in rows
        ]
        return ([STSB_COLUMNS, *lines],)
    if task == "QQP":
        return (["id\tquestion1\tquestion2", *(f"{i}\t{first}\t{second}" for i, (first, second, _) in rows)],)
    if task == "MNLI":
        return ([MNLI_COLUMNS, *(_mnli(9815 + i, first, second) for i, (first, second, _) in rows)],)
    texts = "question\tsentence" if task == "QNLI" else "sentence1\tsentence2"
    return ([f"index\t{texts}", *(f"{i}\t{first}\t{second}" for i, (first, second, _) in rows)],)


def _mnli(i: int, first: str, second: str) -> str:
    parses = [f"( {first} )", f"( {second} )", f"(ROOT (NP {first}))", f"(ROOT (NP {second}))"]
    return "\t".join([str(i), str(6000 + i), f"{6000 + i}e", "fiction", *parses, first, second])


def write_hub(folder: Path, tasks: tuple[str, ...] = (*TASKS, "AX"), rows: int = 12) -> Path:
    """A copy of nyu-mll/glue's parquet files: a folder a configuration, a file a split, -1 where labels are hidden."""
    import datasets

    for task in tasks:
        config, fields, names = HUB[task]
        kinds = ("_matched", "_mismatched") if task == "MNLI" else ("",)
        splits = {"test": True} if task == "AX" else {"train": False}
        splits |= {} if task == "AX" else {f"validation{kind}": False for kind in kinds}
        splits |= {f"test{kind}": True for kind in kinds}
        for number, (split, hidden) in enumerate(splits.items()):
            made = examples("MNLI" if task == "AX" else task, rows, number)
            texts = [[row[-len(fields) - 1 + n] for row in made] for n in range(len(fields))]
            columns = dict(zip(fields, texts, strict=True))
            if task == "STS-B":
                label_type, labels = datasets.Value("float32"), [float(label) for _, _, label in made]
            else:
                label_type = datasets.ClassLabel(names=list(names))
                labels = [LABELS.get(task, INFERENCE).index(label) for _, _, label in made]
            columns |= {"label": [-1] * len(made) if hidden else labels, "idx": list(range(len(made)))}
            features = {field: datasets.Value("string") for field in fields}
            features |= {"label": label_type, "idx": datasets.Value("int32")}
            path = folder / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_dict(columns, features=datasets.Features(features)).to_parquet(path)
    return folder
