"""Asks the docker engine one thing, as the user of the cluster: `docker_drive.py REQUEST`, JSON in and out."""

import dataclasses
import json
import os
import sys
import time
from pathlib import Path

from jobs.contract import ImagePin
from launcher import image as images
from launcher.config.schema import Image
from launcher.engines import docker
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
    said = []

    def say(line):
        said.append(line)
        if request.get("die_at") and request["die_at"] in line:  # planted: the builder is killed at this point
            os.kill(os.getpid(), 9)

    began = time.monotonic()
    pin = docker.ensure(wanted, workshop, say)
    seconds = time.monotonic() - began
    known = docker.pin(wanted, workshop.store)
    return {"pin": dataclasses.asdict(pin), "known": known == pin, "said": said, "seconds": seconds}


def main(request):
    site = load_site(None, Path.cwd())
    try:
        if "pin" in request:
            return {"problems": [str(each) for each in docker.verify(ImagePin(**request["pin"]), site.node())]}
        if "repository" in request:
            return ensure(request, site)
        return {"problems": [str(each) for each in docker.health()]}
    except LaunchError as error:
        return {"error": int(error.code), "text": str(error), "evidence": error.evidence}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
