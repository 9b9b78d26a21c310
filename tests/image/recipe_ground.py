"""A recipe with one thing in it, and what is said of that."""

from launcher.errors import Problem
from launcher.image import recipes

DIGEST = "sha256:" + "0123456789abcdef" * 4
BASE = f"docker.io/library/python@{DIGEST}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HASH = " \\\n    --hash=sha256:" + "ab" * 32
LOCK = f"click==8.5.1{HASH}\nnumpy==2.4.6{HASH}\ntorch==2.13.0{HASH}\n"
CUDA = f"nvidia-cudnn-cu13==9.1{HASH}\n"
LOCKS = ["requirements.lock", "images/requirements-cuda.lock"]


def judged(build: str, text: str, base: str | None = None, **files: str) -> tuple[str, list[Problem]]:
    """`files`: their names, `.` written as `__`, and texts."""
    path = "images/Dockerfile" if build == "dockerfile" else "images/apptainer.def"
    others = {name.replace("__", "."): other for name, other in files.items()}
    texts = {path: text, LOCKS[0]: LOCK, LOCKS[1]: CUDA, **others}
    return recipes.check(build, path, {name: one.encode() for name, one in texts.items()}, base, locks=LOCKS)


def docker(text: str, base: str | None = None, **files: str) -> list[str]:
    """What is said of a whole Dockerfile, `line: what`."""
    return said(judged("dockerfile", text, base, **files)[1])


def run(script: str, **files: str) -> list[str]:
    """What is said of `RUN script`; the RUN stands on line 2."""
    return docker(f"FROM {BASE}\nRUN {script}\n", **files)


def definition(text: str, base: str | None = None, **files: str) -> list[str]:
    return said(judged("definition", text, base, **files)[1])


def said(problems: list[Problem]) -> list[str]:
    assert all(problem.hint or "instruction" in problem.what or "section" in problem.what for problem in problems)
    return [f"{problem.where.rpartition('/')[2]}: {problem.what}" for problem in problems]
