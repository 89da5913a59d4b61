"""An experiment's results file: what was asked, and a row a run; read and written whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import UserError
from ...common.files import write_whole
from .cells import Row
from .options import Options


@dataclass(frozen=True)
class Result:
    """One experiment, finished: every figure in a table or a plot is computed from this."""

    experiment: str
    options: Options
    rows: list[Row]

    def write(self, path: Path) -> Path:
        """Write the file, whole or not at all."""
        values = {"experiment": self.experiment, "options": self.options.to_dict(), "rows": self.rows}
        return write_whole(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def read_result(path: Path) -> Result:
    """Read a results file.

    Raises:
        UserError: it is none.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        return Result(values["experiment"], Options.from_dict(values["options"]), values["rows"])
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no experiment's results file: {error!r}") from None
