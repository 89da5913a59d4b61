"""The command line: adapter-fast COMMAND, those of COMMANDS. Errors are one line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from .experiments import NAMES

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


class Command(NamedTuple):
    """Where a command is, and what it cannot run without."""

    module: str
    help: str
    packages: tuple[str, ...]  # as imported
    extra: str


COMMANDS = {
    "tune": Command(
        ".tasks.commands", "Tune a model on a task and save the adapter.", ("accelerate", "sklearn"), "tune"
    ),
    "convert": Command(
        ".checkpoint.commands", "An adapter's files from AdapterHub's format to ours or back.", (), "tune"
    ),
    "push": Command(".checkpoint.commands", "Upload a saved adapter to the Hugging Face hub.", (), "tune"),
    "pull": Command(".checkpoint.commands", "Download an adapter from the Hugging Face hub.", (), "tune"),
    "demo": Command(".tasks.demo.commands", "Tune MiniLM on Reuters-R8 four ways.", ("accelerate", "sklearn"), "tune"),
    "experiment": Command(
        ".experiments.commands",
        f"The paper's experiments: {', '.join(NAMES)}.",
        ("accelerate", "sklearn", "scipy", "matplotlib"),
        "experiments",
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

    from .common.errors import UserError

    class Group(click.Group):
        """Imports a command only when it is asked for."""

        def list_commands(self, context: click.Context) -> list[str]:
            return list(_offered())

        def get_command(self, context: click.Context, name: str) -> click.Command | None:
            command = _offered().get(name)
            if command is None:
                return None
            lacking = _missing(command.packages, command.extra)
            if lacking:
                raise _Missing(lacking)
            return getattr(import_module(command.module, __package__), name)

        def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Commands"):
                formatter.write_dl([(name, command.help) for name, command in _offered().items()])

    group = Group("adapter-fast", help="Houlsby adapters for Hugging Face transformers.")
    try:
        group.main(args=None if arguments is None else list(arguments), prog_name="adapter-fast", standalone_mode=False)
    except _Missing as error:
        return _fail(str(error), FAILED)
    except click.ClickException as error:
        return _fail(error.format_message(), BAD_INPUT)
    except UserError as error:
        return _fail(str(error), BAD_INPUT)
    except OSError as error:  # the machine's refusal: a full disk, a directory that may not be written
        return _fail(f"{_unwritten(error)}{error}", FAILED)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted; tune goes on with --resume, experiment with the same command", INTERRUPTED)
    return 0


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
    print(f"adapter-fast: {' '.join(message.split())}", file=sys.stderr)
    return code
