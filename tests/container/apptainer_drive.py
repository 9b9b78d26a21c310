"""Asks the apptainer engine one thing, as the user of the cluster: `apptainer_drive.py REQUEST`, JSON in and out."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from jobs.contract import ImagePin
from launcher import image as images
from launcher.allocation import Allocation
from launcher.config.schema import Image
from launcher.engines import Start, apptainer, apptainer_code
from launcher.errors import LaunchError
from launcher.plan import Source
from launcher.process import check, run
from launcher.site import load_site

RUN_ID = "test-apptainer"


def git(repository, *arguments):
    return check(run(["git", *arguments], cwd=repository), 1, "git failed").stdout.strip()


def ensure(request, site):
    """Find or make the image of the repository's HEAD."""
    repository = Path(request["repository"])
    commit, tree = git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "HEAD^{tree}")
    wanted = images.request(
        Image(engine="apptainer", base=request["base"], build=request.get("by")),
        Source(repository, commit, tree, None, ()),
    )
    workshop = dataclasses.replace(site.workshop(), store=Path(request["store"]))
    if "build" in request:
        workshop = dataclasses.replace(workshop, build=dataclasses.replace(workshop.build, **request["build"]))
    said = []
    began = time.monotonic()
    pin = getattr(apptainer, request.get("verb", "ensure"))(wanted, workshop, said.append)
    seconds = time.monotonic() - began
    return {"pin": dataclasses.asdict(pin), "known": apptainer.pin(wanted, workshop.store) == pin, "said": said} | {
        "seconds": seconds
    }


def pack(request, _site):
    """The code's layer under another umask."""
    os.umask(request["umask"])
    repository = Path(request["repository"])
    apptainer_code.pack(repository, git(repository, "rev-parse", "HEAD^{tree}"), Path(request["file"]))
    return {}


def verify(request, site):
    began = time.monotonic()
    problems = apptainer.verify(ImagePin(**request["pin"]), node(request, site))
    return {"problems": [str(each) for each in problems], "seconds": time.monotonic() - began}


def node(request, site):
    cache = Path(request["cache"]) if request.get("cache") else None
    return dataclasses.replace(site.node(), store=Path(request["store"]), cache=cache)


def begin(request, site):
    """Start a run as the task does: in a session of its own, with the stop signals blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2, signal.SIGINT})
    start = Start(
        run_id=RUN_ID,
        attempt=1,
        arguments=("-m", "jobs", *map(str, request["arguments"])),
        env=request.get("env", {}),
        mounts={Path(path): mode for path, mode in request.get("mounts", {}).items()},
        network=request.get("network", "none"),
        allocation=Allocation(gpus=tuple(request.get("gpus", ()))),
    )
    command = apptainer.command(ImagePin(**request["pin"]), node(request, site), start)
    process = subprocess.Popen(
        command.argv,
        env=dict(command.env),
        cwd=command.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return process, [*command.argv, *json.loads(command.env["SAMEBITS_START"])["argv"]]


def whole(process):
    """A process and all below it: what Slurm signals. By process id: its command line."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (found := fields(int(entry.name))):
            children.setdefault(int(found[1]), []).append(int(entry.name))
    found, left = {}, [process.pid]
    while left:
        pid = left.pop(0)
        try:
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        left += children.get(pid, [])
    return found


def fields(pid):
    """State, parent, group and session of a process that runs; None for one that has ended."""
    try:
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if found[0] in {"Z", "X"} else found


def send(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def until_ready(process):
    """What it said before that it is ready."""
    said = ""
    for line in process.stdout:
        if line.startswith("ready"):
            return said
        said += line
    raise SystemExit("the run ended before it was ready")


def go(request, site):
    """Run to the end. `signal`: sent to all processes once it is ready, or, with `moments`, so often at random moments of its
    start."""
    ended = []
    for _ in range(request.get("moments", 1)):
        process, argv = begin(request, site)
        said = ""
        if "moments" in request:
            time.sleep(random.random() * request["within"])
        elif "signal" in request:
            said = until_ready(process)
        shown = whole(process)
        if "signal" in request:
            number = signal.Signals[request["signal"]]
            send([process.pid] if request.get("only") == "keeper" else shown, number)
        out = said + process.communicate(timeout=120)[0]
        ended.append({"code": process.returncode, "out": out, "argv": argv, "seen": list(shown.values())})
    return {"ended": ended, "left": left_behind()}


def blow(request, site):
    """SIGKILL to some of its processes; what is left ten seconds later, and what `clean` leaves."""
    process, _ = begin(request, site)
    until_ready(process)
    shown = whole(process)
    marks = {"keeper": "keeper.py", "parent": "Apptainer runtime parent", "inner": "inner.py", "server": "squashfuse"}
    hit = [pid for pid, text in shown.items() if any(marks[name] in text for name in request["victims"])]
    send(hit, signal.SIGKILL)
    process.wait(timeout=60)
    end = time.monotonic() + 10
    while (left := [pid for pid in shown if fields(pid)]) and time.monotonic() < end:
        time.sleep(0.05)
    apptainer.clean(RUN_ID)
    end = time.monotonic() + 10
    while [pid for pid in shown if fields(pid)] and time.monotonic() < end:
        time.sleep(0.05)
    return {
        "hit": len(hit),
        "code": process.returncode,
        "left": [shown[pid] for pid in left],
        "cleaned": [shown[pid] for pid in shown if fields(pid)] + left_behind(),
    }


def left_behind():
    return [str(path) for path in Path("/tmp").glob(f"samebits-run-{os.getuid()}-{RUN_ID}*")]


VERBS = {"ensure": ensure, "pull": ensure, "push": ensure, "pack": pack, "verify": verify, "go": go, "blow": blow}


def main(request):
    site = load_site(None, Path.cwd())
    if request.get("path"):
        os.environ["PATH"] = f"{request['path']}:{os.environ['PATH']}"
    try:
        return VERBS[request["verb"]](request, site)
    except LaunchError as error:
        return {"error": int(error.code), "text": str(error), "evidence": error.evidence}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
