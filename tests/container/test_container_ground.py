"""The ground of the tests in containers: engine, registry and Apptainer are real, and work within jobs of an ordinary user."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from cluster_ground import REPOSITORY, SUDO, call, stop_cluster, until
from container_ground import start_containers

pytestmark = pytest.mark.cluster

RECORD = """
import os, signal, time
def stop(number, frame):
    os.write(1, f"got {signal.Signals(number).name}\\n".encode())
    os._exit(75)  # at once: a step gets a signal several times
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, stop)
print("ready", os.getuid(), flush=True)
while True:
    time.sleep(0.05)
"""
"""A program that says which signal it got and ends with 75."""


SHIELD = '#!/bin/sh\ntrap "" HUP INT TERM USR1 USR2\nexec /usr/bin/squashfuse_ll "$@"\n'
"""Where users mount a SIF themselves, a process of theirs serves its files. A step's signal reaches that one, too: it ends, and the
program dies of a bus error as soon as it needs a page of a file. Apptainer gives it no blocked or ignored signals, but it looks for
it on PATH, so that it can be started through this; it ends when the mount does."""


@pytest.fixture(scope="module")
def folder(_session_containers):
    """Code for a container, and the same as a squashfs."""
    cluster = _session_containers
    where = cluster.home / "layer"
    cluster.write(where / "code" / "record.py", RECORD)
    make = [
        "mksquashfs",
        "code",
        "code.sqfs",
        "-quiet",
        "-no-progress",
        "-all-root",
        "-mkfs-time",
        "0",
        "-all-time",
        "0",
    ]
    cluster.run(make, cwd=where)
    cluster.write(where / "shield" / "squashfuse_ll", SHIELD)
    cluster.run(["chmod", "+x", where / "shield" / "squashfuse_ll"])
    return where


@pytest.fixture
def start(cluster, folder, base_sif):
    """How each engine starts `python3 ARGUMENTS` with the code at /src, for a line of bash."""
    user = cluster.run(["id", "-u"]).stdout.strip()
    return {
        "docker": f"docker run --rm --init --network none --user {user} -v {folder}/code:/src:ro {cluster.base} python3 ",
        "apptainer": f"env PATH={folder}/shield:$PATH apptainer --silent exec --cleanenv --contain --no-home"
        f" --bind {folder}/code.sqfs:/src:image-src=/ {base_sif} python3 ",
    }


def profile(cluster, section):
    return yaml.safe_load(cluster.site.read_text())[section]


def test_an_image_is_built_pushed_and_pulled_by_digest_on_a_node(cluster):
    where, tag = cluster.home / "build", f"{cluster.registry}/samebits/hello:1"
    cluster.write(where / "Dockerfile", f"FROM {cluster.base}\nCOPY word /word\n")
    cluster.write(where / "word", "built here")
    cluster.docker("build", "--quiet", "--tag", tag, where)
    cluster.docker("push", "--quiet", tag)
    (pinned,) = json.loads(cluster.docker("inspect", tag).stdout)[0]["RepoDigests"]
    assert re.fullmatch(rf"{cluster.registry}/samebits/hello@sha256:[0-9a-f]{{64}}", pinned)
    cluster.docker("rmi", "--force", json.loads(cluster.docker("inspect", tag).stdout)[0]["Id"])
    assert cluster.docker("inspect", pinned, check=False).returncode != 0
    said = cluster.in_job(f"docker pull --quiet {pinned} && docker run --rm {pinned} cat /word && id -un")
    assert said.split("\n") == [pinned, f"built here{cluster.user}", ""]


def test_what_a_registry_keeps_is_checked_when_it_is_pulled(cluster):
    """A byte that somebody changed in a blob: the pull by digest fails, whoever asks."""
    where, tag = cluster.home / "torn", f"{cluster.registry}/samebits/torn:1"
    cluster.write(where / "Dockerfile", f"FROM {cluster.base}\nCOPY word /word\n")
    cluster.write(where / "word", "to be torn")
    cluster.docker("build", "--quiet", "--tag", tag, where)
    cluster.docker("push", "--quiet", tag)
    (pinned,) = json.loads(cluster.docker("inspect", tag).stdout)[0]["RepoDigests"]
    cluster.docker("rmi", "--force", json.loads(cluster.docker("inspect", tag).stdout)[0]["Id"])
    sha256 = pinned.rpartition(":")[2]
    blob = cluster.images / "blobs" / "sha256" / sha256[:2] / sha256 / "data"
    subprocess.run([*SUDO, "sed", "-i", "s/layers/Layers/", str(blob)], check=True)
    done = cluster.docker("pull", pinned, check=False)
    assert done.returncode != 0
    assert "Digest" in done.stderr or "digest" in done.stderr or "manifest" in done.stderr


def test_a_build_reaches_the_package_index_with_the_sites_certificates(cluster):
    """And nothing of how it did is in the image."""
    build = profile(cluster, "build")
    where = cluster.home / "index"
    given = "--mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca.pem"
    install = "python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir --no-deps packaging==25.0"
    cluster.write(where / "Dockerfile", f"FROM {cluster.base}\nRUN {given} {install}\n")
    conf = ["[global]", *(["cert = /run/secrets/ca.pem"] if "ca_bundle" in build else [])]
    conf += [f"index-url = {build['index_url']}"] if "index_url" in build else []
    conf += [f"find-links = {' '.join(build['find_links'])}"] if "find_links" in build else []
    cluster.write(where / "pip.conf", "\n".join(conf) + "\n")
    secrets = ["--secret", f"id=pip,src={where}/pip.conf"]
    secrets += ["--secret", f"id=ca,src={build.get('ca_bundle', where / 'pip.conf')}"]
    argv = ["build", "--quiet", "--network", build["network"], *secrets, "--tag", "index:1", where]
    cluster.docker(*argv, env={"DOCKER_BUILDKIT": "1"}, timeout=300)
    look = (
        "cat /etc/pip.conf; ls /run/secrets; /opt/venv/bin/python -c 'import packaging; print(packaging.__version__)'"
    )
    shown = cluster.docker("run", "--rm", "index:1", "sh", "-c", look)
    assert "cert" not in shown.stdout
    assert shown.stdout.split()[-1] == "25.0"
    assert "ca.pem" not in shown.stdout


def test_folders_of_wheels_that_pip_uses_here_can_be_seen_by_a_build(cluster):
    """Where pip is told of none, nothing is served."""
    served = sorted((cluster.root / "run" / "wheels").glob("*"))
    urls = [url for url in profile(cluster, "build").get("find_links", []) if "//127.0.0.1:" in url]
    assert len(urls) == len(served)
    assert (cluster.root / "run" / "wheels.pid").exists() == bool(served)
    for url, folder in zip(urls, served, strict=True):
        fetch = f"import urllib.request; print(urllib.request.urlopen({url!r}).read().decode())"
        page = cluster.docker("run", "--rm", "--network", "host", cluster.base, "python3", "-c", fetch).stdout
        assert set(re.findall(r">([^<]+\.whl)<", page)) == {wheel.name for wheel in folder.glob("*.whl")}


def test_what_pip_is_told_is_found_wherever_it_stands(tmp_path):
    (tmp_path / "wheels").mkdir()
    conf = tmp_path / "pip.conf"
    links = f"{tmp_path}/wheels {tmp_path}/absent https://example.org/wheels/"
    conf.write_text(f"[global]\nfind-links = {links}\nindex-url = https://example.org/a/\n[install]\ncert = {conf}\n")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PIP_CONFIG_FILE": str(conf)}
    shown = settings({**environment, "PIP_INDEX_URL": "https://example.org/b/", "https_proxy": "http://example.org:1"})
    assert shown == {
        "ca_bundle": str(conf),
        "index_url": "https://example.org/b/",
        "extra_index_urls": [],
        "links": ["https://example.org/wheels/"],
        "folders": [f"{tmp_path}/wheels"],
        "proxies": {"https": "http://example.org:1"},
    }
    nothing = settings({**environment, "PIP_CONFIG_FILE": "/dev/null"})
    assert not any(nothing.values())


def settings(environment):
    program = "import dataclasses, json; from cluster import pip; "
    return json.loads(
        said_within_slurm(f"{program}print(json.dumps(dataclasses.asdict(pip.settings()), default=str))", environment)
    )


def said_within_slurm(program, environment):
    """What a program says that imports from slurm/cluster: its name is that of a folder of tests, too."""
    argv = [
        "/usr/bin/python3",
        "-c",
        f"import sys; sys.path.insert(0, sys.argv[1]); {program}",
        str(REPOSITORY / "slurm"),
    ]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("there", [False, True])
def test_no_daemon_is_started_by_the_installation_of_its_package(tmp_path, there):
    """A machine's own policy stays as it is."""
    policy = tmp_path / "policy-rc.d"
    if there:
        policy.write_text("#!/bin/sh\nexit 7\n")
        policy.chmod(0o755)
    program = (
        f"import subprocess, pathlib; from cluster import packages; packages.POLICY = pathlib.Path({str(policy)!r})\n"
    )
    program += "with packages._nothing_starts(): print(subprocess.run([packages.POLICY]).returncode)"
    assert said_within_slurm(program, None).strip() == ("7" if there else "101")
    assert policy.exists() == there


