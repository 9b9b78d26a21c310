"""A registry that is only busy is asked again; one that says no is believed."""

import pytest

from launcher.engines import transient
from launcher.engines.transient import TRIES, patiently
from launcher.errors import ExitCode, fail

BUSY = (
    "The registry did not take r.example/run: received unexpected HTTP status: 500 Internal Server Error.",
    "received unexpected HTTP status: 503 Service Unavailable",
    "toomanyrequests: You have reached your pull rate limit.",
    "Head https://r.example/v2/run/blobs/sha256:0: net/http: TLS handshake timeout",
    "write tcp 127.0.0.1:40000->127.0.0.1:5000: write: connection reset by peer",
    "unexpected status from PUT request to https://r.example/v2/run/manifests/a: 502 Bad Gateway",
)
FIRM = (
    "dial tcp 127.0.0.1:5000: connect: connection refused",
    "manifest for r.example/run@sha256:0 not found: manifest unknown",
    "unauthorized: authentication required",
    "denied: requested access to the resource is denied",
    "no space left on device",
    "filesystem layer verification failed for digest sha256:0429500502503504",
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(transient, "FIRST_SECONDS", 0.001)


def registry(words, failures):
    """A call that fails so often, and how often it was made."""
    made = []

    def ask():
        made.append(1)
        if len(made) <= failures:
            raise fail(ExitCode.IMAGE, "The registry could not be used.", evidence=words)
        return "taken"

    return ask, made


@pytest.mark.parametrize("words", BUSY)
def test_image_transient_busy_is_asked_again(words):
    ask, made = registry(words, TRIES - 1)
    assert patiently(ask) == "taken"
    assert len(made) == TRIES


@pytest.mark.parametrize("words", FIRM)
def test_image_transient_no_is_believed_at_once(words):
    ask, made = registry(words, 1)
    with pytest.raises(Exception, match="could not be used"):
        patiently(ask)
    assert len(made) == 1


def test_image_transient_always_busy_ends_in_its_own_words():
    ask, made = registry(BUSY[0], 100)
    with pytest.raises(Exception, match="could not be used") as raised:
        patiently(ask)
    assert raised.value.evidence == BUSY[0]
    assert len(made) == TRIES
