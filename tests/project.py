"""A user's project in a real git repository, and the real command in it."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from jobs.rundir import Tree

ROOT = Path(__file__).parents[1]
LAUNCH = Path(sys.executable).with_name("launch")

CONFIG = """\
name: tiny
seeds: [0, 1]
model:
  architecture: {type: gpt2, settings: {n_layer: 1, n_head: 1, n_embd: 8, n_positions: 32}}
lora: {r: 2, alpha: 4, target_modules: [c_attn]}
data:
  max_length: 16
  files:
    train: {path: data/rows.jsonl, sha256: HASH}
    validation: {path: data/rows.jsonl, sha256: HASH}
training:
  epochs: 1
  batch_size: 2
  optimizer: {lr: 1e-3}
"""
ROWS = '{"prompt": "1+1=", "completion": "2"}\n{"prompt": "1+2=", "completion": "3"}\n'


@dataclass(frozen=True)
class Project:
    """A committed project of a user, and how to launch in it."""

    folder: Path
    config: Path

    @property
    def home(self) -> Path:
        """A home of its own, and so a store of its own."""
        return self.folder.parent / "home"

    @property
    def store(self) -> Path:
        return self.home / ".local" / "share" / "samebits"

    @property
    def tree(self) -> Tree:
        return Tree(self.folder / "experiments" / "tiny")

    def start(self, *arguments: str, **env: str) -> "subprocess.Popen[str]":
        """The command, running."""
        return subprocess.Popen(
            [str(LAUNCH), *arguments],
            cwd=self.folder,
            env={**os.environ, "HOME": str(self.home), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
        )

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", *who, *arguments], cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout

    def edit(self, old: str, new: str, *, commit: bool = True) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))
        if commit:
            self.git("commit", "-qam", "edit")

    def launch(
        self, *arguments: str, cwd: Path | None = None, timeout: float = 120, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(LAUNCH), *arguments],
            cwd=cwd or self.folder,
            env={**os.environ, "HOME": str(self.home), **env},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def files(self) -> dict[str, bytes]:
        """Everything but git's own files: what a refusal must leave as it was."""
        found = (p for p in self.folder.rglob("*") if p.is_file() and ".git" not in p.relative_to(self.folder).parts)
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in found if os.access(p, os.R_OK)}


def make_project(folder: Path, *, job: str | None = None) -> Project:
    """A small project, committed; with `job`, its own jobs/__main__.py instead of the installed one."""
    (folder / "configs").mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "data" / "rows.jsonl").write_text(ROWS)
    config = folder / "configs" / "x.yaml"
    config.write_text(CONFIG.replace("HASH", hashlib.sha256(ROWS.encode()).hexdigest()))
    shutil.copy(ROOT / "requirements.lock", folder)
    (folder / ".gitignore").write_text("/experiments/\n")
    if job is not None:
        (folder / "jobs").mkdir()
        (folder / "jobs" / "__init__.py").touch()
        (folder / "jobs" / "__main__.py").write_text(job)
    made = Project(folder, config)
    made.home.mkdir(parents=True)
    made.git("init", "-q")
    made.git("add", "-A")
    made.git("commit", "-qm", "first")
    return made


JOB = """\
\"\"\"A run that honours the contract without torch: counts steps, saves on a signal, goes on from there.\"\"\"

import json
import os
import pathlib
import signal
import sys
import time

asked = []
for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
    signal.signal(number, lambda got, frame: asked.append(got))
signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT))
specification = pathlib.Path(sys.argv[1])
seed, root = specification.parent.name, specification.parents[2]
saved = root / "checkpoints" / seed / "step"
ledger = root / "metrics" / seed / "ledger.jsonl"
step = int(saved.read_text()) if saved.exists() else 0
print("from step", step, __file__, flush=True)
if os.environ.get("HF_ENDPOINT") == "break":
    sys.exit("broken on request")
while step < STEPS:
    if asked:
        saved.write_text(str(step))
        print("saved", step, flush=True)
        sys.exit(75)
    time.sleep(0.02)
    step += 1
    with ledger.open("a") as file:
        file.write(json.dumps({"step": step}) + chr(10))
result = {"step": step, "val_loss": 0.5, "accuracy": 0.75, "val_loss_before": 2.0, "accuracy_before": 0.0}
(specification.parent / "done.json").write_text(json.dumps(result))
"""


def snapshot(folder: Path) -> Project:
    """This project as it is in the work tree, committed in a repository of its own: what a user's clone would be."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in names:
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    made = Project(folder, folder / "configs" / "quickstart.yaml")
    made.home.mkdir(parents=True, exist_ok=True)
    made.git("init", "-q")
    made.git("add", "-A")
    made.git("commit", "-qm", "snapshot")
    return made
