"""python -m adapter_fast.tasks.demo.worker: one job in a process of its own, so that its peak memory is its own.

The job comes on stdin, events go to stdout, noise to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from ...common.errors import UserError, WriteError
from ...common.files import writing
from ..kinds.settings import Settings


def main() -> int:
    """Read a job from stdin, do it, and print its events and its result as JSON lines."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not come between the events

    def report(event: dict[str, Any]) -> None:
        channel.write(json.dumps(event) + "\n")

    job = json.loads(sys.stdin.read())
    try:
        report({"event": "done", **_do(job, report)})
    except UserError as error:
        report({"event": "error", "message": str(error)})
        return 2
    except WriteError as error:
        report({"event": "full", "arguments": [error.errno, error.strerror, error.filename]})
        return 1
    return 0


def _do(job: dict[str, Any], report: Any) -> dict[str, Any]:
    if job["action"] == "reload":
        import numpy as np

        from ..reload import score_saved

        metrics, logits = score_saved(job["directory"], report)
        trained = np.load(job["logits"], allow_pickle=False)
        return {"accuracy": metrics["accuracy"], "logit_difference": float(np.abs(logits - trained).max())}

    settings = Settings(**job["settings"])
    import numpy as np

    from ..tuning import tune

    outcome = tune(settings, job["directory"], checkpoints=False, report=report)
    with writing(Path(job["logits"])):
        np.save(job["logits"], outcome.logits, allow_pickle=False)
    return {"results": outcome.results}


if __name__ == "__main__":
    sys.exit(main())
