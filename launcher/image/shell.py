"""A shell script as the simple commands in it, each word with its line: as much of sh as build recipes are written in.

What cannot be told without running it (a variable that the recipe does not set, the output of a program) is marked, not guessed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from launcher.image.shellwords import JOINED, SPLIT, Command, Evaluate, NotUnderstoodError, Piece, Word, WordReader

_BLANK: Final = " \t\r" + JOINED
_OPERATORS: Final = ("&&", "||", ";;", "|&", ";", "|", "&", "(", ")", "\n")
_REDIRECTION: Final = re.compile(r"\d*(?:<<<|<<-?|<>|<&|<|>>|>\||>&|>)|&>>?")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*\+?=")
_RESERVED: Final = frozenset(
    {"if", "then", "elif", "else", "fi", "while", "until", "do", "done", "{", "}", "!", "time", "esac"}
)
_ASSIGNERS: Final = frozenset({"export", "readonly", "local", "declare", "typeset"})


def parse(text: str, line: int, values: Mapping[str, str | None], evaluate: Evaluate) -> list[Command]:
    """Every simple command of a script, those in `$(...)`, functions and branches too, in the order in which they stand.

    `line`: number of the first line. `values`: variables that are set; None: to something that cannot be told.
    Raises NotUnderstoodError."""
    reader = _Reader(text, line, dict(values), evaluate)
    reader.read()
    return reader.found


@dataclass
class _Reader(WordReader):
    """Commands, with their redirections and here-documents."""

    pending: list[tuple[Command, str, bool]] = field(default_factory=list)

    def script(self, text: str, at: int, end: str) -> "_Reader":
        inner = _Reader(text, self.line, self.values, self.evaluate, at=at)
        inner.read(end)
        return inner

    def read(self, end: str = "") -> None:
        """Commands up to `end`, which is passed over, or the end of the text."""
        command, depth, start = Command([], self.line), 0, self.line
        while True:
            self._skip_blanks()
            if self.at >= len(self.text):
                self._finish(command)
                if end or self.pending:
                    raise NotUnderstoodError(start, f"no `{end or self.pending[0][1]}` closes what begins here")
                return
            operator = next((one for one in _OPERATORS if self.text.startswith(one, self.at)), None)
            if operator is None or (operator == "&" and _REDIRECTION.match(self.text, self.at)):
                command = self._part(command)
                continue
            if operator == ")" and depth == 0 and end == ")":
                self._finish(command)
                self.at += 1
                return
            depth += (operator == "(") - (operator == ")")
            command = self._operator(command, operator)

    def _part(self, command: Command) -> Command:
        """One more word or redirection; the command that goes on behind it."""
        redirection = _REDIRECTION.match(self.text, self.at)
        if redirection and not self.substitutes():
            self._redirect(command, redirection)
            return command
        self._word(command)
        words = command.words
        if len(words) == 1 and words[0].text in _RESERVED and self.text[self.at - 1] not in "\"'":
            words.clear()
        elif words and words[0].text == "case" and words[-1].text == "in":
            self._patterns()
            return Command([], self.line)
        return command

    def _operator(self, command: Command, operator: str) -> Command:
        """End a command; the next one."""
        self.at += len(operator)
        command.pipes = operator in {"|", "|&"}
        if operator == "(":
            command.words.clear()  # the name of a function
        empty = not command.words
        self._finish(command)
        if operator == "\n":
            self._here_documents()
            self.line += 1
        if operator == ";;":
            self._patterns()
        return Command([], self.line, piped=command.pipes or (empty and command.piped))

    def _skip_blanks(self) -> None:
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in _BLANK:
                self.line += character == JOINED
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self.line += 1
                self.at += 2
            elif character == "#":
                end = self.text.find("\n", self.at)
                end = len(self.text) if end < 0 else end
                self.line += self.text.count(JOINED, self.at, end)
                self.at = end
            else:
                return

    def _patterns(self) -> None:
        """Pass over the patterns of a branch of `case`, up to its `)`; nothing before `esac`."""
        ahead = re.compile(r"[\s\ue000;]*(?:#[^\n]*\n\s*)*").match(self.text, self.at)
        end = ahead.end() if ahead else self.at
        if not self.text.startswith("esac", end):
            end = self.text.find(")", end) + 1
            if not end:
                raise NotUnderstoodError(self.line, "a `case` without patterns")
        self.line += sum(self.text.count(one, self.at, end) for one in ("\n", JOINED))
        self.at = end

    def _redirect(self, command: Command, match: re.Match[str]) -> None:
        sign = match[0].lstrip("0123456789")
        self.at = match.end()
        self._skip_blanks()
        target = Command([], self.line)
        self._word(target)
        if not target.words:
            raise NotUnderstoodError(self.line, f"nothing follows `{sign}`")
        if sign in {"<<", "<<-"}:
            self.pending.append((command, target.words[0].text, sign == "<<-"))
        elif sign == "<<<":
            command.stdin = target.words[0]
        elif ">" in sign and not (sign == ">&" and target.words[0].text.isdecimal()):
            command.writes = command.writes or target.words[0].text != "/dev/null"

    def _here_documents(self) -> None:
        """The bodies that begin after this line. `at` is behind its end."""
        for command, end, tabs in self.pending:
            lines, first = [], self.line + 1
            while True:
                if self.at >= len(self.text):
                    raise NotUnderstoodError(command.line, f"no line `{end}` ends the text that begins here")
                line, _, _ = self.text[self.at :].partition("\n")
                self.at = min(self.at + len(line) + 1, len(self.text))
                self.line += 1
                if (line.lstrip("\t") if tabs else line) == end:
                    break
                lines.append(line)
            command.stdin = Word("\n".join(lines) + "\n", first)
        self.pending.clear()

    def _finish(self, command: Command) -> None:
        words = command.words
        if words and words[0].text == "for" and len(words) > 1:
            self.values[words[1].text] = None
            words.clear()
        if words and words[0].text == "read":
            self.values |= dict.fromkeys((word.text for word in words[1:]), None)
        rest = words[1:] if words and words[0].text in _ASSIGNERS else words
        for word in rest:
            name, assigned, value = word.text.partition("=")
            if not (assigned and _ASSIGNMENT.match(word.text)):
                if rest is words:
                    break
                continue
            self._assign(name, None if word.unknown else value)
        else:
            if words and not command.stdin:
                words.clear()
        if words or any(one is command for one, _, _ in self.pending):
            self.found.append(command)

    def _assign(self, name: str, value: str | None) -> None:
        """A variable that is set anew may hold either value: which branch is taken is not known."""
        known = name in self.values and self.values[name] != value
        self.values[name.rstrip("+")] = None if known or name.endswith("+") else value

    def _word(self, command: Command) -> None:
        if not command.words:
            command.line = self.line
        piece = Piece(self.line)
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in " \t\r\n;&|)" or (character in "(<>" and not self.substitutes()):
                break
            self.character(piece, character)
        for part in piece.text.split(SPLIT):
            if part or piece.quoted:
                command.words.append(Word(part, piece.line, piece.unknown))
