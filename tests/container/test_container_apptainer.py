"""A run in an Apptainer image, without Slurm around it: signals at every moment, ends, isolation, and what it leaves behind."""

import json
import re
from pathlib import Path

import pytest
from apptainer_ground import Apptainer

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def engine(_session_containers):
    return Apptainer(_session_containers, "apptainer-runs")


@pytest.fixture(scope="module")
def pin(engine):
    return engine.ask("ensure")["pin"]


@pytest.mark.parametrize(("arguments", "code"), [
    (("exit", 0), 0), (("exit", 75), 75), (("exit", 1), 1), (("exit", 78), 78), (("exit", 137), 137),
    (("die", 9), -9), (("die", 15), -15), (("die", 11), -11),
])  # fmt: skip
def test_apptainer_ends_as_its_run_does(engine, pin, arguments, code):
    ended = engine.ask("go", pin=pin, arguments=arguments)
    assert [each["code"] for each in ended["ended"]] == [code], ended
    assert ended["left"] == []


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2", "SIGINT"])
def test_apptainer_a_signal_to_every_process_ends_none_but_the_run(engine, pin, name):
    """As Slurm sends it. What serves the image ignores it: the run reads files that it has not read before."""
    ended = engine.ended(pin, "hold", 60, signal=name)
    assert ended["code"] == 75, ended["out"]
    # From Slurm, and from the task: two that come together may be one
    assert re.search(rf"^image 4 True \['{name}'(, '{name}')?\]$", ended["out"], re.MULTILINE), ended["out"]
    assert sum("squashfuse" in line for line in ended["seen"]) == 2


def test_apptainer_a_server_that_ignores_no_signal_is_told_of(engine, pin):
    """The breach: the shield in front of the FUSE servers is not found. The signal ends them, and a warning has said so."""
    folder = engine.home / "bare"
    real = engine.cluster.run(["which", "apptainer"]).stdout.strip()
    engine.cluster.write(folder / "apptainer", f'#!/bin/sh\nPATH=/usr/bin:/bin exec {real} "$@"\n')
    engine.cluster.run(["chmod", "755", folder / "apptainer"], cwd=engine.home)
    ended = engine.ended(pin, "hold", 60, signal="SIGTERM", path=str(folder))
    assert "does not ignore SIGTERM" in ended["out"]
    assert ended["code"] != 75


def test_apptainer_loses_no_signal_at_any_moment_of_its_start(engine, pin):
    """Either the run has it, or there was none yet and the keeper says that it is saved: nothing else, and nothing is left."""
    done = engine.ask("go", pin=pin, arguments=["hold", 60], signal="SIGTERM", moments=15, within=0.7)
    assert {each["code"] for each in done["ended"]} == {75}, done["ended"]
    for each in done["ended"]:
        assert ("'SIGTERM'" in each["out"]) != ("nothing to save" in each["out"]), each["out"]
    assert done["left"] == []


def test_apptainer_keeps_a_signal_of_the_task_until_the_run_is_there(engine, pin):
    """Only the keeper gets it, as on this machine without Slurm; the run is not yet, or does not listen yet."""
    done = engine.ask("go", pin=pin, arguments=["hold", 60], signal="SIGTERM", only="keeper", moments=5, within=0.5)
    assert {each["code"] for each in done["ended"]} == {75}
    assert all("'SIGTERM'" in each["out"] for each in done["ended"]), done["ended"]
    slow = engine.ask("go", pin=pin, arguments=["slow", 2], signal="SIGUSR2", only="keeper", moments=1, within=1.5)
    assert "['SIGUSR2']" in slow["ended"][0]["out"]


@pytest.mark.parametrize("victims", [["keeper"], ["parent"], ["inner"], ["keeper", "parent"]], ids="+".join)
def test_apptainer_leaves_nothing_after_a_sigkill(engine, pin, victims):
    done = engine.ask("blow", pin=pin, arguments=["hold", 600], victims=victims)
    assert done["hit"] == len(victims)
    assert done["code"] == -9
    if victims == ["keeper", "parent"]:  # nobody is left to end them; Slurm would, and the next attempt does
        assert all("squashfuse" in line for line in done["left"])
    else:
        assert done["left"] == []
    assert done["cleaned"] == []


