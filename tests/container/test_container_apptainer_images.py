"""The images of the apptainer engine: two files by content, made once, checked on the node, refused where they are another."""

import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from apptainer_ground import Apptainer, flip
from cluster_ground import SUDO

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def engine(_session_containers):
    return Apptainer(_session_containers, "apptainer-images")


@pytest.fixture(scope="module")
def first(engine):
    return engine.ask("ensure")


def sha256(path):
    return f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"


def test_apptainer_names_both_files_by_their_content(engine, first):
    pin = first["pin"]
    assert first["known"]
    for part in ("environment", "layer"):
        file = engine.blob(pin[part])
        assert sha256(file) == pin[part]
        assert file.stat().st_mode & 0o777 == 0o444
    tree = engine.cluster.run(["git", "rev-parse", "HEAD^{tree}"], cwd=engine.repository).stdout.strip()
    assert pin["code"] == f"git-tree:{tree}"
    assert (pin["base"], pin["python"]) == (engine.cluster.base, "3.11.2")
    again = engine.ask("ensure")
    assert (again["pin"], again["said"]) == (pin, [])
    record = json.loads(next((engine.store("one") / "images").glob("*.apptainer.json")).read_text())
    assert [line.partition("==")[0] for line in record["packages"] if not line.startswith(("pip=", "setuptools="))] == [
        "click"
    ]


def test_apptainer_makes_a_layer_alone_for_a_commit_that_touches_code_only(engine, first):
    engine.change("jobs/other.py", "print('second')\n")
    second = engine.ask("ensure")
    assert second["pin"]["environment"] == first["pin"]["environment"]
    assert second["pin"]["layer"] != first["pin"]["layer"]
    assert [line.partition(" ")[0] for line in second["said"]] == ["code"]


def test_apptainer_the_layer_is_the_same_whoever_makes_it(engine):
    """By the user with a closed umask and an open one, and by root in another folder, at another time: git's bytes, bit for bit."""
    engine.change(".gitattributes", "*.py eol=crlf\nbin export-ignore\n")
    engine.cluster.run(["chmod", "755", engine.repository / "bin" / "tool.sh"], cwd=engine.home)
    engine.cluster.run(["ln", "-s", "bin/tool.sh", engine.repository / "link"], cwd=engine.home)
    engine.cluster.commit(engine.repository, "links and modes")
    made = []
    for umask in (0o077, 0o000):
        file = engine.home / f"{umask}.sqfs"
        engine.ask("pack", umask=umask, file=str(file))
        made.append(sha256(file))
    made.append(engine.ask("ensure")["pin"]["layer"])
    clone = engine.home / "clone"
    safe = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    script = (
        "import sys; from pathlib import Path; from launcher.engines.apptainer_code import pack\n"
        "pack(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))"
    )
    tree = engine.cluster.run(["git", "rev-parse", "HEAD^{tree}"], cwd=engine.repository).stdout.strip()
    argv = [engine.cluster.bin / "python", "-c", script, engine.repository, tree, f"{clone}.sqfs"]
    program = Path(engine.cluster.run(["which", "apptainer"]).stdout.strip()).parent
    variables = [f"{key}={value}" for key, value in {**safe, "PATH": f"{program}:{os.environ['PATH']}"}.items()]
    subprocess.run([*SUDO, "env", *variables, *map(str, argv)], check=True, cwd=engine.cluster.repository)
    made.append(sha256(f"{clone}.sqfs"))
    assert len(set(made)) == 1
    shown = subprocess.run(["unsquashfs", "-lln", f"{clone}.sqfs"], capture_output=True, text=True, check=True).stdout
    modes = {
        line.split()[-1].partition("/")[2]: line.split()[0] for line in shown.splitlines() if "squashfs-root/" in line
    }
    assert modes["bin/tool.sh"] == "-rwxr-xr-x"
    assert modes["jobs/__main__.py"] == "-rw-r--r--"
    assert modes["jobs"] == "drwxr-xr-x"
    assert {line.split()[1] for line in shown.splitlines() if "squashfs-root" in line} == {"0/0"}


