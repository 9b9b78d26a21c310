"""The one door to submitit: one array for all seeds, its intent on disk before sbatch, found again if the launcher dies."""

import contextlib
import io
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout
from submitit import SlurmExecutor
from submitit.core import utils
from submitit.slurm.slurm import SlurmJob

from jobs.files import now
from jobs.rundir import Tree
from launcher import batch, bundle, cluster, request, task
from launcher.bundle import Bundle
from launcher.errors import ExitCode, LaunchError, Problem, fail
from launcher.placement import Placement
from launcher.plan import Plan, SlurmRequest
from launcher.record import COMMENT, Submission, new_id
from launcher.recover import recover
from launcher.runstate import RunState, examine

Say = Callable[[str], None]
LOCK_SECONDS: Final = 60
NOT_YET: Final = "now+365days"
"""Nothing starts before its record and its calls stand; `release` then says now. --hold would do as well, but of a held job sbatch
does not ask whether any node can ever run it."""
_SEVERAL: Final = ("--kill-on-bad-exit=1", "--wait=0")
"""For several nodes. A task that dies ends the others; one that has come to its end, as all do in their own time, does not."""
PLACEHOLDER: Final = "SUBMISSION"
"""Stands for the submission's id in a script that is only shown."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What `submit` has done."""

    submission: Submission | None
    """None: nothing was left to submit."""
    already: tuple[RunState, ...]
    """Seeds that were under way before, and were left alone."""


class ArrayExecutor(SlurmExecutor):  # type: ignore[misc]
    """submitit's executor, always with an array, for one seed too: so a task has one kind of name, ARRAYJOB_TASK.

    `on_job` learns the job id right after sbatch: the shortest time in which a dying launcher could lose it. `passed_on`: names of
    variables that the job gets besides what its shell needs."""

    def __init__(
        self,
        folder: Path,
        slurm: SlurmRequest,
        tasks: int,
        own: Bundle,
        on_job: Callable[[str], None],
        passed_on: Sequence[str] = (),
    ) -> None:
        super().__init__(folder)
        self.on_job = on_job
        self.passed_on = passed_on
        self.update_parameters(**parameters(folder, slurm, own))
        self.parameters["map_count"] = tasks

    @classmethod
    def affinity(cls) -> int:
        """A script can be shown on a machine without Slurm. `request.check` says what is missing before sbatch is called."""
        return 2

    @property
    def _submitit_command_str(self) -> str:
        return batch.step("submitit.core._submit", self.folder)

    def script(self) -> str:
        return str(self._make_submission_file_text(self._submitit_command_str, PLACEHOLDER))

    def _make_submission_command(self, submission_file_path: Path) -> list[str]:
        return ["env", *request.unset(os.environ, self.parameters, self.passed_on), "sbatch", str(submission_file_path)]

    def _internal_process_submissions(self, delayed_submissions: list[Any]) -> list[Any]:
        array = str(self._submit_command(self._submitit_command_str).job_id)
        self.on_job(array)
        return hand_over(self.folder, array, delayed_submissions)


def hand_over(folder: Path, array: str, delayed: Sequence[Any]) -> list[Any]:
    """Put each task's call where submitit looks for it on the node. The array may not begin before this is done."""
    jobs = []
    for index, call in enumerate(delayed):
        job = SlurmJob(folder=folder, job_id=f"{array}_{index}", tasks=[0])
        call.set_timeout(0, 0)  # its countdown is not used: the arbiter decides
        temporary = job.paths.submitted_pickle.with_suffix(".tmp")
        call.dump(temporary)
        temporary.replace(job.paths.submitted_pickle)
        jobs.append(job)
    return jobs


def arguments(tree: Tree, submission: Submission) -> tuple[list[str], list[str]]:
    """What `task.start` gets, by task: the run's specification, its placement. All else is read on the node."""
    placement = str(submission.folder(tree) / "placement.json")
    return [str(tree.run(seed).specification) for seed in submission.seeds], [placement] * len(submission.seeds)


def parameters(folder: Path, slurm: SlurmRequest, own: Bundle) -> dict[str, Any]:
    """Everything that submitit and sbatch are told, in so many words: none of submitit's defaults is left."""
    log = str(folder / "%A_%a.log")
    placement = folder / "placement.json"
    return {
        "job_name": slurm.job_name,
        "comment": COMMENT + folder.name,
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "time": slurm.time_minutes,
        "nodes": slurm.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": slurm.cpus_per_task,
        "gpus_per_node": slurm.gpus_per_node or None,
        "mem": slurm.memory,
        "exclude": slurm.exclude,
        "array_parallelism": slurm.array_parallelism,
        "signal_delay_s": slurm.signal_seconds,
        "wckey": None,
        "stderr_to_stdout": True,
        "setup": batch.setup(slurm.setup, batch.launcher(sys.executable, own.path, own.digest)),
        "teardown": batch.teardown(slurm.teardown, placement),
        # srun truncates its log at a restart without an open mode of its own, and since 22.05 it does not take
        # --cpus-per-task from the job. Of two --output the last one counts.
        "srun_args": [
            "--open-mode=append",
            f"--output={log}",
            f"--cpus-per-task={slurm.cpus_per_task}",
            *(_SEVERAL if slurm.nodes > 1 else ()),
        ],
        "additional_parameters": {
            **{key.replace("_", "-"): value or True for key, value in slurm.additional.items()},
            "signal": f"USR2@{slurm.signal_seconds}",
            "requeue": True,
            "open-mode": "append",
            "output": log,
            "chdir": str(folder),
            "export": "ALL",
            "begin": NOT_YET,
        },
    }


