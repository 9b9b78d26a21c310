"""What a registry says when it is only busy: asked again a few times, in growing intervals. Loads tenacity where it is used."""

import re
from collections.abc import Callable
from typing import Final, TypeVar

from launcher.errors import LaunchError

Answer = TypeVar("Answer")

BUSY: Final = re.compile(
    r"unexpected (HTTP )?status( code)?:? *(from .*: )?(429|50[0234])"
    r"|(429|50[0234]) (Too Many|Internal|Bad Gateway|Service Un|Gateway)"
    r"|toomanyrequests|connection reset by peer|TLS handshake timeout|i/o timeout|unexpected EOF",
    re.IGNORECASE,
)
"""Seen of registries that serve many at once: two pushes of the same blob within a moment are a 500 of Docker's own registry. One
that is not there at all (connection refused, no such host, no permission) is not asked again: that is for the user to mend."""
TRIES: Final = 5
FIRST_SECONDS: Final = 0.5
LONGEST_SECONDS: Final = 15.0


def patiently(ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns, asked up to TRIES times as long as the registry is BUSY. Raises its last LaunchError.

    The pauses are random, so that a whole array that was refused at once does not come back at once."""
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

    again = Retrying(
        retry=retry_if_exception(_busy),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=FIRST_SECONDS, max=LONGEST_SECONDS),
        reraise=True,
    )
    return again(ask)


def _busy(error: BaseException) -> bool:
    return isinstance(error, LaunchError) and BUSY.search(f"{error} {error.evidence}") is not None
