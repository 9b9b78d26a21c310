"""Makes the parts of the documentation that repeat the code: schema.json, and the tables of config.md and sites.md.

Run it from anywhere after a change of the schema: `python docs/reference.py`. A test compares."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from launcher.config.jsonschema import schema, schema_text, tidy
from launcher.profile import Profile

DOCS: Final = Path(__file__).parent
BEGIN: Final = "<!-- keys: made by docs/reference.py -->\n"
PLAIN: Final = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
END: Final = "<!-- end of keys -->\n"


def pages() -> dict[Path, str]:
    """Every page that is made, with its text."""
    return {
        DOCS / "schema.json": schema_text(),
        DOCS / "config.md": _with_keys(DOCS / "config.md", schema()),
        DOCS / "sites.md": _with_keys(DOCS / "sites.md", tidy(Profile.model_json_schema())),
    }


def _with_keys(page: Path, root: dict[str, Any]) -> str:
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    return before + BEGIN + "\n".join(_tables(root)) + "\n" + END + after


def _tables(root: dict[str, Any]) -> Iterator[str]:
    """A table of the top level, then one per section, in the order of the file."""
    sections: list[tuple[str, dict[str, Any]]] = [("", root)]
    while sections:
        path, section = sections.pop(0)
        if path:
            yield f"\n### `{path}`\n\n{_line(section.get('description', ''))}"
        yield "\n| key | value | default | |\n|---|---|---|---|"
        inner = []
        for key, field in section["properties"].items():
            default = _default(field) if key not in section.get("required", ()) else "**required**"
            kind, child = _kind(field, root)
            about = field.get("description") or (child or {}).get("description", "")
            yield f"| `{key}` | {kind} | {default} | {_line(about)} |"
            if child is not None:
                inner.append(
                    (".".join(part for part in (path, key, "NAME" if kind.startswith("map:") else "") if part), child)
                )
        sections = inner + sections


def _line(text: str) -> str:
    return text.replace("|", "\\|")


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    return "" if isinstance(value, dict) and value else f"`{json.dumps(value)}`"


def _kind(field: dict[str, Any], root: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    """In words what a field holds, and the section where it is one."""
    child = None
    if "anyOf" in field:
        kind, child = _kind(next(part for part in field["anyOf"] if part.get("type") != "null"), root)
        kind += ", or null"
    elif "$ref" in field:
        kind, child = "section", root["$defs"][field["$ref"].rsplit("/", 1)[1]]
    elif "const" in field or "enum" in field:
        kind = ", ".join(f"`{option}`" for option in field.get("enum", [field.get("const")]))
    elif field.get("type") == "array":
        kind = f"list: {_kind(field['items'], root)[0]}"
    elif field.get("type") == "object":
        kind, child = _map(field, root)
    else:
        kind = "path" if field.get("format") == "path" else PLAIN[field["type"]] + _bounds(field)
    return kind, child


def _map(field: dict[str, Any], root: dict[str, Any]) -> tuple[str, dict[str, Any] | None]:
    inner = field.get("additionalProperties") or next(iter(field.get("patternProperties", {}).values()), True)
    kind, child = _kind(inner, root) if isinstance(inner, dict) else ("any value", None)
    return f"map: {kind}", child


def _bounds(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = ", ".join(f"{sign} {json.dumps(field[key])}" for key, sign in signs.items() if key in field)
    return f" {found}" if found else ""


if __name__ == "__main__":
    for made, text in pages().items():
        made.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{made}\n")
