"""What a build says: a line of progress to the user, everything into a file of the user's own, no password to anybody."""

import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from launcher.engines import BuildOptions, Say
from launcher.errors import ExitCode, LaunchError, fail

LAST_LINES: Final = 20
WIDTH: Final = 160
USER: Final = re.compile(r"(?<=://)[^/@\s]+@")
"""User and password in a URL."""


def secrets(build: BuildOptions) -> list[str]:
    """Users and passwords in what leads to the site's index."""
    urls = [build.index_url or "", *build.extra_index_urls, *build.find_links, *build.proxies.values()]
    found = [url.partition("://")[2].partition("/")[0].rpartition("@")[0] for url in urls if "@" in url]
    return [part for word in found for part in (word, word.partition(":")[2]) if part]


class BuildLog:
    """The output of one build. The file stays only where the build failed."""

    def __init__(self, build: BuildOptions, say: Say, progress: Callable[[str], str | None]) -> None:
        """`progress`: what is said of a line; None: nothing."""
        handle, name = tempfile.mkstemp(prefix="samebits-build-", suffix=".log")
        self.path = Path(name)
        self._file = os.fdopen(handle, "w", encoding="utf-8", errors="replace")
        self._secrets, self._say, self._progress = secrets(build), say, progress
        self._last: deque[str] = deque(maxlen=200)

    def line(self, text: str) -> None:
        text = USER.sub("***@", text)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        self._file.write(f"{text}\n")
        self._file.flush()
        self._last.append(text)
        if (words := self._progress(text)) is not None:
            self._say(f"  {words[:WIDTH]}")

    def close(self, *, keep: bool) -> None:
        self._file.close()
        if not keep:
            self.path.unlink(missing_ok=True)

    def failure(self, code: int, where: str, hints: Sequence[tuple[str, str]]) -> LaunchError:
        """The build's last lines, where all of them are, and the first of `hints` whose words stand in them."""
        said = "\n".join(self._last)
        hint = next((hint for words, hint in hints if words in said), "What it said last is below.")
        what = f"The environment could not be built (exit code {code}). All that it said: {self.path}"
        return fail(ExitCode.IMAGE, what, where=where, hint=hint, evidence="\n".join([*self._last][-LAST_LINES:]))
