"""The questions to Slurm and the few orders given to it, in text formats that all its versions share. Stdlib only."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from launcher.errors import ExitCode, LaunchError, Problem
from launcher.process import Result, run

ENDED_STATES: Final = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
"""A job in one of these does not come back by itself."""


@dataclass(frozen=True, slots=True)
class JobFacts:
    """`scontrol show job -o JOB`: the controller's own word, without accounting."""

    state: str
    reason: str
    restarts: int
    preempt_time: datetime | None
    """Set from the moment that the preemptor asks for the nodes, while the grace lasts."""
    end_time: datetime | None
    """When the time limit is reached, or when the job ended. Local time, as Slurm prints it. None for no limit."""
    node: str
    partition: str = ""
    nodes: int = 1
    """How many it needs."""
    avoided: str = ""
    """Its ExcNodeList, as Slurm writes lists of nodes."""

    def evidence(self) -> dict[str, str | int | None]:
        """The fields that a decision rests on, as they go into the event."""
        return {
            "JobState": self.state,
            "Reason": self.reason,
            "Restarts": self.restarts,
            "PreemptTime": self.preempt_time.isoformat() if self.preempt_time else None,
            "EndTime": self.end_time.isoformat() if self.end_time else None,
        }


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One array task, as squeue or sacct sees it."""

    job: str
    """`ARRAYJOB_TASK`."""
    state: str
    reason: str
    node: str
    exit_code: str = ""
    """`CODE:SIGNAL`, from accounting only."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED_STATES

    @property
    def held(self) -> bool:
        return self.state == "REQUEUE_HOLD" or "held" in self.reason.lower()


@dataclass(frozen=True, slots=True)
class Answer:
    """What Slurm knows about some jobs, and whether it could be asked at all."""

    jobs: Mapping[str, JobStatus]
    silent: str = ""
    """Why nothing can be said about a job that is missing here (controller down, no Slurm here); else empty."""
    accounting: bool = True
    """False: sacct answered nothing, so that a job unknown here may have ended longer ago than Slurm remembers."""


def job_facts(job: str) -> JobFacts | None:
    """Facts about `ARRAYJOB_TASK`; None when the controller does not know it. Raises LaunchError when it is silent."""
    answer = run(["scontrol", "show", "job", "-o", job], timeout=15)
    if answer.ok:
        return parse_job(answer.stdout)
    if "Invalid job id" in answer.stderr:
        return None
    raise LaunchError(ExitCode.CLUSTER, [Problem(f"Slurm gives no answer about job {job}.")], answer.evidence())


def parse_job(text: str) -> JobFacts | None:
    """The first record of `scontrol show job -o`; None when there is none.

    A job's name, comment and paths may hold anything, ` JobState=` too. Those stand before `UserId=` and after
    `Command=`; what is read here stands between the two."""
    line = next((line for line in text.splitlines() if "JobId=" in line), "")
    head, _, _ = line.partition(" Command=")
    _, mark, known = head.rpartition(" UserId=")
    fields = dict(re.findall(r"(?:^| )([A-Z][\w/:]*)=(.*?)(?= [A-Z][\w/:]*=|$)", known if mark else head))
    if "JobState" not in fields:
        return None
    return JobFacts(
        state=fields["JobState"].split()[0],
        reason=fields.get("Reason", "None"),
        restarts=_number(fields.get("Restarts")),
        preempt_time=_moment(fields.get("PreemptTime")),
        end_time=_moment(fields.get("EndTime")),
        node=fields.get("NodeList", "").replace("(null)", ""),
        partition=fields.get("Partition", ""),
        nodes=_number(fields.get("NumNodes", "").partition("-")[0]) or 1,
        avoided=fields.get("ExcNodeList", "").replace("(null)", ""),
    )


def states(jobs: Iterable[str]) -> Answer:
    """What Slurm says about each `ARRAYJOB_TASK` of `jobs`. One squeue for all; one sacct for those that it forgot."""
    wanted = sorted(set(jobs))
    if not wanted:
        return Answer({})
    arrays = ",".join(sorted({job.partition("_")[0] for job in wanted}))
    try:
        queue = run(["squeue", "-h", "-r", "-t", "all", "-j", arrays, "-o", "%i|%T|%N|%r"], timeout=30)
    except LaunchError as error:
        return Answer({}, silent=str(error))
    if not queue.ok and "Invalid job id" not in queue.stderr:
        return Answer({}, silent=first_line(queue))
    seen = parse_squeue(queue.stdout)
    found = {job: seen[job] for job in wanted if job in seen}
    # What was cancelled while it waited is shown once for the whole array, without its number, or not at all.
    arrays_over = {array for array, status in seen.items() if "_" not in array and status.ended}
    found |= {job: seen[array] for job in wanted if job not in seen and (array := job.partition("_")[0]) in arrays_over}
    if len(found) == len(wanted):
        return Answer(found)
    old = sacct(arrays)
    if old is None:
        return Answer(found, accounting=False)
    return Answer({**{job: settled(old[job]) for job in wanted if job in old and settled(old[job]).ended}, **found})


def settled(status: JobStatus) -> JobStatus:
    """Accounting's word about a task that squeue does not have. One that still waits there was cancelled before it started."""
    return replace(status, state="CANCELLED") if status.state == "PENDING" else status


def parse_squeue(text: str) -> dict[str, JobStatus]:
    """Lines of `%i|%T|%N|%r`. An array task that is not expanded (`123_[0-2%4]`) counts for each of its members."""
    found = {}
    for line in text.splitlines():
        parts = line.split("|", 3)
        if len(parts) == 4:  # noqa: PLR2004 - the four fields asked for
            number, state, node, reason = (part.strip() for part in parts)
            found.update({job: JobStatus(job, state, reason, node) for job in members(number)})
    return found


