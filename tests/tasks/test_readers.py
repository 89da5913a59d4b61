"""What readers take for granted: known formats, encodings and line ends, spellings of a class, samples of images.

Each file here was once read as something else without a word; what is still assumed is a notice with file and line.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tiny_task import write_images, write_squad, write_tags, write_task

from adapter_fast.common.errors import UserError
from adapter_fast.experiments.grid import texts
from adapter_fast.experiments.grid.options import Options
from adapter_fast.tasks.data.documents import read_documents
from adapter_fast.tasks.data.pictures import open_picture, read_pictures
from adapter_fast.tasks.data.questions import read_questions
from adapter_fast.tasks.data.readers import read_examples
from adapter_fast.tasks.data.sentences import read_sentences
from adapter_fast.tasks.kinds.find import kind_name, load_kind
from adapter_fast.tasks.kinds.settings import Settings
from adapter_fast.tasks.metrics.entities import has_entities
from adapter_fast.tasks.screen import print_data
from adapter_fast.tasks.splits import label_names, load_task


def error_of(read: Callable, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def check_notices(notices: tuple[str, ...], path: Path, expected: list[str]) -> None:
    """Each notice names the file and a line and says what was expected of it; no more of them, none less."""
    assert len(notices) == len(expected), notices
    for notice, part in zip(notices, expected):
        assert re.match(rf"{re.escape(str(path))}, line \d+: ", notice) and part in notice and "\n" not in notice, (
            notice
        )


# Columns: (file, words of each sentence, tags, whether entities are scored, notices)

CONLLU = """# sent_id = 1
# text = vámonos al mar
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\tV\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\tP\t_\t1\tobj\t_\tSpaceAfter=No
2.1\tx\tx\tX\t_\t_\t_\t_\t_\t_
3\t20 000\t20000\tNUM\tN\t_\t1\tobl\t_\t_
"""
COLUMNS: dict[str, tuple[str, str, str, str, bool, list[str]]] = {
    "CoNLL-2003": (
        *(
            "a.conll",
            "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nsaid VBZ B-VP O\n\n-DOCSTART- -X- O O\n\nUN NNP B-NP O\n",
        ),
        *("EU said | UN", "B-ORG O | O", True, []),
    ),
    "CoNLL-2003-German": (
        *("a.conll", "Stefan Stefan NE I-NC I-PER\nsagt sagen VVFIN I-VC O\n", "Stefan sagt", "I-PER O", True, []),
    ),
    "CoNLL-2000": ("a.txt", "# # B-NP\n1.5 CD I-NP\nrose VBD B-VP\n", "# 1.5 rose", "B-NP I-NP B-VP", True, []),
    "WNUT": ("a.conll", "#Brexit\tB-event\nis\tO\n\t\n@x\tO\n#\tO\n", "#Brexit is | @x #", "B-event O | O O", True, []),
    "MultiCoNER": (
        "a.conll",
        "# id 5239d808-f300 domain=train\nrobert _ _ B-PER\ngott _ _ I-PER\n\n\n# id 17\tdomain=train\nin _ _ O\n",
        *(
            "robert gott | in",
            "B-PER I-PER | O",
            True,
            ["line 1: begins with # and is taken for a comment, with 1 more"],
        ),
    ),
    "comment-of-as-many-columns": (
        *("a.conll", "# text = x O\nx _ _ _ O\nEU _ _ _ B-ORG\n", "x EU", "O B-ORG", True, ["line 1: begins with #"]),
    ),
    "Universal-NER": (
        "a.iob2",
        "# sent_id = w-1\n# text = In AP\n1\tIn\tO\t-\tann\n2\tAP\tB-ORG\t-\tann\n\n# text = x O\n1\tx\tO\t-\tann\n",
        *("In AP | x", "O B-ORG | O", True),
        ["line 3: words are taken from column 2 of 5, tags from column 3", "line 1: begins with #"],
    ),
    "GermEval": (
        "a.tsv",
        "#\thttp://de.wikipedia.org\t[2009-10-17]\n1\tBerliner\tB-ORG\tB-LOC\n2\tAmt\tI-ORG\tO\n\n1\tder\tO\tO\n",
        *("Berliner Amt | der", "B-ORG I-ORG | O", True, ["tags from column 3", "line 1: begins with #"]),
    ),
    "numbered-CoNLL-2003": (
        *(
            "a.conll",
            "0 EU NNP B-NP B-ORG\n1 said VBZ B-VP O\n\n0 UN NNP B-NP O\n",
            "EU said | UN",
            "B-ORG O | O",
            True,
        ),
        ["line 1: words are taken from column 2 of 5, tags from column 5"],
    ),
    "numbered-through": ("a.conll", "1 a NN\n2 b VB\n\n3 c NN\n", "a b | c", "NN VB | NN", False, ["column 2 of 3"]),
    "CoNLL-U": (
        *("a.conllu", CONLLU, "vamos nos 20_000", "VERB PRON NUM", False),
        ["line 3: words are taken from column 2 of 10, tags from column 4", "line 1: begins with #"],
    ),
    "CoNLL-X": (
        *("a.conll", re.sub(r"(?m)^(#|1-2|2\.1).*\n", "", CONLLU), "vamos nos 20_000", "VERB PRON NUM", False),
        ["tags from column 4"],
    ),
    "WikiANN": (
        *("a.txt", "en:New\tB-LOC\nen:York\tI-LOC\n\nen::\tO\n", "New York | :", "B-LOC I-LOC | O", True),
        ["line 1: every word begins with en: which is left out"],
    ),
    "conlleval": ("a.conll", "x NN B-A B-A\ny NN O B-A\n", "x y", "B-A O", True, ["tags from column 3"]),
    "tags-before-the-last": (
        "a.conll",
        "EU B-ORG NNP\nsaid O VBZ\n",
        "EU said",
        "B-ORG O",
        True,
        ["tags from column 2"],
    ),
    "BIOES": ("a.bioes", "EU S-ORG\nNew B-LOC\nYork E-LOC\n", "EU New York", "S-ORG B-LOC E-LOC", True, []),
    "BILOU": ("a.bio", "EU U-ORG\nNew B-LOC\nYork L-LOC\n", "EU New York", "U-ORG B-LOC L-LOC", True, []),
    "one-type": ("a.iob", "New B\nYork I\nis O\n", "New York is", "B I O", True, []),
    "parts-of-speech": ("a.conll", "# #\n1 CD\n. .\n", "# 1 .", "# CD .", False, []),
    "digits-as-words": ("a.conll", "1 CD B-N\n\n1 CD O\n", "1 | 1", "B-N | O", True, []),
    "no-break-space": ("a.conll", "20\u00a0000 B-N\nx O\n", "20\u00a0000 x", "B-N O", True, []),
    "next-line-sign": ("a.conll", "a\u0085b B-N\nx O\n", "a\u0085b x", "B-N O", True, []),
    "old-Mac": ("a.conll", "EU B-ORG\rsaid O\r\rUN O\r", "EU said | UN", "B-ORG O | O", True, []),
    "types-without-letters": (
        *("a.conll", "EU ORG\nsaid O\n", "EU said", "ORG O", False),
        ["line 1: the tag 'ORG' is not BIO, BIOES or BILOU: words are scored, not entities"],
    ),
    "numbers-as-tags": (
        *("a.jsonl", '{"tokens": ["EU", "said"], "tags": [3, 0]}', "EU said", "3 0", False),
        ["line 1: the tag '3' is not BIO"],
    ),
    "other-columns": (
        *("a.conll", "EU NNP B-ORG\n\nUN B-ORG\n", "EU | UN", "B-ORG | B-ORG", True),
        ["line 3: 2 columns, elsewhere 3: words are taken from the first, tags from the last"],
    ),
}


@pytest.mark.parametrize("case", COLUMNS.values(), ids=COLUMNS)
def test_known_formats_of_tags_are_read_as_their_own_tools_do(tmp_path: Path, case: tuple) -> None:
    name, content, words, tags, scored, notices = case
    path = tmp_path / name
    path.write_bytes(content.encode())
    read = read_sentences(path)
    assert read.tokens == [[word.replace("_", " ") for word in part.strip(" ").split(" ")] for part in words.split("|")]
    assert read.tags == [part.split() for part in tags.split("|")]
    assert has_entities({tag for tags in read.tags for tag in tags}) is scored
    check_notices(read.notices, path, notices)


BAD_COLUMNS = {
    "two-words": ("New York B-LOC\nis O\n", "line 2: 2 columns, expected 3"),
    "two-words-below": ("is O\nNew York B-LOC\n", "line 2: 3 columns, expected 2"),
    "other-sentence": ("1\ta\tO\n2\tb\tB-A\n\n1\tc\n", "line 4: 2 columns, expected 3"),
    "comment-inside": (
        "a _ _ O\n# id 7 domain=x\nb _ _ B-A\n",
        "line 2: begins with # inside a sentence and has no tag",
    ),
    "odd-tag": (
        "a B-PER\nb O\nc 0\n",
        "line 3: the tag '0' marks no entity as line 1's 'B-PER' does: expected O, or B-",
    ),
    "lower-case": ("a B-PER\nb O\nc o\n", "line 3: the tag 'o' marks no entity"),
    "numbers-and-tags": ("1 O\n2 B-A\n", "line 1: its first column numbers the words and one column is left"),
    "empty-word": ("\tO\nx\tO\n", "line 1: the word is empty"),
    "CoNLL-2012": ("#begin document (bc/cctv); part 000\nbc/cctv 0 0 In IN (TOP -\n", "line 1: is CoNLL-2012"),
    "WebAnno": ("#FORMAT=WebAnno TSV 3.2\n\n#Text=x\n1-1\t0-1\tx\t_\n", "line 1: is WebAnno TSV"),
}


@pytest.mark.parametrize("content, message", BAD_COLUMNS.values(), ids=BAD_COLUMNS)
def test_columns_that_may_mean_two_things_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.conll").write_text(content)
    error = error_of(read_sentences, tmp_path / "a.conll")
    assert f"{tmp_path}/a.conll, {message}" in error


def test_a_tag_beside_entities_is_refused_in_json_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"tokens": ["a"], "tags": ["B-X"]}\n{"tokens": ["a", "b"], "tags": ["O", "X"]}\n'
    )
    assert "line 2: the tag 'X' marks no entity as line 1's 'B-X' does" in error_of(
        read_sentences, tmp_path / "a.jsonl"
    )


def test_columns_are_named_by_number(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("EU NNP B-NP B-ORG\nsaid VBZ B-VP O\n")
    kind = load_kind("token-classification")
    read = kind.read(str(path), Settings("m", str(path), label_column="2"))
    assert (read.tokens, read.tags, read.notices) == ([["EU", "said"]], [["NNP", "VBZ"]], ())
    assert kind.read(str(path), Settings("m", str(path), text_columns=("2",))).tokens == [["NNP", "VBZ"]]
    error = error_of(kind.read, str(path), Settings("m", str(path), label_column="5"))
    assert f"{path}, line 1: has no column 5 for the label: it has 4" in error


def test_endings_of_column_files_are_for_tokens() -> None:
    for ending in ("conll", "conllu", "bio", "bioes", "iob", "iob2", "iobes"):
        assert kind_name(Settings("m", f"a.{ending}")) == "token-classification"


# Tables: (ending, content, texts, notice)

PLAIN = "".join(f"plain {i}\t{'pos' if i % 2 else 'neg'}\n" for i in range(20))
TABLES: dict[str, tuple[str, str, list[str], list[str]]] = {
    "unquoted": (
        "tsv",
        f'text\tlabel\n"Hello there\tpos\n{PLAIN}bye"\tneg\n',
        ['"Hello there', 'bye"'],
        ["line 2: a cell"],
    ),
    "unquoted-open": ("tsv", f'text\tlabel\n"Hello\tpos\n{PLAIN}bye\tneg\n', ['"Hello', "bye"], ["line 2: a cell"]),
    "unquoted-pair": ("tsv", f'text\tlabel\n"Hi," he said. "Bye"\tpos\n{PLAIN}', ['"Hi," he said. "Bye"'], ["line 2"]),
    "unquoted-whole": ("tsv", f'text\tlabel\n"Hi!"\tpos\n{PLAIN}', ['"Hi!"'], ["quotes are taken for text"]),
    "unquoted-and-quotes": (
        *("tsv", f'text\tlabel\n"Hello\tpos\n{PLAIN}so ""so""\tneg\nbye"\tneg\n'),
        *(['"Hello', 'so ""so""', 'bye"'], ["line 2: a cell"]),
    ),
    "unquoted-beside": (
        *("tsv", f'text\tlabel\n"so ""so"""\tpos\nsay "hi"\tpos\n{PLAIN}'),
        *(['"so ""so"""', 'say "hi"'], ["line 2: a cell"]),
    ),
    "unquoted-alone": ("tsv", 'text\tlabel\n"a\tpos\n"\tneg\n', ['"a', '"'], ["line 2: a cell"]),
    "unquoted-inside": ("tsv", f'text\tlabel\nsay "hi"\tpos\n{PLAIN}', ['say "hi"'], []),
    "quoted-doubled": ("tsv", f'text\tlabel\n"say ""hi"""\tpos\n{PLAIN}', ['say "hi"'], []),
    "quoted-tab": ("tsv", f'text\tlabel\n"a\tb"\tpos\n{PLAIN}', ["a\tb"], []),
    "quoted-lines": ("tsv", f'text\tlabel\n"a\nb"\tpos\n{PLAIN}', ["a\nb"], []),
    "quoted-all": ("tsv", '"text"\t"label"\n"a"\t"pos"\n"b"\t"neg"\n', ["a", "b"], []),
    "quoted-texts": ("tsv", 'text\tlabel\n"a"\tpos\n"b"\tneg\n', ["a", "b"], []),
    "csv-letter": ("csv", 'text,label\n"Hi, all\nHe wrote\nBest, Jo",pos\n"Hi, all\nMe too\nBest, Jo",neg\n', [], []),
    "csv-one-comma": (
        "csv",
        f'text,label\n"Dear all, \nbye",pos\n{PLAIN.replace(chr(9), ",")}',
        ["Dear all, \nbye"],
        [],
    ),
    "csv-signed": (
        *("csv", f'text,label\n"Best, Jo\nPS",pos\n"Bye, Jo\nPS",neg\n{PLAIN.replace(chr(9), ",")}'),
        *(["Best, Jo\nPS", "Bye, Jo\nPS"], []),
    ),
    "csv-old-Mac": ("csv", "text,label\ra,pos\rb,neg\r", ["a", "b"], []),
}


