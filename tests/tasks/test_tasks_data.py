"""Data of every kind of task: readers, the kind a file is for, splits; each mistake is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_task import COLOURS, write_images, write_lines, write_squad, write_tags

from adapter_fast.common.errors import UserError
from adapter_fast.config import PLACEMENTS
from adapter_fast.tasks.data.documents import read_documents
from adapter_fast.tasks.data.pictures import read_pictures
from adapter_fast.tasks.data.questions import Answer, read_questions
from adapter_fast.tasks.data.sentences import read_sentences
from adapter_fast.tasks.kinds import KINDS
from adapter_fast.tasks.kinds.find import kind_name
from adapter_fast.tasks.kinds.settings import Settings
from adapter_fast.tasks.splits import load_task, split


def error_of(read, *arguments: object, **options: object) -> str:
    with pytest.raises(UserError) as caught:
        read(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Tagged sentences


def test_columns_are_split_at_blank_lines_and_document_starts(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(
        "\ufeff-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\r\nrejects VBZ B-VP O\n\n\n#\tO\n-DOCSTART- O\nÜber O", "utf-8"
    )
    sentences = read_sentences(tmp_path / "a.conll")
    assert sentences.tokens == [["EU", "rejects"], ["#"], ["Über"]]
    assert sentences.tags == [["B-ORG", "O"], ["O"], ["O"]]


def test_json_lines_of_tokens_and_tags(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"tokens": ["EU", "a b"], "tags": ["B-ORG", "O"], "id": 3}\n\n')
    assert read_sentences(tmp_path / "a.jsonl").tokens == [["EU", "a b"]]
    (tmp_path / "n.jsonl").write_text('{"tokens": ["EU", "x"], "tags": [3, 10]}\n')
    assert read_sentences(tmp_path / "n.jsonl").tags == [["3", "10"]]


BAD_SENTENCES = {
    "length": (
        "a.jsonl",
        '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a", "b"], "tags": ["O"]}',
        "line 2: 2 tokens",
    ),
    "not-a-list": ("a.jsonl", '{"tokens": "a b", "tags": ["O", "O"]}', "line 1: 'tokens' must be a list, got str"),
    "not-a-string": ("a.jsonl", '{"tokens": [1], "tags": ["O"]}', "line 1: 'tokens' must be a string, got int"),
    "bad-tag": ("a.jsonl", '{"tokens": ["a"], "tags": [null]}', "'tags' must be a string or an integer, got NoneType"),
    "no-tokens": ("a.jsonl", '{"tokens": [], "tags": []}', "line 1: the sentence has no tokens"),
    "blank-token": ("a.jsonl", '{"tokens": ["a", " "], "tags": ["O", "O"]}', "line 1: 'tokens' holds an empty string"),
    "no-tags": ("a.jsonl", '{"tokens": ["a"]}', "line 1: no field 'tags': its fields are tokens"),
    "one-column": (
        "a.conll",
        "EU B-ORG\nrejects\n",
        "line 2: expected a word and its tag, got the one column 'rejects'",
    ),
    "empty": ("a.conll", " \n", "a.conll is empty: expected lines of a word and its tag"),
    "no-sentence": ("a.bio", "-DOCSTART- O\n", "a.bio has no sentence: expected lines of a word and its tag"),
    "suffix": ("a.csv", "x", "files of tagged sentences end in .jsonl, .conll"),
}


@pytest.mark.parametrize("name, content, message", BAD_SENTENCES.values(), ids=BAD_SENTENCES)
def test_bad_sentences_are_named_with_their_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    error = error_of(read_sentences, tmp_path / name)
    assert message in error and str(tmp_path / name) in error


@pytest.mark.parametrize("name", ["a.conll", "a.jsonl", "a.json", "a.txt"])
def test_wrong_encoding_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"caf O\n{}\ncaf\xe9 O\n")
    read = {"a.json": read_questions, "a.txt": read_documents}.get(name, read_sentences)
    assert f"{name}, line 3: is not UTF-8 text: byte 12 cannot be decoded" in error_of(read, tmp_path / name)


# Questions


def squad(*questions: dict, context: str = "The cat sat. The dog ran.") -> str:
    return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": list(questions)}]}]})


def question(name: str = "q1", *answers: tuple[str, int]) -> dict:
    given = [{"text": text, "answer_start": start} for text, start in answers or [("cat", 4)]]
    return {"id": name, "question": " Who sat?", "answers": given}


def test_questions_keep_every_answer(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(squad(question("q1", ("cat", 4), ("The cat", 0)), question("q2", ("dog", 17))))
    read = read_questions(tmp_path / "a.json")
    assert read.ids == ["q1", "q2"]
    assert read.answers == [[Answer("cat", 4), Answer("The cat", 0)], [Answer("dog", 17)]]
    assert read.contexts == ["The cat sat. The dog ran."] * 2


BAD_QUESTIONS = {
    "elsewhere": (
        squad(question("q7", ("dog", 4))),
        "answer 'dog' of question 'q7' is not at 4 in its context: it is at 17",
    ),
    "nowhere": (
        squad(question("q7", ("cow", 4))),
        "answer 'cow' of question 'q7' is not at 4 in its context: it does not",
    ),
    "negative": (squad(question("q7", ("dog", -8))), "answer 'dog' of question 'q7' is not at -8 in its context"),
    "empty-answer": (squad(question("q7", ("", 4))), "question 'q7' has an empty answer"),
    "no-answer": (squad({**question("q7"), "answers": []}), "question 'q7' has no answer: expected SQuAD v1.1"),
    "twice": (squad(question("q7"), question("q7")), "the question id 'q7' occurs twice"),
    "no-id": (squad({"question": "x", "answers": []}), "data[0].paragraphs[0].qas[0] has no 'id'"),
    "start-text": (squad(question("q7", ("cat", "4"))), "'answer_start' must be of type int, got str"),  # type: ignore[arg-type]
    "no-data": ("[]", "a.json has no 'data': expected SQuAD v1.1's JSON"),
    "no-paragraphs": ('{"data": [{}]}', "data[0] has no 'paragraphs'"),
    "no-questions": ('{"data": []}', "a.json has no questions"),
    "broken": ('{"data": \n[{"paragraphs"', "a.json, line 2: not valid JSON"),
    "empty": ("", "a.json is empty: expected SQuAD's JSON"),
}


@pytest.mark.parametrize("content, message", BAD_QUESTIONS.values(), ids=BAD_QUESTIONS)
def test_bad_questions_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert message in error_of(read_questions, tmp_path / "a.json")


def test_a_context_is_never_in_two_parts(tmp_path: Path) -> None:
    questions = read_questions(write_squad(tmp_path / "q.json", contexts=12))
    part, rest = split(questions, 7, seed=1)
    assert len(part) == 6 and len(rest) == 18  # three contexts of two questions: a fourth would be one too many
    assert not set(part.contexts) & set(rest.contexts)
    assert sorted(part.ids + rest.ids) == sorted(questions.ids)
    assert split(questions, 7, seed=1)[0] == part != split(questions, 7, seed=2)[0]
    assert "they belong to 12 contexts, the smallest with 2" in error_of(split, questions, 1, seed=1)


# Documents


def test_a_text_keeps_its_lines_and_is_cut_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n two\r\nthree", newline="")
    text = read_documents(tmp_path / "a.txt")
    assert text.documents() == ["one\n\n two\r\nthree"]
    part, rest = split(text, 2, seed=0)
    assert (part.documents(), rest.documents()) == ([" two\r\nthree"], ["one\n\n"])


def test_documents_are_rows_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in ("a\nb", "", "c", "d")))
    documents = read_documents(tmp_path / "a.jsonl", "body")
    assert documents.documents() == ["a\nb", "c", "d"]
    parts = {tuple(split(documents, 1, seed)[0].texts) for seed in range(8)}
    assert len(parts) == 3
    assert "no field 'text': its fields are body" in error_of(read_documents, tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text('{"text": ""}\n')
    assert "b.jsonl has no document" in error_of(read_documents, tmp_path / "b.jsonl")


# Images


def test_a_folder_of_images_has_its_classes(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    folder = write_images(tmp_path / "images", 2)
    (folder / "red/.DS_Store").write_text("x")
    (folder / "readme.md").write_text("x")
    pictures = read_pictures(folder)
    assert pictures.labels == [colour for colour in sorted(COLOURS) for _ in range(2)]
    assert Path(pictures.paths[-1]) == folder / "red/01.png"


def test_bad_folders_of_images_are_named(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    assert "none: no such folder" in error_of(read_pictures, tmp_path / "none")
    assert "is empty: expected a subfolder of images for each class" in error_of(read_pictures, tmp_path)
    folder = write_images(tmp_path / "images", 2)
    (folder / "white").mkdir()
    assert "white is empty: expected the images of the class 'white'" in error_of(read_pictures, folder)
    (folder / "white/a.png").write_bytes((folder / "red/00.png").read_bytes()[:60])
    assert "white/a.png does not open as an image" in error_of(read_pictures, folder)
    (tmp_path / "one/red").mkdir(parents=True)
    (folder / "red/00.png").rename(tmp_path / "one/red/a.png")
    (folder / "red/01.png").rename(tmp_path / "one/red/b.png")
    settings = Settings("m", str(tmp_path / "one"), test_size=1)
    assert "the training data has the one label 'red', expected two or more" in error_of(load_task, settings)


def test_images_without_pillow_name_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapter_fast.tasks.data import pictures

    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    assert 'pip install "adapter_fast[vision]"' in error_of(read_pictures, tmp_path)


# Kinds


def test_the_kind_is_what_the_data_says(tmp_path: Path) -> None:
    lines = {
        "tags.jsonl": ('{"tokens": ["a"], "tags": ["O"]}', "token-classification"),
        "texts.jsonl": ('\n{"text": "a", "label": "b"}', "text-classification"),
        "plain.jsonl": ('{"text": "a"}', "language-modelling"),
        "typo.jsonl": ('{"text": "a", "lable": "b"}', "text-classification"),
        "broken.jsonl": ("{", "text-classification"),
    }
    for name, (content, kind) in lines.items():
        (tmp_path / name).write_text(content)
        assert kind_name(Settings("m", str(tmp_path / name))) == kind, name
    endings = {"a.csv": "text", "a.TSV": "text", "a.conll": "token", "a.iob2": "token", "reuters-r8": "text"}
    for name, kind in endings.items():
        assert kind_name(Settings("m", name)) == f"{kind}-classification"
    assert kind_name(Settings("m", "a.json")) == "question-answering"
    assert kind_name(Settings("m", "a.txt")) == "language-modelling"
    assert kind_name(Settings("m", str(tmp_path))) == "image-classification"
    assert kind_name(Settings("m", "a.txt", kind="token-classification")) == "token-classification"


def test_a_kind_that_the_file_is_not_for_is_refused(tmp_path: Path) -> None:
    settings = Settings("m", str(write_lines(tmp_path / "a.txt")), kind="question-answering")
    assert "a.txt: files of questions end in .json" in error_of(load_task, settings)


def test_a_tag_outside_the_training_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "test.conll").write_text("gold B-metal\nriver B-water\n")
    task = write_tags(tmp_path / "train.conll")
    error = error_of(load_task, Settings("m", str(task), test_file=str(tmp_path / "test.conll")))
    assert "test.conll: label 'B-water' does not occur in the training data (B-grain, B-metal, B-money, I-" in error


def test_a_tag_of_one_sentence_may_fall_in_any_part(tmp_path: Path) -> None:
    (tmp_path / "t.conll").write_text("".join(f"gold B-{i}\n\n" for i in range(10)))
    data = load_task(Settings("m", str(tmp_path / "t.conll"), validation_size=2))
    assert data.sizes() == {"train": 6, "validation": 2, "test": 2}
    assert data.label_names == [f"B-{i}" for i in range(10)]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "ner"}, "kind must be one of text-classification, text-regression, token-classification, quest"),
        ({"placement": "lora"}, f"placement must be one of {', '.join(PLACEMENTS)}, got 'lora'"),
        ({"stride": -1}, "stride must be at least 0, got -1"),
    ],
)
def test_settings_of_the_kinds_are_checked(change: dict, message: str) -> None:
    assert message in error_of(Settings, "m", "t", **change)


def test_the_page_of_the_command_line_has_every_kind() -> None:
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text("utf-8")
    rows = re.findall(r"^\| ([a-z ]+) \|", page.partition("| `--kind`")[2].partition("\n\n")[0], re.M)
    assert [row.replace(" ", "-") for row in rows] == list(KINDS)
