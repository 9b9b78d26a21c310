"""Asks the docker engine one thing, as the user of the cluster: `docker_drive.py REQUEST`, JSON in and out."""

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

from jobs.contract import STOP_SIGNALS, ImagePin
from launcher import image as images
from launcher.allocation import Allocation
from launcher.config.schema import Image
from launcher.engines import Start, docker, docker_sdk
from launcher.errors import LaunchError
from launcher.plan import Source
from launcher.process import check, run
from launcher.site import load_site


def git(repository, *arguments):
    return check(run(["git", *arguments], cwd=repository), 1, "git failed").stdout.strip()


def ensure(request, site):
    repository = Path(request["repository"])
    commit, tree = git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "HEAD^{tree}")
    wanted = images.request(Image(engine="docker", base=request["base"]), Source(repository, commit, tree, None, ()))
    workshop = dataclasses.replace(site.workshop(), store=Path(request["store"]))
    if not request.get("registry", True):
        workshop = dataclasses.replace(workshop, registry=None)
    if build := request.get("build"):
        workshop = dataclasses.replace(workshop, build=dataclasses.replace(workshop.build, **build))
    if request.get("no_load"):  # planted: an engine that wants every layer of what it loads

        def refuse(_archive):
            raise LaunchError(6, [])

        docker_sdk.load = refuse
    said = []

    def say(line):
        said.append(line)
        if request.get("die_at") and request["die_at"] in line:  # planted: the builder is killed at this point
            os.kill(os.getpid(), 9)

    os.umask(request.get("umask", 0o022))
    began = time.monotonic()
    pin = docker.ensure(wanted, workshop, say)
    seconds = time.monotonic() - began
    known = docker.pin(wanted, workshop.store)
    return {"pin": dataclasses.asdict(pin), "known": known == pin, "said": said, "seconds": seconds}


def start(request, site):
    """Become the keeper of a run of `python -c CODE`, started as the task starts it: with the stop signals blocked."""
    given = {"gpus": (), **request["allocation"]}
    begin = Start(
        run_id=request["run"],
        attempt=1,
        arguments=("-c", request["code"]),
        env=request.get("env", {}),
        mounts={Path(path): mode for path, mode in request.get("mounts", {}).items()},
        network=request.get("network", "none"),
        allocation=Allocation(**given),
    )
    command = docker.command(ImagePin(**request["start"]), site.node(), begin)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    os.chdir(command.cwd)
    print("begins", flush=True)
    os.execve(command.argv[0], command.argv, dict(command.env))  # noqa: S606 - signals and exit codes are to be its own


def main(request):
    site = load_site(None, Path.cwd())
    try:
        if "pin" in request:
            return {"problems": [str(each) for each in docker.verify(ImagePin(**request["pin"]), site.node())]}
        if "start" in request:
            return start(request, site)
        if "clean" in request:
            return docker.clean(request["clean"])
        if "repository" in request:
            return ensure(request, site)
        return {"problems": [str(each) for each in docker.health()]}
    except LaunchError as error:
        return {"error": int(error.code), "text": str(error), "evidence": error.evidence}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
