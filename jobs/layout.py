"""Where the ranks of an attempt are: how many, on which of its nodes, and who this process is. Standard library only."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from jobs.contract import ADDRESS_VARIABLE, ATTEMPT_VARIABLE, NODE_VARIABLE, NODES_VARIABLE, RANKS_VARIABLE
from jobs.errors import Refused
from jobs.rundir import RunDir

RANK_VARIABLE: Final = "SAMEBITS_RANK"
"""Set by the process that starts the ranks of a node (`jobs/spawn.py`), for each of them."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One process in it."""

    ranks: int
    """Over all nodes."""
    nodes: int
    node: int
    address: str
    """By which the other nodes reach this one."""
    rank: int | None
    """None for the process that starts the ranks of its node."""

    @property
    def per_node(self) -> int:
        return self.ranks // self.nodes

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return (self.rank or 0) == 0

    @property
    def local(self) -> int:
        """Number of this rank on its node."""
        return (self.rank or 0) - self.of_node.start if self.ranks > 1 else 0

    @property
    def of_node(self) -> range:
        """The ranks of this node."""
        return range(self.node * self.per_node, (self.node + 1) * self.per_node)


def read(ranks: int, *, elastic: bool, environ: Mapping[str, str] = os.environ) -> Layout:
    """What the environment says to a recipe of `ranks`. Raises Refused when the two do not agree."""
    nodes, node = _number(environ, NODES_VARIABLE, 1), _number(environ, NODE_VARIABLE, 0)
    wanted = _number(environ, RANKS_VARIABLE, ranks)
    if not 0 <= node < nodes:
        raise Refused(f"{NODE_VARIABLE} is {node}, but there are {nodes} nodes, numbered from 0")
    if wanted != ranks and not elastic:
        raise Refused(
            f"{RANKS_VARIABLE} is {wanted}, but the recipe's training.parallel.ranks is {ranks}: other ranks are other bits. "
            "Only with training.parallel.elastic: true may it be another number"
        )
    if wanted < 1 or wanted % nodes:
        raise Refused(f"{wanted} ranks cannot be shared out evenly over {nodes} nodes")
    address = environ.get(ADDRESS_VARIABLE, "127.0.0.1")
    rank = _number(environ, RANK_VARIABLE, -1)
    return Layout(wanted, nodes, node, address, rank if rank >= 0 else None)


def take_attempt(directory: RunDir, environ: Mapping[str, str] = os.environ) -> int:
    """The number that the task took for us, or, started by hand, the next one."""
    given = environ.get(ATTEMPT_VARIABLE, "")
    return int(given) if given.isdecimal() else directory.take_attempt()


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise Refused(f"{name} is {text!r}, not a number")
    return int(text)
