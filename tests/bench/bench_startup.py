"""How long commands take to start: medians of interleaved rounds, beside a bare interpreter. Run it by hand:

    python tests/bench/bench_startup.py [ROUNDS]

Each round starts every command once, so that a slow minute of the machine slows all of them alike."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = str(Path(sys.executable).with_name("launch"))

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import click'": [sys.executable, "-c", "import click"],
    "launch --help": [LAUNCH, "--help"],
    "launch schema": [LAUNCH, "schema"],
    "launch CONFIG --dry-run": [LAUNCH, "configs/quickstart.yaml", "--dry-run", "--allow-dirty"],
    "launch CONFIG --partition gpu --dry-run": [
        *(LAUNCH, "configs/quickstart.yaml", "--partition", "gpu", "--dry-run", "--allow-dirty")
    ],
}


def seconds(argv: list[str]) -> tuple[float, int]:
    start = time.perf_counter()
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start, done.returncode


def main(rounds: int) -> None:
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    codes: dict[str, int] = {}
    for number in range(rounds + 1):
        for name, argv in COMMANDS.items():
            value, codes[name] = seconds(argv)
            if number:  # the first round only warms the file cache
                taken[name].append(value)
    bare = statistics.median(next(iter(taken.values())))
    print(f"{rounds} rounds; median and range in ms, ratio of medians to a bare interpreter")
    for name, values in taken.items():
        middle = statistics.median(values)
        note = "" if codes[name] == 0 else f"   (exit code {codes[name]})"
        print(
            f"{name:42} {middle * 1000:7.0f}   {min(values) * 1000:.0f}-{max(values) * 1000:.0f}   {middle / bare:.1f}x{note}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
