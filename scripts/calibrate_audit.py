"""Audits the sets of the calibration's menu that have no line of results yet.

    python scripts/calibrate_audit.py --root DIR [--minutes 60] [--kinds plain text]
    python scripts/calibrate_audit.py --root DIR --outcome [--minutes 60]
    python scripts/calibrate_audit.py --list

With --outcome, students learn the sets of the outcome validity instead. A set is begun only within
the time. A killed call loses one set. Several calls may run side by side. Run them from a checkout
whose code stays as it is. Then `python scripts/make_calibration.py` writes the page.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from traitscope.studies.calibration import outcome, runner
from traitscope.studies.calibration.audited import Audits
from traitscope.studies.calibration.sets import menu
from traitscope.studies.calibration.sets.menu import SetName
from traitscope.studies.calibration.sets.place import Workplace

EVIDENCE = Path(__file__).parents[1] / "docs" / "evidence"
MODEL = "smollm2-135m"


def main() -> None:
    """Do what the flags say."""
    flags = _flags()
    names = outcome.all_sets() if flags.outcome else menu.all_sets(flags.kinds)
    file = "outcome_validity.jsonl" if flags.outcome else "audit_calibration.jsonl"
    results = flags.results or EVIDENCE / file
    if flags.list:
        _list(names, results)
        return
    place = Workplace(flags.root, flags.model, rows=flags.rows)
    with runner.own_folder(place) as folder:
        if flags.outcome:
            outcomes = outcome.Outcomes(place)
            work = runner.Work(outcomes.line, outcomes.version)
        else:
            audits = Audits(place, folder)
            work = runner.Work(audits.line, audits.version, audits.clean)
        seconds = 60 * flags.minutes
        added = runner.run(names, work, results, flags.root, seconds, flags.same_as)
    print(f"{added} sets added; {len(runner.missing(results, names))} are missing")


def _flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="folder of all that is computed")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no set after so long")
    parser.add_argument("--kinds", nargs="+", default=[], choices=list(menu.KINDS), metavar="KIND")
    parser.add_argument("--outcome", action="store_true", help="students in the place of audits")
    parser.add_argument("--results", type=Path, help="file of the lines")
    parser.add_argument("--model", default=MODEL, help="the model")
    parser.add_argument("--rows", type=int, default=0, help="most rows of a set, for a trial")
    parser.add_argument(
        "--same-as", nargs="+", default=[], help="digests of code that decides alike"
    )
    parser.add_argument("--list", action="store_true", help="print what is missing, and end")
    flags = parser.parse_args()
    if not flags.list and flags.root is None:
        parser.error("--root is missing: name a folder, or --list")
    return flags


def _list(names: Sequence[SetName], results: Path) -> None:
    missing = runner.missing(results, names)
    counts = Counter(name.kind for name in missing)
    for kind, count in counts.items():
        print(f"{count:4} missing: {kind}")
    print(f"{len(missing)} of {len(names)} sets are missing")


if __name__ == "__main__":
    main()
