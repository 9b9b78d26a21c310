"""From what pydantic found to what a user reads. Its own texts are never shown: one entry here per kind of error."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from launcher.config import hints
from launcher.config.mistake import Mistake, Mistakes, dotted
from launcher.config.scalar import RefusedScalarError, plain

PATTERNS: Final = {
    r"^[0-9a-f]{64}$": "is not a SHA-256: 64 lower-case hex digits, as `sha256sum` prints them.",
    r"^[0-9a-f]{40}$": "is not a full commit hash: 40 lower-case hex digits. A branch or a tag can move.",
}
"""Of the schema's patterns. A test compares."""

LONGEST_SHOWN: Final = 60

Words = Callable[[Any, dict[str, Any]], tuple[str, str]]
"""From the value and pydantic's context to what is wrong and a hint."""


def shown(value: Any) -> str:
    """A value as a sentence names it: `the text "3"`, `the number 3`, `a list`."""
    if value is None:
        return "empty (null)"
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    if not isinstance(value, str):
        return f"the number {value}"[:LONGEST_SHOWN]
    text = json.dumps(value, ensure_ascii=False)
    return f"the text {text}" if len(text) <= LONGEST_SHOWN else f"the text {text[:LONGEST_SHOWN]}..."


def _integer(value: Any, _: dict[str, Any]) -> tuple[str, str]:
    return f"is {shown(value)}, not a whole number.", _unquote(value, int)


def _number(value: Any, _: dict[str, Any]) -> tuple[str, str]:
    return f"is {shown(value)}, not a number.", _unquote(value, (int, float))


def _boolean(value: Any, _: dict[str, Any]) -> tuple[str, str]:
    return f"is {shown(value)}, neither true nor false.", _unquote(value, bool)


def _string(value: Any, _: dict[str, Any]) -> tuple[str, str]:
    fixable = isinstance(value, int | float)
    return f"is {shown(value)}, not a text.", f"Write {json.dumps(str(_plain(value)))} in quotes." if fixable else ""


def _list(value: Any, _: dict[str, Any]) -> tuple[str, str]:
    fixable = isinstance(value, int | float | str)
    return f"is {shown(value)}, not a list.", f"Write [{_plain(value)}]." if fixable else ""


def _section(value: Any, context: dict[str, Any]) -> tuple[str, str]:
    known = context.get("keys", ())
    return f"is {shown(value)}, not a section.", f"It holds the keys {', '.join(known)}." if known else ""


def _plain(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _unquote(value: Any, kind: Any) -> str:
    """For a text that is a number once its quotes are gone."""
    if isinstance(value, float) and kind is int and value.is_integer():
        return f"Write {value:.0f}."
    if not isinstance(value, str):
        return ""
    try:
        meant = plain(value.strip())
    except RefusedScalarError:
        return ""
    fits = isinstance(meant, kind) and (kind is bool or not isinstance(meant, bool))
    return f"Write {value.strip()} without quotes." if fits else ""


def _choice(value: Any, context: dict[str, Any]) -> tuple[str, str]:
    options = re.findall(r"'([^']*)'", str(context["expected"])) or [str(context["expected"])]
    near = hints.close(value, options, 0.6) if isinstance(value, str) else None
    one_of = f"one of {', '.join(options)}" if len(options) > 1 else options[0]
    return f"is {shown(value)}; it must be {one_of}.", f"Did you mean {near}?" if near else ""


def _bound(words: str, key: str) -> Words:
    return lambda value, context: (
        f"is {_plain(value)[:LONGEST_SHOWN]}; it must be {words} {_short(context[key])}.",
        "",
    )


def _short(number: float) -> str:
    return f"{number:.0f}" if float(number).is_integer() else str(number)


def _too_short(_: Any, context: dict[str, Any]) -> tuple[str, str]:
    few, least = context["actual_length"], context["min_length"]
    return ("is empty.", "") if few == 0 else (f"has {few} items; it must have at least {least}.", "")


def _too_long(_: Any, context: dict[str, Any]) -> tuple[str, str]:
    return f"has {context['actual_length']} items; it must have at most {context['max_length']}.", ""


def _pattern(value: Any, context: dict[str, Any]) -> tuple[str, str]:
    said = PATTERNS.get(context["pattern"], f"must look like {context['pattern']}.")
    return (f"is a number. {said[0].upper()}{said[1:]}" if not isinstance(value, str) else said), ""


def _own(value: Any, context: dict[str, Any]) -> tuple[str, str]:
    """A sentence of one of our validators, as it stands. One that begins with a verb has the value put before it."""
    said = str(context["error"]).rstrip(".")
    if said.startswith(("is ", "holds ", "has ", "may not ", "starts ", "names ")) and isinstance(value, str) and value:
        return f"{shown(value)} {said}.", ""
    return f"{said}.", ""


KINDS: Final[dict[str, Words]] = {
    "int_type": _integer,
    "int_from_float": _integer,
    "float_type": _number,
    "bool_type": _boolean,
    "string_type": _string,
    "list_type": _list,
    "dict_type": _section,
    "model_type": _section,
    "model_attributes_type": _section,
    "literal_error": _choice,
    "greater_than": _bound("greater than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than": _bound("less than", "lt"),
    "less_than_equal": _bound("at most", "le"),
    "too_short": _too_short,
    "too_long": _too_long,
    "string_pattern_mismatch": _pattern,
    "value_error": _own,
}
"""By pydantic's type of error. `missing`, `extra_forbidden` and Mistakes are told apart in `mistakes`."""


def mistakes(error: ValidationError, model: type[BaseModel]) -> list[Mistake]:
    """All of a ValidationError. A missing key that a misspelt one explains is said once, with the misspelt one."""
    found = [mistake for detail in error.errors(include_url=False) for mistake in _one(dict(detail), model)]
    return _without_explained(found, model)


def _one(detail: dict[str, Any], model: type[BaseModel]) -> Iterator[Mistake]:
    path, kind, context = detail["loc"], detail["type"], detail.get("ctx", {})
    path = path[:-1] if path[-1:] == ("[key]",) else path
    if kind == "extra_forbidden":
        yield Mistake(path, "unknown key.", hints.unknown(model, path)[0])
    elif kind == "missing":
        yield Mistake(path, "missing.", hints.missing(path))
    elif isinstance(inner := context.get("error"), Mistakes):
        for mistake in inner.found:
            yield Mistake((*path, *mistake.path), mistake.what, mistake.hint)
    elif kind in KINDS:
        if kind in ("model_type", "dict_type", "model_attributes_type"):
            section = hints.section_at(model, path)
            context = {"keys": tuple(section.model_fields) if section else ()}
        what, hint = KINDS[kind](detail["input"], context)
        form = hints.FORMS.get(dotted(path)) if kind == "string_type" else None
        yield Mistake(path, what, f"Write `{form}`." if form else hint)
    else:
        yield Mistake(path, f"is {shown(detail['input'])}, which does not fit here ({kind}).")


def _without_explained(found: list[Mistake], model: type[BaseModel]) -> list[Mistake]:
    meant = {hints.unknown(model, m.path)[1] for m in found if m.what == "unknown key."}
    return [m for m in found if not (m.what == "missing." and m.path in meant)]
