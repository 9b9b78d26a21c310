"""A job on several nodes: which one this is, what the first one tells the others, and one end out of all. Standard library only.

They speak through files beside the submission, on the file system that all nodes see: one folder for each start of a job."""

import json
import math
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jobs.contract import ADDRESS_VARIABLE, NODE_VARIABLE, NODES_VARIABLE, RANKS_VARIABLE, Exit, worst
from jobs.files import publish_json
from launcher import cluster
from launcher.errors import ExitCode, LaunchError, Problem
from launcher.process import run

BEGIN_SECONDS: Final = 600.0
"""How long a node waits for the first one to begin: its file system, or its image, may need a while."""
ENDS_SECONDS: Final = 10.0
"""How long the first node waits for the others' ends once its own run has ended: it is the one that writes, and so the last."""
LAST_SECONDS: Final = 30.0
"""How long a run may outlive one elsewhere that failed."""
LOOK_SECONDS: Final = 0.1
ADDRESS_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Here:
    """This node among those of its job."""

    count: int
    number: int
    name: str

    @property
    def first(self) -> bool:
        """Whether this node's task takes the attempt and writes the events."""
        return self.number == 0


def here(environ: Mapping[str, str] = os.environ) -> Here:
    """As Slurm says; alone, outside of it."""
    inside = "SLURM_JOB_ID" in environ
    count, number = (int(environ.get(name) or default) for name, default in (("SLURM_NNODES", 1), ("SLURM_NODEID", 0)))
    name = environ.get("SLURMD_NODENAME") or platform.node()
    return Here(count, number, name) if inside else Here(1, 0, name)


@dataclass(frozen=True, slots=True)
class Word:
    """What the first node says once it knows: the attempt that all take part in, or the exit code with which all end at once."""

    attempt: int | None
    code: int = Exit.DONE


class Meeting:
    """One start of a job on several nodes."""

    def __init__(self, submission: Path, node: Here, environ: Mapping[str, str] = os.environ) -> None:
        """`submission`: the folder of the submission."""
        job = f"{environ.get('SLURM_ARRAY_JOB_ID')}_{environ.get('SLURM_ARRAY_TASK_ID')}"
        self.folder = submission / "starts" / f"{job}-{environ.get('SLURM_RESTART_COUNT') or 0}"
        self.node = node
        self.folder.mkdir(parents=True, exist_ok=True)

    def say(self, word: Word) -> None:
        """As the first node."""
        publish_json(self.folder / "begin.json", {"attempt": word.attempt, "code": word.code})

    def wait(self, stopped: Callable[[], bool]) -> Word:
        """What the first node says. Ends as saved when a stop comes before, as a peer where the first node is gone or silent."""
        end = time.monotonic() + BEGIN_SECONDS
        while True:
            if (found := self._read("begin.json")) is not None:
                return Word(found["attempt"], found["code"])
            if stopped():
                return Word(None, Exit.SAVED)
            if self.failed() or time.monotonic() > end:
                return Word(None, Exit.PEER)
            time.sleep(LOOK_SECONDS)

    def end(self, code: int) -> None:
        """How the run ended on this node. A disk that does not take it must not change that: the node counts as silent."""
        try:
            publish_json(self._end(self.node.number), {"node": self.node.name, "code": code})
        except OSError as error:
            print(f"the end on {self.node.name} is not told to the other nodes: {error}", file=sys.stderr, flush=True)

    def failed(self) -> bool:
        """Whether the run has ended on another node, neither finished nor saved: here it can only follow."""
        codes = [self._ended(number) for number in range(self.node.count) if number != self.node.number]
        return any(each is not None and each[1] not in {Exit.DONE, Exit.SAVED} for each in codes)

    def ends(self) -> tuple[int, dict[str, int]]:
        """As the first node, after its own end: one exit code out of all, and that of each node that said it."""
        last = time.monotonic() + ENDS_SECONDS
        while True:
            found = [self._ended(number) for number in range(self.node.count)]
            if all(found) or time.monotonic() > last:
                break
            time.sleep(LOOK_SECONDS)
        # A run that is done is done, whoever did not come to say so.
        silent = Exit.DONE if found[0] is not None and found[0][1] == Exit.DONE else Exit.PEER
        codes = [each[1] if each is not None else int(silent) for each in found]
        return worst(codes), {each[0]: each[1] for each in found if each is not None}

    def _end(self, number: int) -> Path:
        return self.folder / f"end-{number}.json"

    def _ended(self, number: int) -> tuple[str, int] | None:
        found = self._read(self._end(number).name)
        return (str(found["node"]), int(found["code"])) if found is not None else None

    def _read(self, name: str) -> dict[str, Any] | None:
        """Listed, not just opened: a network file system may remember for half a minute that a name was not there."""
        path = next((path for path in self.folder.iterdir() if path.name == name), None)
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path is not None else None


class Watch:
    """Looks, while a run goes on here, whether it has failed on another node: then it is asked to stop, and later ended."""

    def __init__(self, meeting: "Meeting | None", send: Callable[[int], None]) -> None:
        self._meeting, self._send = meeting, send
        self._next = 0.0
        self._last = math.inf
        self.ended = False
        """Whether the run had to be ended: it only followed."""

    def look(self) -> None:
        """Called often; looks once a second."""
        now = time.monotonic()
        if self._meeting is None or now < self._next:
            return
        self._next = now + 1.0
        if self._last == math.inf and self._meeting.failed():
            self._last = now + LAST_SECONDS
            self._send(signal.SIGTERM)
        elif now > self._last:
            self.ended = True
            self._send(signal.SIGKILL)


def layout(node: Here, ranks: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that tell a run where it is among its nodes, and its `ranks`, unless 0. Raises LaunchError.

    The address is the one from which this node reaches another of them: a host's own name may lead to itself alone."""
    told = {RANKS_VARIABLE: str(ranks)} if ranks else {}
    if node.count == 1:
        return told
    addresses = _addresses(environ["SLURM_JOB_NODELIST"], time.monotonic() + ADDRESS_SECONDS)
    other = next(address for name, address in addresses.items() if name != node.name)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect((other, 9))  # sends nothing: the kernel looks up the way
        own = asked.getsockname()[0]
    return {**told, NODES_VARIABLE: str(node.count), NODE_VARIABLE: str(node.number), ADDRESS_VARIABLE: own}


def _addresses(nodes: str, end: float) -> dict[str, str]:
    """Of the nodes of a list as Slurm writes it: name and address of each, in order. A controller that is silent is asked again,
    until `end`. Raises LaunchError (CLUSTER)."""
    answer = run(["scontrol", "show", "node", "-o", nodes], timeout=15)
    found = {}
    for line in answer.stdout.splitlines():
        fields = dict(word.partition("=")[::2] for word in line.split())
        if "NodeName" in fields:
            found[fields["NodeName"]] = fields.get("NodeAddr") or fields["NodeName"]
    if not found and time.monotonic() < end:
        time.sleep(1.0)
        return _addresses(nodes, end)
    if not answer.ok or not found:
        raise LaunchError(
            ExitCode.CLUSTER,
            [Problem(f"Slurm does not say where {nodes} are: {cluster.first_line(answer)}.")],
            answer.evidence(),
        )
    return found