@pytest.mark.parametrize("case", TABLES.values(), ids=TABLES)
def test_quotes_of_tables_are_what_the_file_makes_of_them(tmp_path: Path, case: tuple) -> None:
    ending, content, expected, notices = case
    path = tmp_path / f"a.{ending}"
    path.write_bytes(content.encode())
    read = read_examples(path)
    plain = [f"plain {i}" for i in range(20)]
    assert [text for text in read.texts if text not in plain] == (
        expected or ["Hi, all\nHe wrote\nBest, Jo", "Hi, all\nMe too\nBest, Jo"]
    )
    assert set(read.labels) == {"pos", "neg"}
    assert len(read) == len(expected or [0, 0]) + len(plain) * ("plain" in content)
    assert all(text in read.texts for text in plain) or "plain" not in content
    check_notices(read.notices, path, notices)


BAD_TABLES = {
    "swallowed": (
        *("csv", f'text,label\n"Hello there,pos\n{PLAIN.replace(chr(9), ",")}bye",neg\n'),
        "line 2: a quoted cell runs on to line 23 over lines that look like rows",
    ),
    "swallowed-some": (
        *("csv", f'text,label\nfirst,neg\n"Hello there,neg\nsecond,pos\nbye",neg\n{PLAIN.replace(chr(9), ",")}'),
        "line 3: a quoted cell runs on to line 5",
    ),
    "swallowed-odd-row": (
        *("tsv", f'text\tlabel\n"Hello there\tpos\nno label\n{PLAIN}bye"\tneg\n'),
        "line 2: a quoted cell runs on to line 24",
    ),
    "neither": (
        *("tsv", f'text\tlabel\n"Hello there\tpos\n{PLAIN}no label\n'),
        "line 2: unexpected end of data, reading from there to line 23; with quotes as text, line 23 has 1 columns",
    ),
    "label-twice": ("csv", "text,label,label\na,b,c\n", "line 1: the column 'label' is there 2 times"),
    "text-twice": ("tsv", "text\ttext\tlabel\na\tb\tc\n", "line 1: the column 'text' is there 2 times"),
}


