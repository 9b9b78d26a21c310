"""The first process of an Apptainer container, and what the keeper says to it."""

import signal
import socket

import pytest

from launcher.engines import apptainer_inner


def test_a_signal_that_comes_with_the_message_is_not_lost() -> None:
    """A slow container finds both at once: the run's message, and a preemption that came before it."""
    keeper, inner = socket.socketpair()
    with keeper, inner:
        inner.settimeout(10)
        message = b'{"arguments": []}' * 10_000
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        keeper.sendall(len(message).to_bytes(apptainer_inner.LENGTH, "big") + message)
        keeper.sendall(bytes([signal.SIGTERM, signal.SIGUSR2]))
        assert apptainer_inner.received(inner) == message
        assert inner.recv(64) == bytes([signal.SIGTERM, signal.SIGUSR2])


def test_it_ends_with_a_keeper_that_ends_within_its_message() -> None:
    keeper, inner = socket.socketpair()
    with inner:
        keeper.sendall((10).to_bytes(apptainer_inner.LENGTH, "big") + b"half")
        keeper.close()
        with pytest.raises(SystemExit) as ended:
            apptainer_inner.received(inner)
    assert ended.value.code == 137
