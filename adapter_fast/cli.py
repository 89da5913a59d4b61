"""The command line: adapter-fast COMMAND, those of COMMANDS. Errors are one line on stderr."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from . import __version__
from .common.errors import UserError, first_line, printable
from .experiments import NAMES

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
LONGEST = 2000  # characters of an error: a file may hold a name of megabytes
DEBUG = "ADAPTER_FAST_DEBUG"  # in the environment: errors come with their traceback


class Command(NamedTuple):
    """Where a command is, and what it cannot run without."""

    module: str
    help: str
    packages: tuple[str, ...]  # as imported
    extra: str
    go_on: str = ""  # after an interrupt


AGAIN = "the same command goes on"
COMMANDS = {
    "tune": Command(
        ".tasks.commands",
        "Tune a model on a task and save the adapter.",
        ("accelerate", "sklearn"),
        "tune",
        "the same command with --resume goes on",
    ),
    "convert": Command(
        ".checkpoint.commands", "An adapter's files from AdapterHub's format to ours or back.", (), "tune"
    ),
    "push": Command(".checkpoint.commands", "Upload a saved adapter to the Hugging Face hub.", (), "tune"),
    "pull": Command(".checkpoint.commands", "Download an adapter from the Hugging Face hub.", (), "tune", AGAIN),
    "demo": Command(".tasks.demo.commands", "Tune MiniLM on Reuters-R8 four ways.", ("accelerate", "sklearn"), "tune"),
    "experiment": Command(
        ".experiments.commands",
        f"The paper's experiments: {', '.join(NAMES)}.",
        ("accelerate", "sklearn", "scipy", "matplotlib"),
        "experiments",
        AGAIN,
    ),
    "bench": Command(".benchmarks.commands", "Time and weigh adapters against their peers.", ("matplotlib",), "bench"),
    "profile": Command(
        ".profiler.commands", "Latency of a model with adapters, layer by layer.", ("matplotlib",), "bench"
    ),
    "doctor": Command(".doctor", "Versions, device, backend, and a self-check.", (), "bench"),
    "report": Command(  # in a checkout alone
        ".benchmarks.pages.commands",
        "Write the pages' tables and figures from the results.",
        ("matplotlib", "scipy", "sklearn"),
        "experiments",
    ),
}
ALWAYS = ("click", "rich")
DISTRIBUTION = {"sklearn": "scikit-learn"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    missing = _missing(ALWAYS, "tune")
    if missing:
        return _fail(missing, FAILED)

    import click

    asked = ""

    class Group(click.Group):
        """Imports a command only when it is asked for."""

        def list_commands(self, context: click.Context) -> list[str]:
            return list(_offered())

        def get_command(self, context: click.Context, name: str) -> click.Command | None:
            nonlocal asked
            command = _offered().get(name)
            if command is None:
                if name in COMMANDS:
                    context.fail(f"{name} needs a checkout of the repository, and this is an installed package")
                return context.fail(f"No such command {name!r}.{_nearest(name)}")
            lacking = _missing(command.packages, command.extra)
            if lacking:
                raise _Missing(lacking)
            asked = name
            return getattr(import_module(command.module, __package__), name)

        def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Commands"):
                formatter.write_dl([(name, command.help) for name, command in _offered().items()])

    group = Group(
        "adapter-fast",
        help="Houlsby adapters for Hugging Face transformers.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    group = click.version_option(__version__)(group)
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    _print_anywhere()
    try:
        with _sigterm():
            group.main(args=words, prog_name="adapter-fast", standalone_mode=False)
            sys.stdout.flush()  # a full disk is told of here, not by the interpreter at its end
    except (click.Abort, KeyboardInterrupt):
        go_on = COMMANDS[asked].go_on if asked else ""
        return _fail(f"interrupted; {go_on}" if go_on else "interrupted", INTERRUPTED)
    except Exception as error:  # also what nobody foresaw: a traceback is for who asks for it
        if os.environ.get(DEBUG):
            traceback.print_exc()
        if isinstance(error, click.MissingParameter):
            return _fail(_all_missing(error), BAD_INPUT)
        if isinstance(error, click.ClickException):
            return _fail(error.format_message(), BAD_INPUT)
        if isinstance(error, UserError):
            return _fail(str(error), BAD_INPUT)
        if isinstance(error, _Missing):
            return _fail(str(error), FAILED)
        if isinstance(error, OSError):  # the machine's refusal: a full disk, a directory that may not be written
            return _fail(f"{_unwritten(error)}{error}", FAILED)
        where = "" if os.environ.get(DEBUG) else f" ({DEBUG}=1 shows where)"
        return _fail(f"{type(error).__name__}: {first_line(error)}{where}", FAILED)
    return 0


def _print_anywhere() -> None:
    """What a stream's encoding does not have (a C locale's ASCII, half a surrogate pair) is escaped, not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _sigterm() -> Iterator[None]:
    """SIGTERM does what SIGINT does, whoever handles that by then."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, _offered())
    return f" Did you mean {' or '.join(near)}?" if near else f" Commands: {', '.join(_offered())}"


def _all_missing(error: Any) -> str:
    """Every parameter that a command lacks; click names the first. It takes those that were given before the others."""
    lacking = [each for each in error.ctx.command.params if each.required and each.name not in error.ctx.params]
    names = []
    for each in lacking:
        choices = getattr(each.type, "choices", ())
        names.append(each.get_error_hint(error.ctx) + (f" ({' or '.join(choices)})" if choices else ""))
    return f"missing {', '.join(names)}: see {error.ctx.command_path} --help"


def _offered() -> dict[str, Command]:
    """Commands whose files are here: the pages that report writes come with a checkout alone."""
    pages = (Path(__file__).parent / "benchmarks/pages").is_dir()
    return {name: command for name, command in COMMANDS.items() if pages or name != "report"}


class _Missing(Exception):
    """A package is not installed."""


def _missing(packages: Sequence[str], extra: str) -> str:
    lacking = [DISTRIBUTION.get(name, name) for name in packages if find_spec(name) is None]
    return f'{", ".join(lacking)} is not installed: pip install "adapter_fast[{extra}]"' if lacking else ""


def _unwritten(error: OSError) -> str:
    """What an error without a name was about, where it was standard output: it takes nothing more."""
    try:
        if error.filename is None:
            print(flush=True)
    except OSError:
        return "standard output cannot be written: "
    return ""


def _fail(message: str, code: int) -> int:
    print(f"adapter-fast: {printable(' '.join(message.split()), LONGEST)}", file=sys.stderr)
    return code