@pytest.mark.parametrize("part", ["environment", "layer"])
def test_apptainer_reads_a_file_again_when_anything_about_it_changed(engine, first, part):
    """A bit flipped, size and time as before: refused with both digests, the file, and the next command; and mended, it is fine."""
    pin = first["pin"]
    file = engine.blob(pin[part])
    until_stamped(engine, pin)
    assert engine.ask("verify", pin=pin)["problems"] == []
    flip(file)
    try:
        (problem,) = engine.ask("verify", pin=pin)["problems"]
    finally:
        flip(file)
    assert set(re.findall(r"sha256:[0-9a-f]{64}", problem)) > {pin[part]}
    assert len(set(re.findall(r"sha256:[0-9a-f]{64}", problem))) == 2
    assert str(file) in problem
    assert "launch image build" in problem
    assert engine.ask("verify", pin=pin)["problems"] == []


def until_stamped(engine, pin):
    """A file that was just written gets no stamp yet."""
    for _ in range(100):
        engine.ask("verify", pin=pin)
        if len(list(stamps(engine))) >= 2:
            return
    pytest.fail("no stamp was written")


def stamps(engine):
    uid = engine.cluster.run(["id", "-u"]).stdout.strip()
    return Path(f"/tmp/samebits-verified-{uid}").glob("*.json")


def test_apptainer_the_code_of_an_edited_store_is_made_anew_its_environment_is_not_trusted(engine, first):
    pin = engine.ask("ensure")["pin"]
    flip(engine.blob(pin["layer"]))
    mended = engine.ask("ensure")
    assert mended["pin"] == pin
    assert sha256(engine.blob(pin["layer"])) == pin["layer"]
    environment = engine.blob(pin["environment"])
    flip(environment)
    refused = engine.ask("ensure")
    flip(environment)
    assert refused["error"] == 6
    assert str(environment) in refused["text"]
    away = environment.with_name("away")
    engine.cluster.run(["mv", environment, away], cwd=engine.home)
    (problem,) = engine.ask("verify", pin=pin)["problems"]
    engine.cluster.run(["mv", away, environment], cwd=engine.home)
    assert "is not in the store" in problem


def test_apptainer_uses_a_whole_copy_on_the_node_or_none(engine, first):
    pin, cache = first["pin"], engine.home / "cache"
    assert engine.ask("verify", pin=pin, cache=str(cache))["problems"] == []
    (copy,) = cache.glob("samebits-*/sha256-*.sif")
    assert sha256(copy) == pin["environment"]
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    ended = engine.ended(pin, "exit", 0, cache=str(cache))
    assert ended["code"] == 0
    assert str(copy) in ended["argv"]
    flip(copy)
    assert engine.ask("verify", pin=pin, cache=str(cache))["problems"] == []
    assert sha256(copy) == pin["environment"], "it was made anew"
    flip(engine.blob(pin["environment"]))
    engine.cluster.run(["rm", "-rf", cache], cwd=engine.home)
    try:
        problems = engine.ask("verify", pin=pin, cache=str(cache))["problems"]
    finally:
        flip(engine.blob(pin["environment"]))
    assert [pin["environment"] in each for each in problems] == [True]
    assert not list(cache.glob("samebits-*/sha256-*.sif"))