@pytest.mark.parametrize("ending, content, message", BAD_TABLES.values(), ids=BAD_TABLES)
def test_tables_that_may_mean_two_things_are_refused(tmp_path: Path, ending: str, content: str, message: str) -> None:
    (tmp_path / f"a.{ending}").write_text(content)
    assert f"{tmp_path}/a.{ending}, {message}" in error_of(read_examples, tmp_path / f"a.{ending}")


# Labels: (labels as the file has them, classes, notice)


def write_labels(path: Path, labels: list[str]) -> Path:
    """A text a line with these labels, which are JSON where the file is."""
    if path.suffix == ".jsonl":
        path.write_text("".join(f'{{"text": "x", "label": {label}}}\n' for label in labels))
    else:
        path.write_text("text,label\n" + "".join(f"x,{label}\n" for label in labels))
    return path


LABELS: dict[str, tuple[str, list[str], list[str], list[str]]] = {
    "json-one-way": ("jsonl", ["0", "1"], ["0", "1"], []),
    "json-floats": ("jsonl", ["0.0", "1.0"], ["0", "1"], []),
    "json-zeros": (
        "jsonl",
        ["0", "0.0", "1"],
        ["0", "0", "1"],
        ["line 2: 0.0 is taken for the class '0', as line 1's 0"],
    ),
    "json-text": ("jsonl", ["0", '"0"', "1"], ["0", "0", "1"], ['line 2: "0" is taken for the class']),
    "json-truth": ("jsonl", ["true", "false"], ["true", "false"], []),
    "json-truth-text": (
        "jsonl",
        ["true", '"true"', "false"],
        ["true", "true", "false"],
        ['line 2: "true" is taken for'],
    ),
    "csv-zeros": (
        "csv",
        ["0", "0.0", "1"],
        ["0", "0", "1"],
        ["line 3: 0.0 is taken for the class '0', as line 2's 0 is"],
    ),
    "csv-zeros-twice": ("csv", ["0", "0.0", "1", "1.0"], ["0", "0", "1", "1"], ["(1 more such label)"]),
    "csv-case": ("csv", ["Pos", "pos", "neg"], ["Pos", "pos", "neg"], ["line 3: 'pos' and line 2's 'Pos' look alike"]),
    "csv-spaces": ("csv", ["a b", "a  b"], ["a b", "a  b"], ["look alike: taken for two classes"]),
    "csv-unicode": ("csv", ["caf\u00e9", "cafe\u0301"], ["caf\u00e9", "cafe\u0301"], ["look alike"]),
    "csv-unseen": ("csv", ["a", "a\u200b"], ["a", "a\u200b"], ["look alike"]),
    "csv-decimals": ("csv", ["1.1", "1.10"], ["1.1", "1.10"], ["look alike", "as 1.1, and taken for 2 classes"]),
    "csv-answers": ("csv", ["true", "1", "maybe"], ["true", "1", "maybe"], []),
    "csv-signs": ("csv", ["-1", "+1"], ["-1", "+1"], []),
    "csv-edges": ("csv", [" a ", "a", "\u00a0a"], ["a", "a", "a"], []),
}


