"""A start of a job on its node, for the arbiter: its tree, its environment, and a Slurm that answers by a list."""

import json
import sys

from jobs.contract import Event
from jobs.files import append_line, read_lines
from jobs.rundir import Tree
from launcher import arbiter, orders
from launcher.placement import Placement
from launcher.record import Submission

GRACE = "JobId=8 UserId=t(1) JobState=RUNNING Reason=None Restarts=0 EndTime=2026-01-31T13:00:00 PreemptTime=2026-01-31T12:00:00"
LIMIT = (
    "JobId=8 UserId=t(1) JobState=COMPLETING Reason=TimeLimit Restarts={} EndTime=2026-01-31T13:00:00 PreemptTime=None"
)

QUIET = (
    "JobId=8 UserId=t(1) JobState=RUNNING Reason=None Restarts={} EndTime=2099-01-31T13:00:00 PreemptTime=None "
    "Partition=gpu NumNodes=1 ExcNodeList={} Command=(null)"
)

SCONTROL = """#!{python}
import json, re, sys
from pathlib import Path
plan = Path({plan!r})
answers = json.loads(plan.read_text())
with Path({calls!r}).open("a") as file:
    file.write(json.dumps([sys.argv[1:], {events!r} and Path({events!r}).read_text()]) + "\\n")
code, text = answers[sys.argv[1]].pop(0) if len(answers[sys.argv[1]]) > 1 else answers[sys.argv[1]][0]
plan.write_text(json.dumps(answers))
back = plan.with_name("back")
if sys.argv[1] == "requeue" and code == 0 and not text:
    back.touch()
if sys.argv[1] == "show" and back.exists():  # as Slurm does: it waits in the queue, though its script still runs
    text = re.sub("Restarts=([0-9]+)", lambda found: "Restarts=" + str(int(found[1]) + 1), text)
(sys.stdout if code == 0 else sys.stderr).write(text + "\\n")
sys.exit(code)
"""
DOWN = (1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")


class Job:
    """A job's start on the node: its tree, its environment, and a scontrol that answers by a list."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.monkeypatch = folder, monkeypatch
        self.tree = Tree(folder / "experiments" / "x")
        self.run = self.tree.run(5)
        for each in self.run.folders:
            each.mkdir(parents=True)
        self.submission = Submission("a", "slurm", "submitted", (4, 5), "7", None, "gpu", "h", 1, "t").write(self.tree)
        self.placement = self.submission.folder(self.tree) / "placement.json"
        self.budgets({"preempted": 3})
        self.run.events.touch()
        (folder / "bin").mkdir()
        monkeypatch.setenv("PATH", str(folder / "bin"))
        for name, value in {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "8"}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
        monkeypatch.setenv("SLURMD_NODENAME", "n1")
        monkeypatch.setattr(orders, "PATIENCE", (0.01, 0.01))
        monkeypatch.setattr(arbiter.signal, "signal", lambda *_: None)

    def budgets(self, budgets, **more):
        Placement("a", {}, "none", (), {}, "default", "requeue", budgets, 60, **more).write(self.placement)

    def scontrol(self, **answers):
        plan, calls, events = self.folder / "plan", self.folder / "calls", self.run.events
        plan.write_text(json.dumps(answers))
        self.program(
            "scontrol",
            SCONTROL.format(python=sys.executable, plan=str(plan), calls=str(calls), events=str(events)),
        )

    def program(self, name, text):
        file = self.folder / "bin" / name
        file.write_text(text)
        file.chmod(0o755)
        return file

    def nodes(self, *names):
        """Those of its partition."""
        self.program("sinfo", f"#!/bin/sh\nprintf '%s\\n' {' '.join(names)}\n")

    def cancel(self):
        self.submission.cancel(self.tree, 5)

    def attempt(  # noqa: PLR0913 - each is one thing that an event says
        self, number, code, step=None, *, first=0, restart=None, cause=None, action=None, node="n1", ran=0
    ):
        """It goes on from step `first` (None: never gets there) and does steps up to `step`, which it saves if its code says so,
        in `ran` minutes."""
        restart = number - 1 if restart is None else restart
        began, ended = (f"2026-01-31T{12 + m // 60}:{m % 60:02}:00.000Z" for m in (0, ran))
        start = {
            "event": Event.STARTED,
            "attempt": number,
            "time": began,
            "node": node,
            "job": "7_1",
            "restart": restart,
        }
        append_line(self.run.events, start)
        self.run.attempt_log(number).touch()
        if first is not None:
            append_line(self.run.events, {"event": Event.RESUMED, "attempt": number, "time": "t", "step": first})
        if code == 75:
            append_line(self.run.events, {"event": Event.SAVED, "attempt": number, "time": "t", "step": step or 0})
        if code is not None:
            end = {"event": Event.ENDED, "attempt": number, "time": ended, "exit_code": code, "step": step}
            append_line(self.run.events, end)
        if cause:
            append_line(
                self.run.events,
                {"event": Event.DECIDED, "attempt": number, "time": "t", "cause": cause, "action": action},
            )

    def decide(self):
        return arbiter.main(["--placement", str(self.placement), "--code", "0"])

    def decisions(self):
        return [(line["cause"], line["action"]) for line in read_lines(self.run.events) if line["event"] == "decided"]

    def calls(self):
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]
