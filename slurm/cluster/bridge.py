"""A network bridge of a container engine's own. Docker makes only the one that all engines of a machine share."""

import fcntl
import socket
import struct
from pathlib import Path

from cluster.layout import ClusterError

ADD, DELETE = 0x89A0, 0x89A1  # SIOCBRADDBR, SIOCBRDELBR
SET_FLAGS = 0x8914  # SIOCSIFFLAGS


def make(name: str) -> None:
    """Make it unless it is there. Raises ClusterError."""
    if _there(name):
        return
    try:
        _ask(ADD, name.encode() + b"\0")
    except OSError as error:
        msg = f"no network bridge can be made here ({error.strerror}). Docker needs the right to (CAP_NET_ADMIN)."
        raise ClusterError(msg) from error


def remove(name: str) -> None:
    """Remove it if it is there. Raises ClusterError."""
    if not _there(name):
        return
    try:
        _ask(SET_FLAGS, struct.pack("16sh14x", name.encode(), 0))  # down: the kernel removes no other
        _ask(DELETE, name.encode() + b"\0")
    except OSError as error:
        raise ClusterError(f"the network bridge {name} cannot be removed: {error.strerror}") from error


def _there(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _ask(number: int, what: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as any_socket:
        fcntl.ioctl(any_socket, number, what)