def test_apptainer_goes_on_from_the_store_where_the_nodes_disk_is_full(engine, first):
    pin, full = first["pin"], engine.home / "full"
    engine.cluster.run(["mkdir", full], cwd=engine.home)
    uid = engine.cluster.run(["id", "-u"]).stdout.strip()
    subprocess.run([*SUDO, "mount", "-t", "tmpfs", "-o", f"size=1m,uid={uid}", "none", str(full)], check=True)
    try:
        argv = ["--cache", str(full)]
        assert engine.ask("verify", pin=pin, cache=argv[1])["problems"] == []
        assert "it is used from" in engine.said
        assert not list(full.glob("samebits-*/.*.tmp"))
        assert engine.ended(pin, "exit", 75, cache=str(full))["code"] == 75
    finally:
        subprocess.run([*SUDO, "umount", str(full)], check=True)


def test_apptainer_a_failed_build_says_its_last_lines_and_keeps_its_log_and_nothing_else(engine, first):
    text = (engine.repository / "images" / "apptainer.def").read_text()
    engine.change("images/apptainer.def", text.replace("    set -eu\n", "    set -eu\n    echo all is lost; exit 7\n"))
    scratch = engine.home / "scratch of a build"  # others may be building in /tmp
    engine.cluster.run(["mkdir", scratch], cwd=engine.home)
    variables = {"TMPDIR": str(scratch)}
    failed = engine.ask("ensure", store="failed", shell=variables)
    engine.change("images/apptainer.def", text)
    assert failed["error"] == 6
    (log,) = scratch.iterdir()
    assert re.fullmatch(r"samebits-build-\S+\.log", log.name)
    assert str(log) in failed["text"]
    assert "all is lost" in failed["evidence"]
    assert "all is lost" in subprocess.run([*SUDO, "cat", str(log)], capture_output=True, text=True, check=True).stdout
    assert not list(engine.store("failed").glob("images/*"))
    assert not list(engine.store("failed").glob("blobs/*"))
    assert not list(engine.store("failed").glob("blobs/.*"))


def test_apptainer_an_index_or_a_registry_that_is_down_is_named_without_its_password(engine, first):
    secret = "s3cr3t-of-the-index"  # noqa: S105 - planted
    engine.change("jobs/other.py", "third = 1\n")
    text = (engine.repository / "images" / "apptainer.def").read_text()
    engine.change("images/apptainer.def", f"{text}\n%labels\n    no index\n")
    build = {"index_url": f"http://me:{secret}@127.0.0.1:9/simple", "find_links": [], "extra_index_urls": []}
    failed = engine.ask("ensure", store="failed", build=build)
    assert failed["error"] == 6
    assert secret not in json.dumps(failed)
    assert "Connection refused" in failed["evidence"], failed["evidence"]
    assert "index_url" in failed["text"]
    base = f"127.0.0.1:9/base@{engine.cluster.base.partition('@')[2]}"
    failed = engine.ask("ensure", store="failed", base=base)
    engine.change("images/apptainer.def", text)
    assert failed["error"] == 6
    assert "127.0.0.1:9" in failed["evidence"]


def test_apptainer_makes_a_sif_of_the_docker_image(engine, first):
    made = engine.ask("ensure", store="docker", by="dockerfile")
    assert made["known"]
    record = json.loads(next((engine.store("docker") / "images").glob("*.apptainer.json")).read_text())
    assert record["made_from"]["build"] == "dockerfile"
    assert record["made_from"]["docker"].startswith("sha256:")
    ended = engine.ended(made["pin"], "look", store="docker")
    assert ended["code"] == 0, ended["out"]
    seen = json.loads(ended["out"].partition("LOOK")[2])
    assert seen["env"]["PATH"].startswith("/opt/venv/bin")


def test_apptainer_pushes_and_pulls_a_sif_by_the_sites_registry(engine, first):
    pushed = engine.ask("push")
    pulled = engine.ask("pull", store="pulled")
    assert pulled["pin"] == pushed["pin"]
    assert engine.ask("verify", pin=pulled["pin"], store="pulled")["problems"] == []
    assert any("pushed oras://" in line for line in pushed["said"])
    gone = engine.ask("pull", store="nothing", by="dockerfile")
    assert gone["error"] == 6
    assert "launch image export" in gone["text"]
