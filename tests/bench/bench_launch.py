"""From `launch` to the job id when a commit touches code alone: the host engine, Docker and Apptainer in turn, all of them warm.

    make cluster CONTAINERS=1
    slurm/testcluster run -- python tests/bench/bench_launch.py [ROUNDS]

Each launch is of a new commit and a new experiment: export, layer, push, tree and sbatch are all in it. The first round makes the
environments, minutes each, and is left out."""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = str(Path(sys.executable).with_name("launch"))
SUBMITTED = re.compile(r"^Submitted \S+ as job (\d+)", re.MULTILINE)


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True)


def config(text: str, engine: str, base: str, name: str) -> str:
    image = f"image:\n  engine: {engine}\n" + ("" if engine == "host" else f"  base: {base}\n")
    made, count = re.subn(r"^image:\n(?:  .*\n)+", f"{image}  lock: requirements.lock\n", text, flags=re.MULTILINE)
    if count != 1:
        sys.exit("configs/quickstart.yaml has no section image any more")
    return made.replace("name: quickstart", f"name: {name}", 1)


def launch(folder: Path, engine: str) -> tuple[float, str]:
    """Seconds from the start of the command to the line with the job's id, and that id."""
    argv = [LAUNCH, f"configs/{engine}.yaml", "--partition", "gpu"]
    began = time.perf_counter()
    with subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        said = ""
        for line in process.stdout or ():
            said += line
            if found := SUBMITTED.search(line):
                return time.perf_counter() - began, found[1]
    sys.exit(f"{engine}: launch submitted nothing\n{said}")


def main(rounds: int) -> None:
    base = os.environ.get("SAMEBITS_TEST_BASE")
    if base is None:
        print(
            'left out, there is no cluster with containers: make cluster CONTAINERS=1; eval "$(slurm/testcluster env)"'
        )
        return
    engines = ("host", "docker", "apptainer")
    taken: dict[str, list[float]] = {engine: [] for engine in engines}
    with tempfile.TemporaryDirectory(prefix="samebits-bench-", dir=Path.home()) as scratch:
        folder = Path(scratch, "project")
        git(ROOT, "clone", "--quiet", str(ROOT), str(folder))
        quickstart = (folder / "configs" / "quickstart.yaml").read_text()
        for number in range(rounds + 1):
            for engine in engines:
                (folder / "configs" / f"{engine}.yaml").write_text(
                    config(quickstart, engine, base, f"bench-{engine}-{number}")
                )
                (folder / "jobs" / "bench.txt").write_text(f"{time.time()}\n")  # code of a commit that nobody has seen
                git(folder, "add", "-A")
                git(folder, "commit", "-qm", "bench")
                seconds, job = launch(folder, engine)
                subprocess.run(["scancel", job], check=True)
                if number:  # the first round makes what the others find
                    taken[engine].append(seconds)
    host = statistics.median(taken["host"])
    print(f"{rounds} rounds; from `launch` to the job id, a commit of code alone: median and range in s, ratio to host")
    for engine, values in taken.items():
        middle = statistics.median(values)
        print(f"  {engine:10} {middle:6.2f}   {min(values):.2f}-{max(values):.2f}   {middle / host:.2f}x")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
