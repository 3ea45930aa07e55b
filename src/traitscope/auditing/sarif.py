"""An audit's answer in SARIF 2.1.0 (OASIS 2020), which code hosts show beside a change."""

from collections.abc import Mapping
from typing import Any

from traitscope import __version__

LEVELS = {
    "suspect": "error",
    "insufficient": "warning",
    "not-applicable": "warning",
    "clean": "note",
}
RULES = {
    "suspect": "A deciding detector calls a trait at the stated error rate.",
    "insufficient": "Planted teachers would not have been found; more rows are needed.",
    "not-applicable": "The model did not write these rows, so its own detectors do not apply.",
    "clean": "Nothing was found, and planted teachers would have been.",
}


def log(result: Mapping[str, Any], data: str) -> dict[str, Any]:
    """One run with one result: the answer and its reasons, located at the data file."""
    status = result["status"]
    message = (
        f"{status} at error rate {result['alpha']:g} on {result['rows']} rows for"
        f" {result['model']}: " + "; ".join(result["reasons"])
    )
    rules = [{"id": name, "shortDescription": {"text": text}} for name, text in RULES.items()]
    location = {"physicalLocation": {"artifactLocation": {"uri": data}, "region": {"startLine": 1}}}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "traitscope", "version": __version__, "rules": rules}},
                "results": [
                    {
                        "ruleId": status,
                        "level": LEVELS[status],
                        "message": {"text": message},
                        "locations": [location],
                    }
                ],
            }
        ],
    }
