"""A user's repository with a small environment, and how tests ask the apptainer engine about it."""

import json
import subprocess
from pathlib import Path
from typing import Any

from cluster_ground import REPOSITORY, SUDO
from container_ground import Containers
from test_container_runs import small_lock

DRIVER = Path(__file__).with_name("apptainer_drive.py")
JOB = """
import json, os, signal, sys, time

STOPS = [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT]
got = []
verb, *rest = sys.argv[1:]
if verb == "slow":
    time.sleep(float(rest[0]))
for number in STOPS:
    signal.signal(number, lambda number, frame: got.append(signal.Signals(number).name))
signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
if verb == "exit":
    sys.exit(int(rest[0]))
if verb == "die":
    signal.signal(int(rest[0]), signal.SIG_DFL) if int(rest[0]) != 9 else None
    os.kill(os.getpid(), int(rest[0]))
    time.sleep(60)
if verb == "look":
    import socket
    found = {"env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid(), "path": sys.path, "uid": os.getuid()}
    found["devices"] = os.listdir("/dev")
    found["interfaces"] = [name for _, name in socket.if_nameindex()]
    found["localhost"] = [socket.gethostbyname("localhost"), socket.gethostbyname(socket.gethostname())]
    found["there"] = {name: os.path.exists(name) for name in rest}
    for name in rest:
        try:
            with open(os.path.join(name, "written"), "w") as file:
                file.write("x")
            found["there"][name] = "rw"
        except OSError:
            pass
    found["shm"] = os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize
    print("LOOK" + json.dumps(found))
    sys.exit(0)
print("ready", flush=True)
end = time.monotonic() + float(rest[0])
while not got and time.monotonic() < end:
    time.sleep(0.02)
time.sleep(0.3)
import wave, difflib, xml.dom.minidom, click  # noqa: E401 - from the image, after the signal: it must still be there
print("image", len(os.listdir("/samebits/code")), os.path.isdir("/opt/venv"), got, flush=True)
sys.exit(75 if got else 0)
"""


class Apptainer:
    """The engine, as the cluster's user has it."""

    def __init__(self, cluster: Containers, name: str) -> None:
        self.cluster = cluster
        self.home = cluster.home / name
        self.driver = self.home / "drive.py"
        cluster.write(self.driver, DRIVER.read_text())
        files = {
            f"images/{name}": (REPOSITORY / "images" / name).read_text() for name in ("Dockerfile", "apptainer.def")
        }
        files |= {"requirements.lock": small_lock(), "jobs/__init__.py": "", "jobs/__main__.py": JOB}
        files |= {"bin/tool.sh": "#!/bin/sh\n"}
        self.repository = cluster.project(f"{name}/project", files)
        self.said = ""
        """What it last said aloud."""

    def ask(
        self, verb: str, *, shell: dict[str, str] | None = None, store: str | Path = "one", **more: Any
    ) -> dict[str, Any]:
        """`shell`: variables of the user's, beside what the engine is asked."""
        request = {"verb": verb, "repository": str(self.repository), "store": str(self.store(store)), **more}
        request.setdefault("base", self.cluster.base)
        argv = [self.cluster.bin / "python", "-P", self.driver, json.dumps(request)]
        done = self.cluster.run(argv, env=shell, timeout=400, cwd=self.home)
        self.said = done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def ended(self, pin: dict[str, Any], *arguments: object, **more: Any) -> dict[str, Any]:
        """How one run ends."""
        (only,) = self.ask("go", pin=pin, arguments=list(arguments), **more)["ended"]
        return only

    def store(self, name: str | Path) -> Path:
        return self.home / "stores" / name

    def blob(self, digest: str, store: str | Path = "one") -> Path:
        (found,) = (self.store(store) / "blobs").glob(f"{digest.replace(':', '-')}.s*")
        return found

    def change(self, path: str, text: str) -> str:
        """A commit that changes one file."""
        self.cluster.write(self.repository / path, text)
        return self.cluster.commit(self.repository, path)


def flip(path: Path) -> None:
    """One bit in the middle, and the file as old and as read-only as before. A second time changes it back."""
    script = (
        "import os, sys\np = sys.argv[1]; s = os.stat(p); os.chmod(p, 0o644)\n"
        "f = open(p, 'r+b'); f.seek(s.st_size // 2); b = f.read(1); f.seek(-1, 1); f.write(bytes([b[0] ^ 1])); f.close()\n"
        "os.chmod(p, s.st_mode); os.utime(p, ns=(s.st_atime_ns, s.st_mtime_ns))\n"
    )
    subprocess.run([*SUDO, "python3", "-c", script, str(path)], check=True)