@pytest.mark.parametrize("ending, labels, classes, notices", LABELS.values(), ids=LABELS)
def test_spellings_of_a_label_are_one_class_or_said_to_be_two(
    tmp_path: Path, ending: str, labels: list[str], classes: list[str], notices: list[str]
) -> None:
    path = write_labels(tmp_path / f"a.{ending}", labels)
    read = read_examples(path)
    assert read.labels == classes
    check_notices(read.notices, path, notices)
    if ending == "jsonl":
        path.write_text(f'{{"tokens": {json.dumps(["x"] * len(labels))}, "tags": [{", ".join(labels)}]}}')
        tagged = read_sentences(path)
        assert tagged.tags == [classes] and len(tagged.notices) >= len(notices)


BAD_LABELS = {
    "json-truth-number": ("jsonl", ["true", "1"], "line 2: the label 1 is a number, and line 1's true a truth value"),
    "json-false-zero": (
        "jsonl",
        ["0.0", "false", '"0"'],
        "line 1: the label 0 is a number, and line 2's false a truth",
    ),
    "csv-truth-number": (
        "csv",
        ["TRUE", "FALSE", "1", "0"],
        "line 4: the label 1 is a number, and line 2's TRUE a truth",
    ),
    "csv-zeros-before": ("csv", ["7", "007"], "line 3: the label 007 is the number of line 2's 7"),
    "csv-plus": ("csv", ["1", "+1"], "line 3: the label +1 is the number of line 2's 1"),
    "json-fraction": ("jsonl", ["0", "0.5"], "line 2: 'label' must be a string or an integer, got 0.5"),
    "json-infinite": ("jsonl", ["0", "1e999"], "line 2: 'label' must be a string or an integer, got inf"),
    "json-not-a-number": ("jsonl", ["0", "NaN"], "line 2: 'label' must be a string or an integer, got nan"),
}