def test_packages_come_from_the_mirror_that_apt_is_told(cluster):
    shown = cluster.docker("run", "--rm", cluster.base, "cat", "/etc/apt/sources.list").stdout
    program = "from cluster import debian; print('\\n'.join(debian.sources()))"
    assert [line for line in shown.splitlines() if line] == said_within_slurm(program, None).splitlines()


@pytest.mark.parametrize("engine", ["docker", "apptainer"])
def test_the_code_layer_is_seen_by_the_user_in_a_job(cluster, start, engine):
    show = "-c 'import os; print(os.listdir(\"/src\"), os.getuid())'"
    said = cluster.in_job(start[engine] + show, "-p", "gpu")
    assert said.strip() == f"['record.py'] {cluster.run(['id', '-u']).stdout.strip()}"


@pytest.mark.parametrize("engine", ["docker", "apptainer"])
@pytest.mark.parametrize("number", ["TERM", "USR2"])
def test_a_signal_to_the_step_reaches_the_program_and_its_exit_code_comes_back(cluster, start, engine, number):
    job = cluster.submit(f"srun {start[engine]} /src/record.py; echo code $?")
    until(lambda: "ready" in cluster.output(job), "the program runs")
    cluster.run(["scancel", "--signal", number, job])
    cluster.wait(job, "COMPLETED")
    assert f"got SIG{number}" in cluster.output(job)
    assert "code 75" in cluster.output(job)


