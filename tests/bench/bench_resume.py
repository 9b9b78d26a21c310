"""How long a preemption takes: from the signal to the saved checkpoint, and from the start to the first new step. Run it by hand:

    python tests/bench/bench_resume.py [ROUNDS]

The real program, started, asked to stop at its second new step, started again; beside it, in turn, what of a start is imports."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measured import LORA, NUMERICS, ROOT, pinned, table, tree

IMPORTS = (
    "import jobs.run, torch.utils.data, transformers, peft, torch.utils.tensorboard\n"
    "from transformers import AutoModelForCausalLM, GPT2LMHeadModel\n"
)
SETTINGS = {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_positions": 64}
"""Small, and steps of some ten milliseconds: what is measured is the way there."""


def make_run(folder: Path) -> Path:
    """A run that takes far longer than it is given; returns its run.json."""
    from content_samples import builtin, recipe, specification

    asked = recipe(
        model={"architecture": {"type": "gpt2", "settings": SETTINGS}},
        lora=LORA,
        data={"builtin": builtin(3, 6000, 50).model_dump(), "max_length": 16},
        training={"epochs": 50, "batch_size": 8, "accumulation": 2, "optimizer": {"name": "adamw", "lr": 1e-4}},
        numerics={"device": "cpu", **NUMERICS},
        tracking={"tensorboard": True},
    )
    path = folder / "sample" / "artifacts" / "seed-3" / "run.json"
    path.parent.mkdir(parents=True)
    sections = json.loads(specification().model_dump_json())
    path.write_text(json.dumps({**sections, "recipe": json.loads(asked.model_dump_json())}))
    return path


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def attempt(path: Path) -> tuple[float, float, float]:
    """Seconds from the start to the first new step, from the signal to the saved checkpoint, and from there to the exit."""
    metrics, events = (path.parents[2] / place for place in ("metrics/seed-3/ledger.jsonl", "logs/seed-3/events.jsonl"))
    before, begun = lines(metrics), time.perf_counter()
    log = path.parent / "log"
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, "-m", "jobs", path], cwd=ROOT, stdout=output, stderr=output)
    while lines(metrics) <= before and process.poll() is None:
        time.sleep(0.002)
    first = time.perf_counter() - begun
    while lines(metrics) <= before + 1 and process.poll() is None:
        time.sleep(0.002)
    if process.poll() is not None:
        sys.exit(f"the run ended by itself:\n{log.read_text()}")
    os.kill(process.pid, signal.SIGTERM)
    asked = time.perf_counter()
    if process.wait(timeout=60) != 75:
        sys.exit(f"the run did not save:\n{log.read_text()}")
    left = time.perf_counter() - asked
    saved = [json.loads(line) for line in events.read_text().splitlines()][-1]["seconds"]
    return first, saved, left - saved


def imports() -> float:
    """Seconds until they are done; the clock is one for all processes."""
    command = [sys.executable, "-c", f"{IMPORTS}import time; print(time.perf_counter())"]
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1]) - begun


def main(rounds: int) -> None:
    names = "start to first new step", "imports alone", "signal to saved", "saved to exit"
    taken: dict[str, list[float]] = {name: [] for name in names}
    with tree() as folder:
        path, end = make_run(folder), time.monotonic() + 45
        attempt(path)  # begins, and warms the file cache
        for _ in range(rounds):
            first, saved, left = attempt(path)
            for name, value in zip(names, (first, imports(), saved, left), strict=True):
                taken[name].append(value)
            if time.monotonic() > end:
                break
    table("A preemption of a small run", taken, names[0])
    share = statistics.median(taken[names[1]]) / statistics.median(taken[names[0]])
    print(f"  share of the start that is imports: {share:.0%}")


if __name__ == "__main__":
    pinned()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