def sacct(arrays: str) -> dict[str, JobStatus] | None:
    """The last state of each task in accounting; None where there is no accounting or it does not answer."""
    fields = "--format=JobID,State,NodeList,ExitCode"
    try:
        answer = run(["sacct", "--noheader", "--allocations", "--parsable2", "-j", arrays, fields], timeout=30)
    except LaunchError:
        return None
    return parse_sacct(answer.stdout) if answer.ok else None


def parse_sacct(text: str) -> dict[str, JobStatus]:
    """Lines of JobID|State|NodeList|ExitCode. `CANCELLED by 1000` is CANCELLED."""
    found = {}
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) == 4 and "." not in parts[0] and parts[1]:  # noqa: PLR2004 - the four fields asked for
            number, state, node, code = parts
            node = "" if node == "None assigned" else node
            found.update({job: JobStatus(job, state.split()[0], "", node, code) for job in members(number)})
    return found


def members(number: str) -> list[str]:
    """`123_4` -> itself; `123_[0-2,7%4]` -> its tasks; `123` -> itself; a step range `[0-8:2]` is understood too."""
    array, bracket, ranges = number.partition("_[")
    if not bracket:
        return [number]
    found: list[str] = []
    for part in ranges.rstrip("]").partition("%")[0].split(","):
        match = re.fullmatch(r"([0-9]+)(?:-([0-9]+)(?::([0-9]+))?)?", part)
        if match:
            first = int(match[1])
            found += [f"{array}_{i}" for i in range(first, int(match[2] or first) + 1, int(match[3] or 1))]
    return found


def find_comment(comment: str, folder: str) -> str | None:
    """The array job id of my job with this comment, or that starts in this folder; None if there is none.

    The folder is for accounting that does not keep comments. Raises LaunchError when Slurm is silent: then nothing
    may be concluded."""
    queue = run(["squeue", "-h", "-r", "--me", "-t", "all", "-o", "%F|%k"], timeout=30)
    if not queue.ok:
        raise LaunchError(ExitCode.CLUSTER, [Problem(f"Slurm gives no answer: {first_line(queue)}.")], queue.evidence())
    for line in queue.stdout.splitlines():
        array, _, text = line.partition("|")
        if text.strip() == comment:
            return array.strip()
    old = run(["sacct", "-n", "-X", "-P", "-S", "now-7days", "--format=JobID,Comment,WorkDir"], timeout=30)
    for line in old.stdout.splitlines() if old.ok else ():
        number, _, rest = line.partition("|")
        text, _, where = rest.partition("|")
        if text == comment or where == folder:
            return number.partition("_")[0]
    return None


def requeue(job: str, *, ended: bool) -> Result:
    """Put `ARRAYJOB_TASK` back into the queue. Never the raw id: that is the whole array's.

    Without `ended` Slurm does so only if the job still runs, which it looks at in the same moment: a scancel that came first
    wins. It says nothing if it did nothing."""
    if "_" not in job:
        msg = f"{job} would name the whole array"
        raise ValueError(msg)
    return run(["scontrol", "requeue", *([] if ended else ["incomplete"]), job], timeout=15)


def update(job: str, changes: Mapping[str, str]) -> Result:
    """Change `ARRAYJOB_TASK` alone, while it waits in the queue."""
    return run(
        ["scontrol", "update", f"JobId={job}", *(f"{key}={value}" for key, value in changes.items())], timeout=15
    )


def nodes_left(facts: JobFacts, avoid: Iterable[str]) -> frozenset[str] | None:
    """The nodes of a job's partitions, up or down, less those that it avoids already and these. None: Slurm does not say."""
    try:
        there = run(["sinfo", "-h", "-N", "-p", facts.partition, "-o", "%N"], timeout=15)
        old = run(["scontrol", "show", "hostnames", facts.avoided], timeout=15) if facts.avoided else None
    except LaunchError:
        return None
    if not there.ok or (old is not None and not old.ok):
        return None
    return frozenset(there.stdout.split()) - {*avoid, *(old.stdout.split() if old else ())}


def end_of_start(job: str, restarts: int) -> str | None:
    """How accounting names the end of that start of a job (0: the first): PREEMPTED, REQUEUED, NODE_FAIL ... None: it does not know
    yet; empty: there is no accounting."""
    try:
        answer = run(["sacct", "-n", "-X", "-P", "--duplicates", "-j", job, "--format=End,State"], timeout=5)
    except LaunchError:
        return ""
    if not answer.ok:
        return ""
    # by their ends: a start that was short may stand there without the time of its start
    lines = sorted(line.partition("|") for line in answer.stdout.splitlines() if line[:1].isdigit())
    ends = [state.split()[0] for _, _, state in lines]
    return ends[restarts] if len(ends) > restarts else None


def is_silent(answer: Result) -> bool:
    """Whether the controller could not be reached, so that asking again may help."""
    return not answer.ok and any(
        word in answer.stderr for word in ("contact slurm controller", "Socket timed out", "refused")
    )


def release(array: str) -> Result:
    """Let an array that was submitted to begin much later begin now: all its tasks."""
    return run(["scontrol", "update", f"jobid={array}", "StartTime=now"], timeout=30)


def cancel(jobs: Iterable[str]) -> Result:
    """End these `ARRAYJOB_TASK` for good."""
    return run(["scancel", *jobs], timeout=60)


def first_line(answer: Result) -> str:
    """The most telling line of what a Slurm command said."""
    lines = [line.strip() for line in (answer.stderr or answer.stdout).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else f"exit code {answer.code}"


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:  # None, N/A, Unknown
        return None
