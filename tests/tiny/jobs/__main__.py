"""`python -m jobs RUN`: counts steps, saves when asked, goes on where it stopped. The recipe says what it does besides."""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(path):  # noqa: C901 - one story, told in one place
    specification = json.loads(path.read_text())
    recipe, seed = specification["recipe"], specification["seed"]
    root = path.parent.parent.parent
    folder = {part: root / part / f"seed-{seed}" for part in ("checkpoints", "logs", "metrics", "artifacts")}
    for each in folder.values():
        each.mkdir(parents=True, exist_ok=True)
    attempt = int(os.environ["SAMEBITS_ATTEMPT"])
    asked = []
    stops = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    if recipe.get("only_term"):
        stops = (signal.SIGTERM,)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    for number in stops:
        signal.signal(number, lambda number, _: asked.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGUSR2, signal.SIGINT})

    def event(name, **fields):
        line = json.dumps({"event": name, "attempt": attempt, "time": stamp(), **fields})
        with (folder["logs"] / "events.jsonl").open("a") as file:
            file.write(line + "\n")

    # before its first step, as a run is that its node does not suit, or that its node breaks
    if attempt <= recipe.get("unfit_attempts", 0):
        return 79
    if attempt in recipe.get("break_attempts", ()):
        return 1
    exec(recipe.get("code", ""), {"folder": folder})  # noqa: S102 - what a test wants to see from within
    checkpoint = folder["checkpoints"] / "tiny.json"
    step = json.loads(checkpoint.read_text())["step"] if checkpoint.exists() else 0
    event("resumed", step=step, checkpoint=checkpoint.name if step else None, skipped=[], lost_steps=0)
    print(f"attempt {attempt} goes on from step {step} on {os.environ.get('SLURMD_NODENAME')}", flush=True)
    # with finishes_at, earlier attempts never end by themselves: a test need not guess how fast the machine is
    finishes_at = recipe.get("finishes_at")
    last = (
        recipe["steps"] if finishes_at is None else step + recipe["steps"] if attempt >= finishes_at else float("inf")
    )
    while step < last:
        if asked:
            publish(checkpoint, {"step": step})
            gate = recipe.get("saving_until")
            while gate and not Path(gate).exists():
                time.sleep(0.05)
            if (
                attempt == 1 and (ends := recipe.get("ends_when_asked")) is not None
            ):  # not by saving, but as it may end anyhow
                if ends == 0:
                    break
                return ends
            event("saved", step=step, checkpoint=checkpoint.name, seconds=0.0)
            print(f"saved at step {step}", flush=True)
            return 75
        if code := blow(recipe, step, newer=folder["logs"] / f"attempt-{attempt + 1}.log"):
            return code
        time.sleep(recipe["seconds"])
        if recipe.get("idle"):
            continue
        step += 1
        with (folder["metrics"] / "ledger.jsonl").open("a") as file:
            file.write(json.dumps({"step": step}) + "\n")
        with (folder["metrics"] / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"kind": "step", "step": step, "epoch": 1, "val_loss": 1 / step}) + "\n")
    publish(folder["artifacts"] / "done.json", {"step": step, "epoch": 1, "val_loss": 1 / step, "accuracy": 0.5})
    print(f"done at step {step}", flush=True)
    return 0


def blow(recipe, step, newer):
    """What is to happen at this step; the exit code where it is the end: that of the fence once `newer` exists."""
    if newer.exists():
        return 76
    if step == recipe.get("crash_at"):
        raise RuntimeError("crashed as it was told to")
    if step == recipe.get("kill_at"):
        os.kill(os.getpid(), signal.SIGKILL)
    if step == recipe.get("swallow_at"):
        bytearray(1 << 30)
    return 78 if step == recipe.get("refuse_at") else None


def publish(path, value):
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def stamp():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


if __name__ == "__main__":
    code = 1
    try:
        code = main(Path(sys.argv[1]))
    finally:
        # Python gives signals back their deadly default before it is gone; the task passes on what the step got, a moment later
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2, signal.SIGINT})
    sys.exit(code)
