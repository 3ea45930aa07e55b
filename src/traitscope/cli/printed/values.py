"""How an estimate with its interval is printed."""

from typing import Any


def value(item: dict[str, Any], places: int = 4, unit: str = "") -> str:
    """Return an estimate with its interval; `undefined` where there is none."""
    if item["estimate"] is None:
        return "undefined"
    low, high, n = item["low"], item["high"], places
    bounds = f"{unit}, no interval" if low is None else f" [{low:.{n}f}, {high:.{n}f}]{unit}"
    return f"{item['estimate']:+.{n}f}{bounds}"