@pytest.mark.parametrize("ending, labels, message", BAD_LABELS.values(), ids=BAD_LABELS)
def test_labels_that_may_mean_two_things_are_refused(
    tmp_path: Path, ending: str, labels: list[str], message: str
) -> None:
    path = write_labels(tmp_path / f"a.{ending}", labels)
    assert f"{path}, {message}" in error_of(read_examples, path)


def test_long_numbers_are_in_order_as_classes() -> None:
    long = "1" + "0" * 5000
    assert label_names([long, "10", "9", "009", "0"]) == ["0", "009", "9", "10", long]


# JSON, by every reader of it

JSON_READERS: dict[str, tuple[str, Callable, str]] = {  # file, reader, one line whose text is VALUE, and what is there
    "texts": ("a.jsonl", read_examples, '{"label": "b", "text": VALUE}'),
    "labels": ("a.jsonl", read_examples, '{"text": "a", "label": VALUE}'),
    "tokens": ("a.jsonl", read_sentences, '{"tags": ["O"], "tokens": [VALUE]}'),
    "tags": ("a.jsonl", read_sentences, '{"tokens": ["a"], "tags": [VALUE]}'),
    "documents": ("a.jsonl", read_documents, '{"text": VALUE}'),
    "questions": (
        *("a.json", read_questions),
        '{"data": [{"paragraphs": [{"context": "a", "qas": [{"id": "1", "answers": [], "question": VALUE}]}]}]}',
    ),
}
BAD_JSON = {
    "half-a-pair": (r'"ab\ud83d"', r" holds half of a character, \ud83d, at 2: cut off there?"),
    "other-half": (r'"\ude00"', r" holds half of a character, \ude00, at 0"),
    "long-number": ("1" * 5000, "a number has more than 4,300 digits"),
    "deep": ("[" * 100_000, "its lists and objects are nested too deep to be read"),
    "twice": ('"a", "x": 1, "x": 2', "an object has the field 'x' twice"),
    "broken": ("'a'", "not valid JSON"),
}


@pytest.mark.parametrize("value, message", BAD_JSON.values(), ids=BAD_JSON)
@pytest.mark.parametrize("name, read, line", JSON_READERS.values(), ids=JSON_READERS)
def test_json_that_python_does_not_take_is_one_line(
    tmp_path: Path, name: str, read: Callable, line: str, value: str, message: str
) -> None:
    if "[VALUE]" in line and '"x": 1' in value:
        value = '{"x": 1, "x": 2}'
    (tmp_path / name).write_text(line.replace("VALUE", value))
    error = error_of(read, tmp_path / name)
    assert message in error and str(tmp_path / name) in error
    assert ", line 1: " in error or "qas[0]" in error or (name == "a.json" and "line" not in message)


