"""An experiment's results file: what was asked, and a row a run; read and written whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.files import write_whole
from .cells import Row
from .options import Options


@dataclass(frozen=True)
class Result:
    """One experiment: every figure in a table or a plot is computed from this.

    Attributes:
        rows: one a finished run. finished: whether there are no more to come.
    """

    experiment: str
    options: Options
    rows: list[Row]
    finished: bool = True

    def write(self, path: Path) -> Path:
        """Write the file, whole or not at all."""
        return write_whole(path, json.dumps({**self.head(), "rows": self.rows}, indent=1, allow_nan=False) + "\n")

    def head(self) -> dict[str, Any]:
        """All of it but the rows."""
        return {"experiment": self.experiment, "finished": self.finished, "options": self.options.to_dict()}


def read_result(path: Path) -> Result:
    """Read a results file.

    Raises:
        UserError: it is none.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        options = Options.from_dict(values["options"])
        return Result(values["experiment"], options, values["rows"], values.get("finished", True))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no experiment's results file: {error!r}") from None
