"""The keeper of a container: signals, exit codes, limits, and that nothing outlives it."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cluster_ground import SUDO, until

from launcher.allocation import Allocation
from launcher.engines import NodeOptions, docker_run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
DRIVER = Path(__file__).with_name("docker_drive.py")
IMAGE = """\
FROM {base}
RUN ln -s /usr/bin/python3 /usr/local/bin/python && mkdir -p /samebits/code
ENV NVIDIA_VISIBLE_DEVICES=all
"""
LISTENS = """
import os, signal, sys, time
got = []
for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
    signal.signal(number, lambda number, frame: got.append(number))
print("here", flush=True)
time.sleep(float(sys.argv[1]) if len(sys.argv) > 1 else 0)
signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT))
print("ready", flush=True)
while not got:
    time.sleep(0.01)
for _ in range(SAVING):
    time.sleep(0.1)
print("saved after", signal.Signals(got[0]).name, flush=True)
os._exit(75)
""".replace("SAVING", "{saving}")
RUN = "keeper-test"


class Keepers:
    def __init__(self, cluster):
        self.cluster = cluster
        self.driver = cluster.home / "keeper" / "drive.py"
        cluster.write(self.driver, DRIVER.read_text())
        cluster.write(self.driver.parent / "Dockerfile", IMAGE.format(base=cluster.base))
        self.image = cluster.docker("build", "--quiet", self.driver.parent).stdout.strip()

    def argv(self, **request):
        return [self.cluster.bin / "python", "-P", self.driver, json.dumps(request)]

    def popen(self, code, allocation=None, run=RUN, **more):
        pin = {"engine": "docker", "environment": "", "code": "", "python": "", "layer": self.image}
        argv = self.argv(start=pin, run=run, code=code, allocation=allocation or {}, **more)
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = self.cluster.popen(argv, cwd=self.cluster.home, **pipes)
        assert process.stdout.readline() == "begins\n"
        return process

    def run(self, code, allocation=None, **more):
        """Exit code, negative for a signal, and all that was said."""
        process = self.popen(code, allocation, **more)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def ready(self, process):
        said = ""
        while "ready" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line

    def left(self, run=RUN):
        return self.cluster.leftovers(run)


@pytest.fixture(scope="module")
def keepers(_session_containers):
    return Keepers(_session_containers)


@pytest.fixture(autouse=True)
def _nothing_stays(_session_containers):
    yield
    _session_containers.clear_containers()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('said')", 0),
        ("raise SystemExit(1)", 1),
        ("raise SystemExit(75)", 75),
        ("raise SystemExit(78)", 78),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 11)", -11),
        ("import os, signal; signal.pthread_sigmask(1, [15]); os.kill(os.getpid(), 15)", -15),
    ],
)
def test_keeper_ends_as_the_run_does(keepers, code, expected):
    assert keepers.run(code)[0] == expected
    assert keepers.left() == []


def test_keeper_passes_all_output_on(keepers):
    code, said = keepers.run("import sys; print('x' * 300000); sys.stderr.write('y' * 100000); print('end')")
    assert code == 0
    assert said.count("x") == 300000
    assert said.count("y") == 100000
    assert "end" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_keeper_brings_a_signal_to_the_run(keepers, number):
    process = keepers.popen(LISTENS.format(saving=0))
    keepers.ready(process)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (75, f"saved after {number.name}\n")


def test_keeper_loses_no_signal_whenever_it_comes(keepers):
    """From before there is a container, through the start of Python in it, up to a run that listens at last."""
    for moment in range(8):
        process = keepers.popen(LISTENS.format(saving=0))
        time.sleep(moment * 0.15)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 75, (moment, said)
        assert "saved after SIGTERM" in said or "stopped before the run began" in said
    assert keepers.left() == []


def test_keeper_waits_for_a_run_that_saves_however_often_it_is_told_to_stop(keepers):
    """Slurm says it many times over, and to every process of a step."""
    process = keepers.popen(LISTENS.format(saving=20))
    keepers.ready(process)
    for _ in range(10):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (75, "saved after SIGTERM\n")


def test_keeper_takes_the_container_with_it_whenever_it_is_killed(keepers):
    for moment in range(10):
        process = keepers.popen("import time; time.sleep(600)")
        time.sleep(moment * 0.1)
        process.kill()
        process.communicate(timeout=60)
        # Between the order and its answer a container can be left that never ran: the next start, or the arbiter, cleans.
        never = [line for line in keepers.left() if re.search(r"^container \S+ Created", line)]
        if never:
            keepers.cluster.run(keepers.argv(clean=RUN), cwd=keepers.cluster.home)
        until(lambda: keepers.left() == [], f"nothing is left after {moment}", 10)


def test_keeper_kills_what_a_run_left_running(keepers):
    code = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True); print('gone')"
    assert keepers.run(code) == (0, "gone\n")
    assert keepers.left() == []
    assert not subprocess.run(["pgrep", "-x", "-f", "sleep 600"], capture_output=True, check=False).stdout


def test_keeper_holds_the_container_to_the_memory_of_the_job(keepers):
    hog = "x = bytearray(300 << 20)\nx[::4096] = b'a' * len(x[::4096])\nprint('has it')"
    code, said = keepers.run(hog, {"memory_bytes": 100 << 20})
    assert code == -9
    assert "limit of its memory" in said
    assert keepers.run(hog, {"memory_bytes": 600 << 20}) == (0, "has it\n")
    shared = "f = open('/dev/shm/x', 'wb'); f.write(bytes(120 << 20)); f.flush(); print('has it')"
    assert keepers.run(shared, {"memory_bytes": 300 << 20}) == (0, "has it\n")


def test_keeper_gives_the_cpus_of_the_job(keepers):
    code = "import os; print(sorted(os.sched_getaffinity(0)))"
    assert keepers.run(code, {"cpus": 1, "cpu_set": [1]}) == (0, "[1]\n")
    quota = (
        "from pathlib import Path\n"
        "two, one = Path('/sys/fs/cgroup/cpu.max'), Path('/sys/fs/cgroup/cpu/cpu.cfs_quota_us')\n"
        "print((two if two.exists() else one).read_text().split()[0])"
    )
    assert keepers.run(quota, {"cpus": 1}) == (0, "100000\n")
    assert keepers.run("print(1)", {"cpus": 4096}) == (0, "1\n")  # more than there are: all of them


def test_keeper_gives_the_gpus_of_the_job_and_no_others(keepers):
    code = (
        "import glob, os\n"
        f"print(sorted(glob.glob('{keepers.cluster.root}/dev/*') + glob.glob('/dev/nvidia*')))\n"
        "print([os.environ.get(name) for name in ('CUDA_VISIBLE_DEVICES', 'NVIDIA_VISIBLE_DEVICES')])"
    )
    devices = keepers.cluster.root / "dev"
    there = sorted(str(path) for path in devices.glob("nvidia[0-9]"))
    assert len(there) > 1
    assert keepers.run(code, {"gpus": ["1"]}) == (0, f"['{devices}/nvidia1']\n['0', 'all']\n")
    assert keepers.run(code, {"gpus": []}) == (0, "[]\n['', 'void']\n")
    assert keepers.run(code, {"gpus": None})[1].splitlines()[0] == str(there)


def test_keeper_shows_the_run_what_is_its_own_and_nobody_its_keys(keepers):
    look = (
        "import os, socket, sys, time\n"
        "print(os.environ['KEY'], os.getcwd(), os.getuid(), os.listdir('/sys/class/net'), os.environ['HOME'])\n"
        "for path in ('/x', '/samebits/code/x'):\n"
        "    try:\n        open(path, 'w')\n    except OSError as error:\n        print(error.strerror)\n"
        "open('/tmp/x', 'w')\n"
        "print(open('/proc/self/status').read().partition('CapEff:')[2].split()[0], flush=True)\n"
        "print('ready', flush=True)\ntime.sleep(600)"
    )
    process = keepers.popen(look, env={"KEY": "planted-key"})
    lines = []
    while "ready\n" not in lines:
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    uid = keepers.cluster.run(["id", "-u"]).stdout.strip()
    assert lines[0] == f"planted-key /samebits/code {uid} ['lo'] /tmp\n"
    assert lines[1:3] == ["Read-only file system\n"] * 2
    assert int(lines[3], 16) == 0
    shown = subprocess.run([*SUDO, "ps", "axww", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert sum(RUN in line for line in shown.splitlines()) >= 1
    # The driver's own request held it, and is gone: what became of it is the keeper.
    assert "planted-key" not in shown
    process.kill()
    process.communicate(timeout=60)
    until(lambda: keepers.left() == [], "nothing is left", 10)


def test_keeper_says_what_the_engine_refused(keepers):
    code, said = keepers.run("print(1)", mounts={"/nowhere/data": "ro"})
    assert code == 79
    assert "refused here" in said
    assert "/nowhere/data" in said
    assert keepers.left() == []


def test_keeper_mounts_as_it_is_told(keepers):
    folder = keepers.cluster.home / 'mounts, "odd"'
    for name in ("read", "write"):
        keepers.cluster.write(folder / name / "x", "there")
    code = (
        f"from pathlib import Path; folder = Path({str(folder)!r})\n"
        "print((folder / 'read' / 'x').read_text())\n(folder / 'write' / 'y').write_text('made')\n"
        "(folder / 'read' / 'y').write_text('made')"
    )
    code, said = keepers.run(code, mounts={str(folder / "read"): "ro", str(folder / "write"): "rw"})
    assert code == 1
    assert said.startswith("there\n")
    assert "Read-only" in said
    assert keepers.cluster.run(["cat", folder / "write" / "y"], cwd=keepers.cluster.home).stdout == "made"


def test_clean_removes_what_nobody_holds(keepers):
    """Not a container whose keeper lives: a later job's arbiter may ask while an earlier one is still being ended."""
    process = keepers.popen("print('ready', flush=True)\nimport time\ntime.sleep(600)")
    keepers.ready(process)
    argv = [
        "create",
        "--label",
        f"{docker_run.RUN_LABEL}={RUN}",
        "--label",
        "samebits.keeper=1.1",
        keepers.image,
        "true",
    ]
    keepers.cluster.docker(*argv)
    keepers.cluster.docker("create", "--label", f"{docker_run.RUN_LABEL}={RUN}", keepers.image, "true")
    keepers.cluster.run(keepers.argv(clean=RUN), cwd=keepers.cluster.home)
    assert len(keepers.cluster.docker("ps", "--all", "--quiet").stdout.split()) == 1
    assert process.poll() is None
    process.kill()
    process.communicate(timeout=60)
    until(lambda: keepers.left() == [], "nothing is left", 10)


def test_what_docker_is_asked_for_gpus(monkeypatch, tmp_path):
    there = tmp_path / "nvidiactl"
    monkeypatch.setattr(docker_run, "NVIDIA", there)
    capabilities = [["gpu", "compute", "utility"]]

    def asked(gpus, kind):
        return docker_run._gpus(Allocation(gpus=gpus), NodeOptions(tmp_path, gpus=kind))[1]

    for kind in ("nvidia", "cdi"):
        assert asked((), kind) is None
        assert asked(None, kind) is None
    there.touch()
    assert asked(None, "nvidia") == {"count": -1, "capabilities": capabilities}
    assert asked(("2", "GPU-5"), "nvidia") == {"device_ids": ["2", "GPU-5"], "capabilities": capabilities}
    assert asked(("2",), "cdi") == {"driver": "cdi", "device_ids": ["nvidia.com/gpu=2"]}
    assert asked(None, "cdi") == {"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"]}
    # In the container they count from 0.
    seen = docker_run._seen(Allocation(gpus=("2", "3")), asked(("2", "3"), "nvidia"))
    assert seen == {"CUDA_VISIBLE_DEVICES": "0,1"}
