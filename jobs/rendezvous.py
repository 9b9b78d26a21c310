"""How the ranks of an attempt find each other: the first one opens any free port and says where in the run's tree.

So two array tasks, two attempts, or two people on one node can never take each other's port."""

import fcntl
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from jobs.errors import Failed, PeerLost, Refused, Stopped
from jobs.files import publish_json
from jobs.layout import Layout
from jobs.ranks import ALONE, PATIENCE, Ranks

GATHERING_SECONDS: Final = 600.0
"""How long the ranks of all nodes may take to come: a node may have to fetch an image first."""
LOOK_SECONDS: Final = 0.02
LAST_SECONDS: Final = 10.0
SIOCGIFADDR: Final = 0x8915


def meet(layout: Layout, place: Path, device: torch.device, stop: Callable[[], bool]) -> Ranks:
    """Wait for all ranks, and join them; nothing where there is one. `place`: the file in which the first one says where it is.

    Raises Stopped when any of them was asked to stop meanwhile, PeerLost when one is gone, Failed when not all come in time."""
    if layout.ranks == 1:
        return ALONE
    if layout.rank is None:
        raise Refused(f"a recipe of {layout.ranks} ranks is started by `python -m jobs RUN`, once on each node")
    end, rank = time.monotonic() + GATHERING_SECONDS, layout.rank
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = _interface(layout)
    if rank == 0:
        store = TCPStore("0.0.0.0", 0, is_master=True, wait_for_workers=False)  # noqa: S104 - other nodes come to it
        publish_json(place, {"address": layout.address if layout.nodes > 1 else "127.0.0.1", "port": store.port})
    else:
        found = _published(place, end, stop)
        store = TCPStore(str(found["address"]), int(str(found["port"])), is_master=False, wait_for_workers=False)
    try:
        _gather(store, layout.ranks, rank, end, stop)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        os.environ["NCCL_ALGO"] = "Ring"  # else NCCL picks by size and wiring, and adds in another order
        dist.init_process_group(backend, store=store, rank=rank, world_size=layout.ranks, timeout=PATIENCE)
        ranks = Ranks(rank, layout.ranks, layout.nodes)
        ranks.numbers([0.0])  # all are connected now
    except dist.DistError as error:
        raise PeerLost(f"rank {rank} cannot join the others: {str(error).splitlines()[0]}") from error
    finally:
        if rank == 0:
            place.unlink(missing_ok=True)
    return ranks


def _published(place: Path, end: float, stop: Callable[[], bool]) -> dict[str, object]:
    while True:
        with suppress(FileNotFoundError):
            return dict(json.loads(place.read_text(encoding="utf-8")))
        _wait(end, stop, f"the first rank has not said in {place} where it is")


def _gather(store: TCPStore, count: int, rank: int, end: float, stop: Callable[[], bool]) -> None:
    """By small looks, since a wait inside of torch would keep a stop signal from being heard. The first rank alone decides whether
    they begin: else one could begin while another stops."""
    store.set(f"here/{rank}", "1")
    while not store.check(["verdict"]):
        if stop():
            store.set("stop", "1")
        if rank > 0:
            _wait(end + LAST_SECONDS, lambda: False, "the first rank did not say whether to begin")
            continue
        missing = [number for number in range(count) if not store.check([f"here/{number}"])]
        if not missing or store.check(["stop"]):
            store.set("verdict", "stop" if missing else "begin")
            break
        _wait(end, lambda: False, f"of {count} ranks, {missing} did not come")
    if store.get("verdict") == b"begin":
        return
    store.set(f"left/{rank}", "1")
    if rank == 0:  # the others ask it: it leaves last
        others = [number for number in range(1, count) if store.check([f"here/{number}"])]
        last = time.monotonic() + LAST_SECONDS
        while time.monotonic() < last and not store.check([f"left/{number}" for number in others]):
            time.sleep(LOOK_SECONDS)
    raise Stopped


def _wait(end: float, stop: Callable[[], bool], reason: str) -> None:
    if stop():
        raise Stopped
    if time.monotonic() > end:
        raise Failed(f"{reason} within {GATHERING_SECONDS:.0f} s. Their own logs may say why")
    time.sleep(LOOK_SECONDS)


def _interface(layout: Layout) -> str:
    """The network interface that has this node's address: gloo would take that of the host's name, which may lead nowhere.

    Raises Failed when none has."""
    if layout.nodes == 1:
        return "lo"
    try:
        wanted = socket.gethostbyname(layout.address)
    except OSError as error:
        raise Failed(f"this node's address {layout.address} cannot be resolved: {error}") from error
    if wanted.startswith("127."):
        return "lo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                answer = fcntl.ioctl(asked.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == wanted:
                    return name
    raise Failed(f"no network interface of this node has its address {layout.address} ({wanted})")
