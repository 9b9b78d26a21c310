"""What conda says of the environment that this process runs in (R13). The one place where a run starts another program."""

import os
import shutil
import subprocess


def export_history() -> tuple[str | None, str | None]:
    """`conda env export --from-history` and None, or None and the reason why there is none."""
    prefix = os.environ.get("CONDA_PREFIX")
    if not prefix:
        return None, "CONDA_PREFIX is not set"
    program = os.environ.get("CONDA_EXE") or shutil.which("conda")
    if program is None:
        return None, "CONDA_PREFIX is set, but there is no conda on PATH"
    argv = [program, "env", "export", "--from-history", "--prefix", prefix]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"conda: {error}"
    if done.returncode != 0:
        return None, f"conda ended with {done.returncode}: {' '.join(done.stderr.split())[-200:]}"
    return without_variables(done.stdout), None


def without_variables(text: str) -> str:
    """The export without its `variables`: conda lists the environment's own variables there, keys to services among them."""
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if not line.startswith((" ", "\t")):
            inside = line.startswith("variables:")
        if not inside:
            kept.append(line)
    return "".join(kept)
