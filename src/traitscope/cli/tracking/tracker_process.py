"""The process of a tracker: `python -m traitscope.cli.tracking.tracker_process TOOL PROJECT NAME`.

It reads JSON objects from stdin, a line each, and logs their numbers. The first has the settings of
the command. It ends when stdin does.
"""

import json
import sys
from collections.abc import Iterable
from typing import Any


def main(tool: str, project: str, name: str, lines: Iterable[str]) -> None:
    """Log what the lines say.  Raises what the tool raises."""
    lines = iter(lines)
    first = json.loads(next(lines, "{}"))
    run: Any
    if tool == "wandb":
        import wandb

        run = wandb.init(project=project, name=name, config=first.get("settings", {}))
    else:
        import trackio

        run = trackio.init(
            project=project,
            name=name,
            config=first.get("settings", {}),
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
    for line in lines:
        run.log(json.loads(line))
    run.finish()


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.stdin)
