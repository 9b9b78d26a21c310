"""Opens a tree for the tiny project and submits it, as the user of the cluster. `drive.py REQUEST.json`; prints JSON.

What it stands for is `launch CONFIG`: the same engine, the same plan, the same door to Slurm. Only the config is left out, whose
schema is that of a training run."""

import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path

from jobs.files import publish_json
from jobs.rundir import Tree
from launcher import image as images
from launcher.config.schema import Image
from launcher.engines import ImageRequest, NodeOptions, Workshop, engine
from launcher.errors import LaunchError
from launcher.plan import Plan, RunPlan, SlurmRequest, Source
from launcher.process import check, run
from launcher.site import load_site
from launcher.submit import submit

DEFAULTS = {
    "site": "testcluster",
    "partition": "gpu",
    "account": None,
    "qos": None,
    "time_minutes": 10,
    "nodes": 1,
    "cpus_per_task": 1,
    "gpus_per_node": 1,
    "memory": "100M",
    "signal_seconds": 10,
    "array_parallelism": 8,
    "exclude": None,
    "setup": (),
    "teardown": (),
    "additional": {},
}


def git(repository, *arguments):
    name = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return check(run(["git", *name, *arguments], cwd=repository), 1, "git failed").stdout.strip()


def plan(request):
    repository = Path(request["repository"])
    commit, tree = git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "HEAD^{tree}")
    lock = (repository / "requirements.lock").read_bytes()
    image = ImageRequest("host", repository, commit, tree, "requirements.lock", hashlib.sha256(lock).hexdigest())
    store = repository.parent / "store"
    workshop, node = Workshop(store), NodeOptions(store)
    if section := request.get("image"):
        site = load_site(None, repository)
        image = images.request(Image(**section), Source(repository, commit, tree, None, ()))
        workshop, node = (dataclasses.replace(each, store=store) for each in (site.workshop(), site.node()))
    pin = engine(image.engine).ensure(image, workshop, lambda line: print(line, file=sys.stderr))
    root = repository.parent / "experiments" / request["name"]
    runs = []
    for seed in request["seeds"]:
        directory = Tree(root).run(seed)
        for folder in directory.folders:
            folder.mkdir(parents=True, exist_ok=True)
        specification = {
            "seed": seed,
            "commit": commit,
            "dirty": False,
            "image": dataclasses.asdict(pin),
            "recipe": request["recipe"],
        }
        if not directory.specification.exists():
            publish_json(directory.specification, specification)
        runs.append(RunPlan(seed, "done" if directory.done.exists() else "unfinished", ""))
    if not Tree(root).config.exists():
        Tree(root).config.write_text("")
    slurm = SlurmRequest(job_name=request["name"], **{**DEFAULTS, **request.get("slurm", {})})
    source = Source(repository, commit, tree, None, ())
    return Plan(
        request["name"],
        Path("none"),
        "",
        root,
        store,
        source,
        image,
        workshop,
        node,
        "none",
        pin,
        tuple(runs),
        (),
        {},
        1,
        0,
        slurm,
        (),
    )


def main(request):
    if die := request.get("die"):  # planted: the launcher is killed at this point
        plant(die)
    said = []
    try:
        done = submit(plan(request), said.append)
    except LaunchError as error:
        return {"error": int(error.code), "text": str(error), "evidence": error.evidence, "said": said}
    job = done.submission.job if done.submission else None
    return {"job": job, "already": [state.seed for state in done.already], "said": said}


def plant(where):
    """Kill this process for good, before sbatch, after it, or before the release."""
    from launcher import submit as door

    def die(*_arguments, **_keywords):
        os.kill(os.getpid(), 9)

    if where == "before sbatch":
        door.ArrayExecutor._submit_command = die
    elif where == "before the record":
        door.ArrayExecutor._get_job_id_from_submission_command = staticmethod(die)
    elif where == "before the calls":
        door.hand_over = die
    elif where == "before the release":
        door.release = die
    else:
        raise ValueError(where)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