@pytest.mark.parametrize("engine", ["docker", "apptainer"])
def test_exit_codes_come_back_as_they_are(cluster, start, engine):
    program = "import os, sys; n = int(sys.argv[1]); os.kill(os.getpid(), 9) if n == 137 else sys.exit(n)"
    said = cluster.in_job(f"for n in 0 1 75 78 137; do {start[engine]} -c '{program}' $n; echo code $?; done")
    assert re.findall(r"code (\d+)", said) == ["0", "1", "75", "78", "137"]


def test_a_container_that_wants_more_memory_than_its_limit_is_killed(cluster):
    run = f"docker run --name greedy --network none --memory 64m --memory-swap 64m {cluster.base} python3 -c "
    said = cluster.in_job(f"{run} 'print(len(bytearray(200 << 20)))'; echo code $?")
    assert said.strip() == "code 137"
    assert json.loads(cluster.docker("inspect", "greedy").stdout)[0]["State"]["OOMKilled"]
    fits = cluster.in_job(run.replace("greedy", "modest") + "'print(len(bytearray(20 << 20)))'")
    assert fits.strip() == str(20 << 20)


def test_a_pretended_gpu_is_given_to_a_container_as_a_device_file(cluster):
    docker = profile(cluster, "docker")
    assert docker["gpus"] == "devices"
    give = "n=$CUDA_VISIBLE_DEVICES; d=" + docker["gpu_device"].replace("{}", "$n") + "; "
    show = f"docker run --rm --network none --device $d:/dev/nvidia$n {cluster.base} sh -c 'ls /dev/nvidia*'"
    assert cluster.in_job(give + show, "--gpus-per-node=1").strip() == "/dev/nvidia0"


def test_leftovers_sees_containers_and_processes_and_clear_removes_containers(cluster):
    assert cluster.leftovers("mark-4711") == []
    cluster.docker("run", "--detach", "--name", "run-mark-4711", "--network", "none", cluster.base, "sleep", "4711")
    cluster.docker("run", "--detach", "--env", "RUN=mark-4711", "--network", "none", cluster.base, "sleep", "4712")
    with cluster.popen(["env", "RUN=mark-4711", "sleep", "4713"]) as outside:
        until(lambda: len(cluster.leftovers("mark-4711")) >= 3, "two containers and a process")
        found = cluster.leftovers("mark-4711")
        outside.terminate()
    assert [line.split()[0] for line in found] == ["container", "process", "process"]
    cluster.clear_containers()
    until(lambda: cluster.leftovers("mark-4711") == [], "all gone")


def test_a_dead_engine_is_told_and_start_mends_it(cluster):
    status = ["status", "--root", str(cluster.root)]
    pid = (cluster.root / "run" / "dockerd.pid").read_text().split()[0]
    subprocess.run([*SUDO, "kill", "-KILL", pid], check=True)
    until(lambda: "Dead: dockerd" in call(*status, check=False).stdout, "status tells it")
    assert cluster.docker("ps", check=False).returncode != 0
    call("start", "--root", str(cluster.root), "--work-tree")
    assert call(*status).returncode == 0
    assert cluster.docker("ps").returncode == 0


def test_stop_leaves_nothing_whatever_was_killed_before():
    """Two clusters with containers side by side; one is ended after its engine and containerd were killed."""
    other = start_containers("l", "--no-accounting")
    try:
        sleepers = ["run", "--detach", "--restart", "always", "--network", "none", other.base, "sleep"]
        other.docker(*sleepers, "4714")
        other.docker(
            "run", "--detach", "--network", "none", other.base, "sh", "-c", "trap '' TERM; sleep 4715 & wait; wait"
        )
        until(lambda: len(other.leftovers("sleep 4714", "sleep 4715")) >= 4, "both run")
        for name in ("dockerd", "containerd"):
            pid = (other.root / "run" / f"{name}.pid").read_text().split()[0]
            subprocess.run([*SUDO, "kill", "-KILL", pid], check=True)
    finally:
        stop_cluster(other)
    assert not other.root.exists()
    assert str(other.root) not in Path("/proc/self/mountinfo").read_text()
    seen = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(other.root) not in seen
    assert "sleep 4714" not in seen
    assert "sleep 4715" not in seen