def test_apptainer_a_run_sees_what_is_its_own(engine, pin):
    odd = engine.home / "odd, 'na:me'" / 'a"b'
    shared = engine.home / "shared"
    for folder in (odd, shared):
        engine.cluster.run(["mkdir", "-p", folder], cwd=engine.home)
    names = [
        "LD_LIBRARY_PATH",
        "APPTAINERENV_PLANTED",
        "SINGULARITYENV_PLANTED",
        "TERM",
        "PYTHONPATH",
        "XDG_RUNTIME_DIR",
    ]
    planted = dict.fromkeys(names, "/planted")
    planted |= {"APPTAINER_BIND": "/etc:/planted", "SINGULARITY_NV": "1", "http_proxy": "http://planted"}
    value = "k$(id)`id`'q\" \\ \n ${HOME} ü"
    home = engine.cluster.home / "project"
    request = {"arguments": ["look", str(odd), str(shared), str(home), "/samebits/code", "/planted"]}
    request |= {"mounts": {str(odd): "ro", str(shared): "rw"}, "pin": pin}
    (ended,) = engine.ask("go", shell=planted, env={"WANDB_API_KEY": value}, **request)["ended"]
    assert ended["code"] == 0, ended["out"]
    seen = json.loads(ended["out"].partition("LOOK")[2])
    environment = seen["env"]
    assert environment.pop("WANDB_API_KEY") == value
    assert not [name for name, text in environment.items() if "planted" in text.lower() or "PLANTED" in name]
    assert not [name for name in environment if name.startswith(("APPTAINER", "SINGULARITY", "PS1", "TERM", "LD_"))]
    assert environment["PATH"].startswith("/opt/venv/bin:")
    assert environment["PYTHONPATH"] == "/samebits/code"
    assert (seen["cwd"], seen["uid"]) == ("/samebits/code", int(engine.cluster.run(["id", "-u"]).stdout))
    assert not [
        path for path in seen["path"] if not path.startswith(("/samebits/code", "/opt/venv", "/usr/lib/python3"))
    ]
    assert seen["interfaces"] == ["lo"]
    assert set(seen["localhost"]) == {"127.0.0.1"}
    there = {str(odd): True, str(shared): "rw", str(home): False, "/samebits/code": True, "/planted": False}
    assert seen["there"] == there
    assert (shared / "written").read_text() == "x"
    assert seen["shm"] > 1 << 30, "loader workers hand over batches there"
    assert not [line for line in [*ended["seen"], *ended["argv"]] if "k$(id)" in line]


def test_apptainer_takes_pretended_gpus_and_a_network_where_asked(engine, pin):
    """No driver is here: that is a warning of Apptainer's, no end."""
    ended = engine.ended(pin, "look", gpus=["0", "1"], network="host")
    assert ended["code"] == 0, ended["out"]
    seen = json.loads(ended["out"].partition("LOOK")[2])
    assert seen["interfaces"] != ["lo"]
    assert seen["env"]["LD_LIBRARY_PATH"] == "/.singularity.d/libs"


def test_apptainer_says_why_it_cannot_start_an_image(engine, pin):
    """An apptainer that does nothing but fail: not the run is broken, this machine is not fit."""
    folder = engine.home / "broken"
    real = engine.cluster.run(["which", "apptainer"]).stdout.strip()
    script = f'#!/bin/sh\n[ "$1" = buildcfg ] && exec {real} buildcfg\necho "FATAL: no such luck" >&2\nexit 255\n'
    engine.cluster.write(folder / "apptainer", script)
    engine.cluster.run(["chmod", "755", folder / "apptainer"], cwd=engine.home)
    ended = engine.ended(pin, "exit", 0, path=str(folder))
    assert ended["code"] == 79
    assert "no such luck" in ended["out"]
    assert "did not start the image (exit code 255)" in ended["out"]


def test_apptainer_is_shielded_where_it_brings_servers_of_its_own(engine, pin):
    """As the packages of its makers do: its own folder comes before any PATH, but not before its configuration."""
    program = Path(engine.cluster.run(["readlink", "-f", engine.cluster.root / "bin" / "apptainer"]).stdout.strip())
    whole = engine.home / "bundle"
    engine.cluster.run(["cp", "-r", program.parents[3], whole], cwd=engine.home)
    bundled = whole / "apptainer" / "usr" / "lib" / "x86_64-linux-gnu" / "apptainer" / "bin" / "squashfuse_ll"
    server = engine.cluster.run(["which", "squashfuse_ll"]).stdout.strip()
    engine.cluster.run(["ln", "-s", server, bundled], cwd=engine.home)
    ended = engine.ended(pin, "hold", 60, signal="SIGTERM", path=str(whole / "apptainer" / "usr" / "bin"))
    assert (ended["code"], "image 4 True" in ended["out"]) == (75, True), ended["out"]
    assert sum(line.startswith(f"{bundled} ") for line in ended["seen"]) == 2, ended["seen"]
    engine.cluster.run(["rm", "-rf", whole], cwd=engine.home)
