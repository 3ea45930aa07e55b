"""Seconds of plan, status, gather and show over thousands of sealed runs, at two sizes.

The runs are real: each is a sealed run of `filter` with rules of its own. Time that grows in
proportion to the number of runs has a ratio of the sizes' own ratio.
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import common

from traitscope.cli import show
from traitscope.config.commands import ShowConfig
from traitscope.config.common import Output
from traitscope.config.stages import FilterConfig, FilterRules
from traitscope.workflow import graph, schedule, status
from traitscope.workflow.executors import How
from traitscope.workflow.graph import Node

SIZES = (1_000, 10_000)
"runs"
ROW = {"prompt": "Which numbers?", "completion": "1, 2, 3"}


def nodes_of(data: Path, count: int) -> list[Node]:
    """A node for every rule; each second one reads what the one before it kept."""
    nodes = []
    for number in range(count):
        rules = FilterRules(max_value=1000 + number)
        if number % 2:
            before = f"n{number - 1}"
            config = _config_of_run(before, rules)
            nodes.append(Node(f"n{number}", FilterConfig, config, (before,), 1.0))
        else:
            nodes.append(Node(f"n{number}", FilterConfig, _config_of_file(data, rules), (), 1.0))
    return nodes


def _config_of_file(data: Path, rules: FilterRules) -> Callable:
    return lambda _: FilterConfig(data, rules)


def _config_of_run(before: str, rules: FilterRules) -> Callable:
    return lambda folders: FilterConfig(folders[before], rules)


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of a call, whose output is dropped."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        work()
    return round(time.perf_counter() - start, 2)


def measured(folder: Path, count: int) -> dict[str, float]:
    """Seconds of each command over so many runs."""
    data = folder / "rows.jsonl"
    data.write_text(json.dumps(ROW) + "\n")
    nodes = nodes_of(data, count)
    out = Output(root=folder / "runs")
    found = {"run": seconds_of(lambda: schedule.run(nodes, out, How()))}
    found["run_again"] = seconds_of(lambda: schedule.run(nodes, out, How()))
    found["plan"] = seconds_of(lambda: graph.plan(nodes, out))
    planned = graph.plan(nodes, out)
    found["cost"] = seconds_of(lambda: status.cost(planned, 10**8, 1e12))
    found["status"] = seconds_of(lambda: status.status(planned, out))
    found["gather"] = seconds_of(lambda: status.gather(planned, out))
    found["show"] = seconds_of(lambda: show.run_show(ShowConfig(), out))
    return found


def main() -> None:
    """Print one JSON object: seconds by size, and the ratio of the sizes."""
    args = common.parser(__doc__).parse_args()
    sizes: Sequence[int] = (100, 200) if args.quick else SIZES
    by_size = {}
    for count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            by_size[count] = measured(Path(folder), count)
        print(f"{count} runs: {by_size[count]}", file=sys.stderr, flush=True)
    few, many = (by_size[count] for count in sizes)
    ratios = {}
    for name, seconds in many.items():
        ratios[name] = round(seconds / max(few[name], 1e-2), 1)
    result = {"benchmark": "many_runs", "quick": args.quick, "sizes": list(sizes)}
    print(json.dumps(result | {"seconds": by_size, "ratio": ratios}))


if __name__ == "__main__":
    main()
