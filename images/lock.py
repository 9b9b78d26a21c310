"""Write the three locks from pyproject.toml: what a run needs, CUDA's own wheels, what development needs. `make lock`.

Run by the project's own Python. What is locked already stays as it is where it still fits; `--upgrade` takes the newest."""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNTIME, CUDA, DEV = (
    ROOT / "requirements.lock",
    ROOT / "images" / "requirements-cuda.lock",
    ROOT / "requirements-dev.lock",
)
PYTHONS = ("3.11", "3.12", "3.13")
PLATFORM = "x86_64-manylinux_2_28"
HEADS = {
    RUNTIME: """\
# Everything that a run needs, on Python 3.11 to 3.13 of Linux. Written by `make lock` from pyproject.toml.
# torch is installed first and by itself, from whichever build the site offers; what a CUDA build needs beside it is pinned in
# images/requirements-cuda.lock. `make setup` does all that.
""",
    CUDA: "# What a CUDA build of torch needs beside requirements.lock. Written by `make lock` from pyproject.toml.\n",
    DEV: "# What development needs beside requirements.lock. Written by `make lock` from pyproject.toml.\n",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    upgrade = parser.parse_args().upgrade
    with tempfile.TemporaryDirectory() as folder:
        runtime = resolve(Path(folder), [], [RUNTIME, CUDA], upgrade=upgrade)
        pinned = Path(folder) / "pinned.txt"
        pinned.write_text("".join(f"{name}=={version(block)}\n" for name, block in runtime.items()))
        dev = resolve(
            Path(folder), ["--extra", "dev", "--constraints", str(pinned)], [RUNTIME, CUDA, DEV], upgrade=upgrade
        )
    parts = {
        RUNTIME: {name: block for name, block in runtime.items() if not is_cuda(name)},
        CUDA: {name: block for name, block in runtime.items() if is_cuda(name)},
        DEV: {name: block for name, block in dev.items() if name not in runtime},
    }
    for path, blocks in parts.items():
        path.write_text(HEADS[path] + "".join(blocks.values()))
        print(f"{path.relative_to(ROOT)}: {len(blocks)} packages")


def resolve(folder: Path, options: list[str], locks: list[Path], *, upgrade: bool) -> dict[str, str]:
    """Name and block of each package. Exits where the Pythons would need different locks: then one lock is not enough."""
    answers = {python: compile_for(python, folder, options, locks, upgrade=upgrade) for python in PYTHONS}
    first, *others = answers.items()
    for python, blocks in others:
        ours, theirs = pins(first[1]), pins(blocks)
        if ours != theirs:
            differ = sorted(f"{name}=={version}" for name, version in ours.items() ^ theirs.items())
            sys.exit(
                f"Python {first[0]} and {python} need different locks: {', '.join(differ)}. Pin what fits both in pyproject.toml."
            )
    return first[1]


def compile_for(python: str, folder: Path, options: list[str], locks: list[Path], *, upgrade: bool) -> dict[str, str]:
    """One resolution by uv. It starts from the locks that are there, which is why it gets them as its output file."""
    output = folder / f"{python}.txt"
    output.write_text("" if upgrade else "".join(path.read_text() for path in locks if path.exists()))
    argv = [
        "uv",
        "pip",
        "compile",
        "pyproject.toml",
        "--generate-hashes",
        "--no-header",
        "--quiet",
        "--no-emit-index-url",
    ]
    argv += ["--python-version", python, "--python-platform", PLATFORM, "--output-file", str(output), *options]
    program = Path(sys.executable).with_name("uv")
    done = subprocess.run([str(program), *argv[1:]], cwd=ROOT, check=False)
    if done.returncode != 0:
        sys.exit(f"uv could not resolve pyproject.toml for Python {python}.")
    return blocks_of(re.sub(r" +# via.*\n( +#.*\n)*", "", output.read_text()))


def blocks_of(text: str) -> dict[str, str]:
    """Each package's lines: the pin and its hashes."""
    found = re.findall(r"^[A-Za-z0-9].*\n(?:[ \t].*\n)*", text, flags=re.MULTILINE)
    return {block.partition("==")[0].partition("[")[0]: block for block in found}


def version(block: str) -> str:
    return block.partition("==")[2].split()[0]


def pins(blocks: dict[str, str]) -> dict[str, str]:
    return {name: version(block) for name, block in blocks.items()}


def is_cuda(name: str) -> bool:
    """Wheels of CUDA itself; nvidia-ml-py is a client of the driver, and runs without."""
    return name != "nvidia-ml-py" and (name.startswith(("nvidia-", "cuda-")) or name == "triton")


if __name__ == "__main__":
    main()
