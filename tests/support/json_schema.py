"""A checker of JSON values against a JSON Schema, of the keywords that tests/golden uses."""

from typing import Any

TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def problems(value: Any, schema: dict, root: dict | None = None, place: str = "$") -> list[str]:
    """What is wrong with a value; [] if it satisfies the schema."""
    root = root or schema
    if "$ref" in schema:
        return problems(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, place)
    if "anyOf" in schema:
        options = [problems(value, option, root, place) for option in schema["anyOf"]]
        return [] if any(option == [] for option in options) else min(options, key=len)
    if "const" in schema and value != schema["const"]:
        return [f"{place} is {value!r}, not {schema['const']!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place} is {value!r}, none of {schema['enum']}"]
    if "type" in schema and not _has_type(value, schema["type"]):
        return [f"{place} is {value!r}, no {schema['type']}"]
    if isinstance(value, dict):
        return _object_problems(value, schema, root, place)
    if isinstance(value, list) and "items" in schema:
        return [
            problem
            for number, item in enumerate(value)
            for problem in problems(item, schema["items"], root, f"{place}[{number}]")
        ]
    return []


def _has_type(value: Any, wanted: str | list[str]) -> bool:
    names = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, TYPES[name]) for name in names)


def _object_problems(value: dict, schema: dict, root: dict, place: str) -> list[str]:
    wrong = [f"{place} lacks {key}" for key in schema.get("required", ()) if key not in value]
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, item in value.items():
        if key in known:
            wrong += problems(item, known[key], root, f"{place}.{key}")
        elif others is False:
            wrong.append(f"{place} has an unknown key {key}")
        elif isinstance(others, dict):
            wrong += problems(item, others, root, f"{place}.{key}")
    return wrong
