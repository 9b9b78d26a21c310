"""The partitions of the cluster, as sinfo shows them. Standard library only."""

import re
from dataclasses import dataclass

from launcher.cluster import first_line
from launcher.errors import ExitCode, LaunchError, Problem
from launcher.process import run


@dataclass(frozen=True, slots=True)
class Partition:
    """What sinfo says about one partition, over all its nodes."""

    name: str
    up: bool
    minutes: int | None
    """Its time limit; None for none."""
    nodes: int
    cpus: int
    """Of its largest node."""
    gpus: int
    """Of its largest node."""


def partitions() -> dict[str, Partition]:
    """All partitions that the user sees. Raises LaunchError (CLUSTER) when Slurm is not here or gives no answer."""
    answer = run(["sinfo", "-h", "-o", "%R|%a|%l|%D|%c|%G"], timeout=30)
    if not answer.ok:
        hint = "See whether `sinfo -s` works in this shell."
        problem = Problem(f"Slurm gives no answer: {first_line(answer)}.", hint=hint)
        raise LaunchError(ExitCode.CLUSTER, [problem], answer.evidence())
    return parse_sinfo(answer.stdout)


def parse_sinfo(text: str) -> dict[str, Partition]:
    """Lines of `%R|%a|%l|%D|%c|%G`: one per partition and kind of node."""
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|", 5)]
        if len(parts) == 6:  # noqa: PLR2004 - the six fields asked for
            name, up, limit, nodes, cpus, gres = parts
            seen = found.get(name) or Partition(name, up == "up", limit_minutes(limit), 0, 0, 0)
            found[name] = Partition(
                name,
                seen.up,
                seen.minutes,
                seen.nodes + _count(nodes),
                max(seen.cpus, _count(cpus.rstrip("+"))),
                max(seen.gpus, _gpus(gres)),
            )
    return found


def limit_minutes(text: str) -> int | None:
    """A limit as Slurm prints it: `infinite`, `30:00`, `1:00:00`, `2-00:00:00`. None for no limit."""
    match = re.fullmatch(r"(?:([0-9]+)-)?(?:([0-9]+):)?([0-9]+):([0-9]+)", text)
    if not match:
        return None
    days, hours, minutes, _ = (int(part or 0) for part in match.groups())
    return (days * 24 + hours) * 60 + minutes


def _gpus(gres: str) -> int:
    """`gpu:a100:4(S:0-1),gpu:t4:2` -> 6."""
    return sum(int(count) for count in re.findall(r"(?:^|,)gpu(?::[^:,(]+)*?:([0-9]+)", gres))


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0