def test_the_kind_of_a_file_that_is_no_json_is_left_to_its_reader(tmp_path: Path) -> None:
    for value, _ in BAD_JSON.values():
        (tmp_path / "a.jsonl").write_text(JSON_READERS["documents"][2].replace("VALUE", value))
        assert kind_name(Settings("m", str(tmp_path / "a.jsonl"))) in ("text-classification", "language-modelling")


# Encodings and line ends, by every reader of text

SAMPLES: dict[str, tuple[Callable, str]] = {
    "a.csv": (read_examples, "text,label\nüber,a\nzwei,b\n"),
    "a.tsv": (read_examples, "text\tlabel\nüber\ta\nzwei\tb\n"),
    "a.jsonl": (read_examples, '{"text": "über", "label": "a"}\n{"text": "zwei", "label": "b"}\n'),
    "b.jsonl": (read_sentences, '{"tokens": ["über", "x"], "tags": ["O", "B-A"]}\n'),
    "c.jsonl": (read_documents, '{"text": "über"}\n{"text": "zwei"}\n'),
    "a.conll": (read_sentences, "über O\nzwei B-A\n\ndrei O\n"),
    "a.json": (read_questions, ""),
    "a.txt": (read_documents, "über alles\nzwei\n"),
}


def sample(folder: Path, name: str) -> str:
    if name == "a.json":
        return write_squad(folder / "squad.json", 2).read_text().replace("tiny", "über")
    return SAMPLES[name][1]


def rows_of(read: Callable, path: Path) -> dict[str, list]:
    return {name: value for name, value in vars(read(path)).items() if isinstance(value, list)}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("name", SAMPLES)
def test_the_encoding_and_line_ends_change_no_row(tmp_path: Path, name: str, end: str, encoding: str) -> None:
    read, content = SAMPLES[name][0], sample(tmp_path, name)
    path = tmp_path / name
    path.write_bytes(content.encode())
    expected = rows_of(read, path)
    mark = "\ufeff" if encoding.endswith(("-le", "-be")) else ""
    path.write_bytes((mark + content.replace("\n", end)).encode(encoding))
    found = rows_of(read, path)
    if name == "a.txt":  # a running text keeps its line ends
        found = {"texts": [text.replace(end, "\n") for text in found["texts"]]}
    assert found == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_other_encodings_are_refused(tmp_path: Path, name: str) -> None:
    read, content = SAMPLES[name][0], sample(tmp_path, name)
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    assert re.search(rf"{name}, line \d: is not UTF-8 text: byte \d+", error_of(read, path))
    path.write_bytes(content.replace("ü", "u").encode("utf-16-le"))
    assert f"{path}, line 1: holds a NUL character: expected UTF-8, or UTF-16 with" in error_of(read, path)
    path.write_bytes(b"\xff\xfe" + content.encode("utf-16-le")[:-1])
    assert re.search(rf"{name}, line \d+: is not UTF-16 text", error_of(read, path))


def test_a_blank_document_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": " "}\n\n{"text": ""}\n')
    read = read_documents(tmp_path / "a.jsonl")
    assert read.texts == ["a"]
    check_notices(read.notices, tmp_path / "a.jsonl", ["line 2: the document is blank and left out, with 1 more"])


def test_a_line_of_text_ends_where_lines_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\u2028still\x0cone\ntwo".encode())
    assert read_documents(tmp_path / "a.txt").texts == ["one\u2028still\x0cone\n", "two"]


# Questions


def write_bad_squad(path: Path) -> Path:
    """Seven questions; one has a bad answer beside a good one, two have bad ones alone."""
    content = json.loads(write_squad(path, 4).read_text())
    entries = [entry for part in content["data"][0]["paragraphs"] for entry in part["qas"]]
    entries[1]["answers"].insert(0, {"text": "nowhere", "answer_start": 3})
    entries[2]["answers"][0]["answer_start"] += 1
    entries[3]["answers"][0]["text"] = " "
    path.write_text(json.dumps(content))
    return path


def test_bad_answers_are_skipped_and_counted_where_asked_for(tmp_path: Path) -> None:
    path = write_bad_squad(tmp_path / "q.json")
    assert "the answer 'nowhere' of question '0-bond' is not at 3" in error_of(read_questions, path)
    whole = read_questions(write_squad(tmp_path / "whole.json", 4))
    read = read_questions(path, skip_bad=True)
    kept = [0, 1, 4, 5, 6, 7]
    assert [read.ids, read.answers] == [[whole.ids[i] for i in kept], [whole.answers[i] for i in kept]]
    [notice] = read.notices
    assert notice.startswith(
        f"{path}: 3 bad answers left out, and 2 questions that had no other; the first: {path}: data[0]"
    )
    assert "the answer 'nowhere' of question '0-bond'" in notice
    assert read_questions(tmp_path / "whole.json", skip_bad=True).notices == ()


