"""The command line: adapter-fast tune | demo. Errors are one line on stderr, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

EXTRA = "tune"
PACKAGES = {"click": "click", "rich": "rich", "accelerate": "accelerate", "sklearn": "scikit-learn"}
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    missing = [package for module, package in PACKAGES.items() if find_spec(module) is None]
    if missing:
        return _fail(f'{", ".join(missing)} is not installed: pip install "adapter_fast[{EXTRA}]"', FAILED)

    import click

    from .tasks.commands import GROUP
    from .tasks.errors import UserError

    try:
        GROUP.main(args=arguments, prog_name="adapter-fast", standalone_mode=False)
    except click.ClickException as error:
        return _fail(error.format_message(), BAD_INPUT)
    except UserError as error:
        return _fail(str(error), BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted; a tuning run goes on with --resume", INTERRUPTED)
    return 0


def _fail(message: str, code: int) -> int:
    print(f"adapter-fast: {' '.join(message.split())}", file=sys.stderr)
    return code