def script(plan: Plan) -> str:
    """The batch script that `submit` would hand to sbatch. Empty where nothing goes to Slurm. Touches no file."""
    if plan.slurm is None or not plan.todo:
        return ""
    folder = Tree(plan.tree).submissions / PLACEHOLDER
    return ArrayExecutor(folder, plan.slurm, len(plan.todo), bundle.planned(plan.store), lambda _: None).script()


def submit(plan: Plan, say: Say = lambda _: None) -> Submitted:
    """Submit the seeds that are neither done nor under way, as one array. The tree must be open: every run.json written.

    Raises LaunchError (CLUSTER) with Slurm's own words when it does not take them; then nothing is left in the queue, and the
    same command starts clean."""
    if plan.slurm is None:
        msg = "a plan without Slurm is run by launcher.local"
        raise ValueError(msg)
    tree = Tree(plan.tree)
    tree.submissions.mkdir(parents=True, exist_ok=True)
    lock = FileLock(tree.submissions / ".lock", timeout=LOCK_SECONDS)
    try:
        with lock:
            return _submit(plan, plan.slurm, tree, say)
    except Timeout as error:
        hint = f"`launch status {tree.name}` shows what it does."
        raise fail(ExitCode.TREE, "Another launch of this experiment is under way.", hint=hint) from error


def _submit(plan: Plan, slurm: SlurmRequest, tree: Tree, say: Say) -> Submitted:
    for line in recover(tree, locked=True):
        say(line)
    already = tuple(state for state in examine(tree, [run.seed for run in plan.todo]) if state.active)
    seeds = tuple(run.seed for run in plan.todo if run.seed not in {state.seed for state in already})
    if not seeds:
        return Submitted(None, already)
    request.check_python(sys.executable)
    slurm, notes = request.check(slurm, plan.tree)
    for note in notes:
        say(note)
    submission = Submission(
        id=new_id(tree),
        place="slurm",
        state="intent",
        seeds=seeds,
        job=None,
        cluster=None,
        partition=slurm.partition,
        host=socket.gethostname(),
        pid=os.getpid(),
        time=now(),
    )
    own = bundle.ensure(plan.store)
    folder = submission.folder(tree)
    folder.mkdir(parents=True)
    placement(plan, slurm, submission.id, own).write(folder / "placement.json")
    submission.write(tree)
    return Submitted(_array(tree, slurm, submission, own, plan.environment), already)


def placement(plan: Plan, slurm: SlurmRequest, submission: str, own: Bundle) -> Placement:
    """What the task and the arbiter need to know on the node."""
    return Placement(
        submission=submission,
        node=plan.node.as_json(),
        network=plan.network,
        environment=plan.environment,
        mounts=dict(plan.mounts),
        site=slurm.site,
        preemption=slurm.preemption,
        budgets=dict(slurm.budgets),
        signal_seconds=slurm.signal_seconds,
        time_minutes=slurm.time_minutes,
        total_minutes=slurm.total_minutes,
        ranks=plan.ranks,
        launcher=own.digest,
    )


def _array(tree: Tree, slurm: SlurmRequest, intent: Submission, own: Bundle, passed_on: Sequence[str]) -> Submission:
    """sbatch, not to begin yet; the job id into the record; the calls; the release. Each step can be taken up again."""
    known = intent

    def on_job(array: str) -> None:
        nonlocal known
        known = intent.with_state("intent", array).write(tree)

    executor = ArrayExecutor(intent.folder(tree), slurm, len(intent.seeds), own, on_job, passed_on)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it also raises
            executor.map_array(task.start, *arguments(tree, intent))
    except (utils.FailedJobError, utils.FailedSubmissionError) as error:
        intent.with_state("failed").write(tree)
        raise LaunchError(ExitCode.CLUSTER, [request.refusal(str(error), slurm)], f"sbatch: {error}".strip()) from error
    return release(tree, known)


def release(tree: Tree, submission: Submission) -> Submission:
    """Let the array start, and record that it was submitted. Raises LaunchError when Slurm does not answer: `recover` goes on."""
    array = submission.job or ""
    answer = cluster.release(array)
    gone = any(words in answer.stderr for words in ("already finished", "Invalid job id"))  # cancelled in the meantime
    if not answer.ok and not gone:
        hint = f"The array {array} may not begin yet; the same command, or `launch status {tree.name}`, tries it again."
        problem = Problem(f"Slurm does not let it begin: {cluster.first_line(answer)}.", hint=hint)
        raise LaunchError(ExitCode.CLUSTER, [problem], answer.evidence())
    return submission.with_state("submitted").write(tree)


def complete(tree: Tree, submission: Submission) -> Submission:
    """Take up a submission whose launcher died after sbatch, from wherever it was. `submission.job` is known."""
    calls = [utils.DelayedSubmission(task.start, *both) for both in zip(*arguments(tree, submission), strict=True)]
    hand_over(submission.folder(tree), submission.job or "", calls)
    return release(tree, submission)
