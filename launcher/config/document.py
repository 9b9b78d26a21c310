"""From the bytes of a YAML file to plain values, the line of every key, and all that is wrong with the YAML itself.

Built on the events of PyYAML's parser, not on its loader, which keeps the last of two equal keys, reads `1e-4` as
a text and `no` as false, and follows aliases. No tag is followed, so nothing in a file can name code."""

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from launcher.config.mistake import KeyPath, Mistake
from launcher.config.scalar import RefusedScalarError, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGEST: Final = 256 * 1024
"""Bytes. A config is written by hand; this bounds the time that reading takes."""
DEEPEST: Final = 32
NOT_PRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""What YAML does not allow in a file: control characters, and a byte order mark anywhere but at the start."""

SYNTAX: Final = (
    ("found character '\\t'", "a tab; YAML is indented with spaces."),
    (
        "mapping values are not allowed here",
        "a `:` that cannot start a value here. Quote the text, or mend this line or the one above.",
    ),
    ("could not find expected ':'", "a key without its `:`, or an indentation that does not fit the lines above."),
    ("expected <block end>", "the indentation does not fit the lines above."),
    ("while scanning a quoted scalar", "a quote that is never closed."),
    ("did not find expected ',' or ']'", "a `[` that is never closed."),
    ("expected ',' or ']'", "a `[` that is never closed, or a missing comma."),
    ("expected ',' or '}'", "a `{` that is never closed, or a missing comma."),
    ("found undefined alias", "an alias to something that is not in the file."),
    ("expected the node content", "a value is missing before this."),
    ("expected the document start", "something stands beside the top level of the file."),
    (
        "found unknown escape character",
        "an unknown escape in a double-quoted text. Use single quotes, or write the backslash twice.",
    ),
    ("cannot start any token", "a character that must be quoted here."),
)
"""A part of PyYAML's message, and what we say. The first that fits counts."""


@dataclass(slots=True)
class Document:
    """What was read. `value` is a mapping unless `mistakes` says otherwise, and holds only what JSON can hold."""

    value: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    """Line of the key, or of the list's item; counted from 1."""
    mistakes: list[Mistake] = field(default_factory=list)

    def line_of(self, path: KeyPath) -> int:
        """The line of a key; for one that is not there, of the section that lacks it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def decode(data: bytes) -> tuple[str, list[Mistake]]:
    """The text, without a byte order mark and with plain line ends; or what is wrong with the bytes."""
    if len(data) > LARGEST:
        return "", [Mistake((), f"the file has {len(data)} bytes; at most {LARGEST} are read.")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{data[error.start]:02x} is not UTF-8."
        return "", [Mistake((), what, "Save the file as UTF-8.", line)]
    if bad := NOT_PRINTABLE.search(text):
        what = f"a control character (U+{ord(bad[0]):04X}) stands in this line."
        return "", [Mistake((), what, "Delete it.", text.count("\n", 0, bad.start()) + 1)]
    return text, []


def read(text: str) -> Document:
    """All of a YAML text. Never raises: what is wrong stands in `mistakes`."""
    reader = _Reader(text)
    try:
        reader.document()
    except yaml.MarkedYAMLError as error:
        reader.found.mistakes.append(_syntax(error))
    except yaml.YAMLError as error:
        reader.found.mistakes.append(Mistake((), f"is not YAML: {str(error).splitlines()[0]}."))
    except _TooDeepError as error:
        reader.found.mistakes.append(Mistake((), f"more than {DEEPEST} levels are nested here.", line=error.line))
    return reader.found


class _TooDeepError(Exception):
    def __init__(self, line: int) -> None:
        self.line = line
        super().__init__()


class _Reader:
    def __init__(self, text: str) -> None:
        self.events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self.found = Document()

    def mistake(self, path: KeyPath, event: Any, what: str, hint: str = "") -> None:
        self.found.mistakes.append(Mistake(path, what, hint, event.start_mark.line + 1))

    def document(self) -> None:
        """The one document of the stream, which must be a mapping."""
        next(self.events)  # start of the stream
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            self.found.mistakes.append(Mistake((), "the file is empty."))
            return
        root = next(self.events)
        self.found.value = self.node(root, ())
        next(self.events)  # end of the document
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            self.mistake((), after, "a second document starts here (`---`).", "One file holds one.")
        if self.found.value is None and not self.found.mistakes:
            self.found.mistakes.append(Mistake((), "the file is empty."))
        elif not isinstance(self.found.value, dict) and not self.found.mistakes:
            kind = "a list" if isinstance(self.found.value, list) else "a single value"
            self.mistake((), root, f"the file holds {kind}; it must hold `key: value` lines.")

    def node(self, event: Any, path: KeyPath) -> Any:
        if len(path) > DEEPEST:
            raise _TooDeepError(event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent):
            self.mistake(
                path,
                event,
                f"`*{event.anchor}` is an alias.",
                "Write the value out: a config is read without indirection.",
            )
            return None
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.mistake(path, event, f"the tag `{tag}` is not read.", "Write the plain value.")
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path)
        return self.mapping(path)

    def scalar(self, event: Any, path: KeyPath) -> Any:
        if event.style is not None:
            if any("\ud800" <= character <= "\udfff" for character in event.value):
                self.mistake(path, event, "holds half of a surrogate pair, which is no character.")
                return ""
            return event.value
        try:
            return plain(event.value)
        except RefusedScalarError as error:
            self.mistake(path, event, error.what, error.hint)
            return None

    def sequence(self, path: KeyPath) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            here = (*path, len(items))
            self.found.lines[here] = event.start_mark.line + 1
            items.append(self.node(event, here))
        return items

    def mapping(self, path: KeyPath) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event, path)
            value_event = next(self.events)
            here = path if key is None else (*path, key)
            if key is not None and key in items:
                first = self.found.lines[here]
                self.mistake(here, event, f"given twice; first on line {first}.", "Delete one of them.")
                _Discard(self).node(value_event, here)
                continue
            if key is None:
                _Discard(self).node(value_event, here)
                continue
            self.found.lines[here] = event.start_mark.line + 1
            items[key] = self.node(value_event, here)
        return items

    def key(self, event: Any, path: KeyPath) -> str | None:
        """A key's text, or None, said, where it is not a text."""
        if isinstance(event, yaml.ScalarEvent) and event.tag is None:
            if event.style is not None or event.value == "<<":
                if event.style is None:
                    self.mistake(
                        path,
                        event,
                        "`<<` merges another section.",
                        "Write the keys out: a config is read without indirection.",
                    )
                    return None
                return str(event.value)
            try:
                value = plain(event.value)
            except RefusedScalarError:
                value = event.value
            if isinstance(value, str):
                return value
            self.mistake((*path, event.value), event, "keys are texts.", f'Write "{event.value}" in quotes.')
            return None
        self.mistake(path, event, "a key must be a plain text.")
        if not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
            _Discard(self).node(event, path)
        return None


class _Discard(_Reader):
    """Reads over a value whose place is taken or nameless, so that its lines and mistakes are not counted."""

    def __init__(self, reader: _Reader) -> None:
        self.events = reader.events
        self.found = Document()


def _syntax(error: yaml.MarkedYAMLError) -> Mistake:
    said = " ".join(part for part in (error.context, error.problem) if part)
    mark = error.problem_mark or error.context_mark
    if "while scanning a quoted scalar" in said or "never closed" in said:
        mark = error.context_mark or mark
    what = next((ours for theirs, ours in SYNTAX if theirs in said), f"{said}.")
    return Mistake((), f"not valid YAML: {what}", line=mark.line + 1 if mark else None)