def test_skipping_reaches_the_reader_from_the_settings(tmp_path: Path) -> None:
    path = write_bad_squad(tmp_path / "q.json")
    assert "is not at 3 in its context" in error_of(load_task, Settings("m", str(path), test_size=2))
    data = load_task(Settings("m", str(path), test_size=2, skip_bad=True))
    assert data.read == [(str(path), 6)] and "3 bad answers left out" in data.notices[0]
    table = write_task(tmp_path / "t.csv")
    error = error_of(load_task, Settings("m", str(table), skip_bad=True))
    assert f"skip_bad leaves out bad answers to questions: {table} is for text-classification" in error


def test_a_file_of_bad_answers_alone_names_the_first(tmp_path: Path) -> None:
    content = json.loads(write_squad(tmp_path / "q.json", 1).read_text())
    for entry in content["data"][0]["paragraphs"][0]["qas"]:
        entry["answers"][0]["answer_start"] = 10_000
    (tmp_path / "q.json").write_text(json.dumps(content))
    error = error_of(read_questions, tmp_path / "q.json", True)
    assert "q.json has no questions with a good answer: " in error and "is not at 10000" in error


# Images

RAMP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
UPPER = (RAMP >> 8).astype(np.uint8)
SAID_FLOATS, SAID_CLEAR, SAID_FRAMES = "holds floats: 0 is black", "has transparent pixels", "has several frames"


def picture_files() -> dict[str, tuple[Callable[[Path], None], np.ndarray, str]]:
    """By name: what writes the file, its red samples in 8 bits, the notice."""
    from PIL import Image

    grey = Image.fromarray(UPPER)
    colour = Image.merge("RGB", [grey, grey.rotate(90), grey.rotate(180)])
    clear = colour.copy()
    clear.putalpha(grey)
    solid = colour.copy()
    solid.putalpha(255)
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera stood on its side
    big = RAMP.astype(">u2").tobytes()
    return {
        "16.png": (Image.fromarray(RAMP).save, UPPER, ""),
        "16.tif": (Image.fromarray(RAMP).save, UPPER, ""),
        "16-big.tif": (Image.frombytes("I;16B", (8, 8), big).save, UPPER, ""),
        "16.pgm": (lambda path: path.write_bytes(b"P5 8 8 65535\n" + big), UPPER, ""),
        "16-turned.png": (lambda path: Image.fromarray(RAMP).save(path, exif=turned), np.rot90(UPPER, -1), ""),
        "float.tif": (Image.fromarray((RAMP / 65535).astype(np.float32)).save, np.rint(RAMP / 257), SAID_FLOATS),
        "grey.png": (grey.save, UPPER, ""),
        "one-bit.png": (Image.fromarray(UPPER > 127).save, np.where(UPPER > 127, 255, 0), ""),
        "palette.png": (colour.quantize(64).save, UPPER, ""),
        "clear.png": (clear.save, UPPER, SAID_CLEAR),
        "clear-palette.png": (lambda path: colour.quantize(64).save(path, transparency=0), UPPER, SAID_CLEAR),
        "clear-grey.png": (Image.merge("LA", [grey, grey]).save, UPPER, SAID_CLEAR),
        "solid.png": (solid.save, UPPER, ""),
        "cmyk.tif": (colour.convert("CMYK").save, UPPER, ""),
        "turned.png": (lambda path: colour.save(path, exif=turned), np.rot90(UPPER, -1), ""),
        "stereo.jpg": (
            lambda path: grey.save(path, "MPO", save_all=True, append_images=[grey.rotate(90)], quality=100),
            *(UPPER, ""),
        ),
        "frames.png": (
            lambda path: grey.save(path, save_all=True, append_images=[grey.rotate(90)]),
            UPPER,
            SAID_FRAMES,
        ),
        "frames.gif": (
            lambda path: grey.save(path, save_all=True, append_images=[grey.rotate(90)]),
            UPPER,
            SAID_FRAMES,
        ),
        "frames.tif": (
            lambda path: grey.save(path, save_all=True, append_images=[grey.rotate(90)]),
            UPPER,
            SAID_FRAMES,
        ),
    }


PICTURES = (
    *(
        "16.png",
        "16.tif",
        "16-big.tif",
        "16.pgm",
        "16-turned.png",
        "float.tif",
        "grey.png",
        "one-bit.png",
        "palette.png",
    ),
    *("clear.png", "clear-palette.png", "clear-grey.png", "solid.png", "cmyk.tif", "turned.png"),
    *("stereo.jpg", "frames.png", "frames.gif", "frames.tif"),
)


@pytest.mark.parametrize("name", PICTURES)
def test_images_keep_their_greys_whatever_their_samples(tmp_path: Path, name: str) -> None:
    pytest.importorskip("PIL")
    write, red, said = picture_files()[name]
    path = tmp_path / "class" / name
    path.parent.mkdir()
    write(path)
    pixels = np.asarray(open_picture(path))
    assert pixels.shape == (8, 8, 3)
    np.testing.assert_allclose(pixels[..., 0], red, atol=1)
    read = read_pictures(tmp_path)
    assert read.paths == [str(path)] and len(read.notices) == bool(said)
    assert not said or (read.notices[0].startswith(f"{path}: ") and said in read.notices[0])


def test_every_picture_is_tried() -> None:
    pytest.importorskip("PIL")
    assert set(PICTURES) == set(picture_files())


def test_samples_without_a_known_white_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    (tmp_path / "class").mkdir()
    path = tmp_path / "class/a.tif"
    for pixels, message in (
        (RAMP.astype(np.float32), "holds floats from 0 to 65535: expected 0, black, to 1, white"),
        (np.full((8, 8), np.nan, np.float32), "holds floats from nan to nan"),
        (RAMP.astype(np.int32), "holds integers of 32 bits, of which none is known to be white: expected 8 or 16 bits"),
    ):
        Image.fromarray(pixels).save(path)
        assert f"{path} {message}" in error_of(read_pictures, tmp_path)
        assert f"{path} {message}" in error_of(open_picture, path)


def test_images_that_would_be_left_out_are_said(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    folder = write_images(tmp_path / "images", 2)
    for name in ("b.png", "a.png"):
        (folder / name).write_bytes((folder / "red/00.png").read_bytes())
    (folder / "readme.md").write_text("x")
    (folder / "Red").mkdir()
    (folder / "Red/a.png").write_bytes((folder / "red/00.png").read_bytes())
    outside, same = read_pictures(folder).notices
    assert outside == f"{folder}/a.png and 1 more images: in no class's folder, and left out"
    assert same == f"{folder}: the folders 'Red' and 'red' look alike: taken for two classes"
    (folder / "red/more").mkdir()
    assert f"{folder}/red/more is a folder in the class 'red'" in error_of(read_pictures, folder)


# What is shown before training


def shown(settings: Settings) -> list[str]:
    text = io.StringIO()
    event = {"event": "data", **load_task(settings).summary()}
    print_data(Console(file=text, width=60), json.loads(json.dumps(event)))  # the demo sends events as JSON
    return text.getvalue().splitlines()


def test_what_was_read_is_shown_with_its_classes(tmp_path: Path) -> None:
    table, test = write_task(tmp_path / "t.csv"), write_task(tmp_path / "test.csv", 9, seed=1)
    assert shown(Settings("m", str(table), validation_size=15, test_size=0.25)) == [
        f"read 120 texts from {table}: 75 to train on, 15 to validate, 30 to test",
        "3 classes to train on: grain 25, metal 25, money 25",
    ]
    assert shown(Settings("m", str(table), test_file=str(test), train_size=7))[0] == (
        f"read 120 texts from {table}, 9 from {test}: 7 to train on, 9 to test"
    )


def test_of_many_classes_the_most_frequent_are_shown(tmp_path: Path) -> None:
    labels = (
        [f"[bold]{i}:smile:" for i in range(40) for _ in range(2 + (i == 7) * 1200)] + ['"a\nb"'] * 90 + ["x" * 70] * 70
    )
    path = write_labels(tmp_path / "a.csv", labels)
    line = shown(Settings("m", str(path), test_file=str(path)))[1]
    assert line.startswith(
        f"42 classes to train on: [bold]7:smile: 1,202, 'a\\nb' 90, {'x' * 40}… 70, [bold]0:smile: 2"
    )
    assert line.endswith(" and 34 more, down to 2") and line.count(":smile:") == 6


def test_what_was_assumed_is_shown(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "a.csv", ["0", "0.0", "1", "1"] * 4)
    [_, classes, note] = shown(Settings("m", str(path)))
    assert classes == "2 classes to train on: 1 7, 0 6"
    assert note == f"note: {path}, line 3: 0.0 is taken for the class '0', as line 2's 0 is"


def test_a_kind_without_classes_shows_its_rows_alone(tmp_path: Path) -> None:
    path = write_squad(tmp_path / "q.json")
    assert shown(Settings("m", str(path))) == [f"read 90 questions from {path}: 72 to train on, 18 to test"]


def test_words_are_counted_by_their_tags(tmp_path: Path) -> None:
    path = write_tags(tmp_path / "t.conll")
    data = load_task(Settings("m", str(path)))
    most = data.summary()["most"]
    assert most[0][0] == "O" and sum(number for _, number in most) == sum(map(len, data.train.tags))


def test_experiments_warn_of_what_was_assumed(tmp_path: Path) -> None:
    path = write_labels(tmp_path / "a.csv", ["0", "0.0", "1", "1"] * 20)
    with pytest.warns(UserWarning, match=r"a\.csv, line 3: 0\.0 is taken for the class '0'"):
        texts.read_task(str(path), Options())
