"""Facts and provenance: everything of R11, R13 and R21, one entry per attempt, and no secret anywhere."""

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import types
from dataclasses import replace

import pytest
import torch
from content_samples import specification, tree

from jobs import facts, machine, provenance
from jobs.contract import SLURM_VERSION_VARIABLE, ImagePin

CPU = torch.device("cpu")
SECRET = "s3cr3t-v4lue-0123456789abcdef-0123456789"  # noqa: S105 - planted


@pytest.fixture
def run(tmp_path):
    return tree(tmp_path)


def kept(run) -> dict:
    return json.loads(run.provenance.read_text())


def test_what_the_bits_depend_on_is_flat_text():
    found = facts.numerics(CPU)
    assert all(isinstance(key, str) and isinstance(value, str) for key, value in found.items())
    assert {"torch", "numpy", "transformers", "peft", "cpu_capability", "threads", "machine", "device"} <= set(found)
    assert {"ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS"} <= set(found)
    assert found["torch"] == torch.__version__


def test_the_facts_are_those_in_force():
    """In a process that began with other pins than this one."""
    code = "import json, torch; from jobs import facts; print(json.dumps(facts.numerics(torch.device('cpu'))))"
    pins = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "2", "MKL_CBWR": "COMPATIBLE"}
    text = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **pins}, capture_output=True, text=True, check=True
    ).stdout
    found = json.loads(text)
    assert (found["cpu_capability"], found["threads"], found["MKL_CBWR"]) == ("DEFAULT", "2", "COMPATIBLE")
    assert found.items() >= pins.items()


def test_provenance_says_where_a_run_comes_from(run, capsys, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "79")
    monkeypatch.setenv("SLURM_JOB_NAME", "sample")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[3-4]")
    monkeypatch.setenv(SLURM_VERSION_VARIABLE, "slurm-wlm 22.05.8")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    monkeypatch.setenv("SLURMD_NODENAME", "n3")
    provenance.record(specification(), run, 1)
    found = kept(run)
    assert found["commit"] == "c" * 40
    assert found["dirty"] is False
    assert found["config_sha256"] == "d" * 64
    assert found["image"] == {
        "engine": "host",
        "python": "3.11.2",
        "lock_sha256": f"sha256:{'e' * 64}",
        "code_tree": specification().image.code,
    }
    assert found["patch"] is None
    assert f"torch=={torch.__version__}" in found["packages"]
    assert (run.artifacts / "pip-freeze.txt").read_text().splitlines() == found["packages"]
    attempt = found["attempts"][0]
    job = {"version": "slurm-wlm 22.05.8", "reason": None, "SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "2"}
    assert attempt["slurm"].items() >= {**job, "SLURM_JOB_NAME": "sample", "SLURM_JOB_NODELIST": "n[3-4]"}.items()
    assert attempt["node"] == "n3"
    assert attempt["cpu"]["model"] == machine.cpu_model()
    assert attempt["cpu"]["capability"] == torch.backends.cpu.get_cpu_capability()
    assert attempt["cpu"]["threads"] == torch.get_num_threads()
    assert attempt["kernel"] == f"Linux {os.uname().release}"
    assert attempt["gpus"] == []
    assert (attempt["executable"], attempt["prefix"]) == (sys.executable, sys.prefix)
    assert attempt["command"] == sys.orig_argv
    for name in ("CUDA", "cuDNN", "NVIDIA driver"):
        assert (attempt[name]["version"] is None) != (attempt[name]["reason"] is None)
    said = capsys.readouterr().out
    assert all(name in said for name in ("torch 2.", "CUDA ", "cuDNN ", "NVIDIA driver "))


def test_each_digest_is_named_for_what_it_is():
    pin = ImagePin(
        "docker", "sha256:env", "git-tree:code", "3.11.2", "base@sha256:b", "sha256:run", "r/x@sha256:m", "key"
    )
    assert provenance.digests(pin) == {
        "engine": "docker",
        "python": "3.11.2",
        "base_digest": "base@sha256:b",
        "environment_image_id": "sha256:env",
        "image_id": "sha256:run",
        "manifest_digest": "r/x@sha256:m",
        "code_tree": "git-tree:code",
        "environment_key": "key",
    }
    sif = provenance.digests(replace(pin, engine="apptainer"))
    assert (sif["environment_sif_sha256"], sif["code_squashfs_sha256"]) == ("sha256:env", "sha256:run")
    assert "image_id" not in sif


def test_every_field_of_a_pin_has_a_name():
    fields = set(ImagePin.__dataclass_fields__) - {"engine", "python"}
    assert fields == set(provenance.DIGESTS["docker"]) == set(provenance.DIGESTS["apptainer"])


def test_a_patch_is_recorded_with_its_hash(run):
    dirty = specification().model_copy(update={"dirty": True})
    provenance.record(dirty, run, 1)
    assert kept(run)["patch"]["reason"] == "No such file or directory"
    (run.root / "artifacts" / "source.patch").write_text("patch")
    provenance.record(dirty, run, 2)
    digest = hashlib.sha256(b"patch").hexdigest()
    assert kept(run)["patch"] == {"file": "source.patch", "sha256": digest, "reason": None}


def test_what_slurm_did_not_say_has_a_reason(monkeypatch):
    for name in ("SLURM_JOB_ID", SLURM_VERSION_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    assert machine.slurm()["reason"] == "not run by Slurm"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert machine.slurm()["reason"] == "the task could not ask: scontrol --version"


def test_a_gpu_is_told_from_another(monkeypatch):
    card = types.SimpleNamespace(name="H200", major=9, minor=0, total_memory=150 << 30, uuid="GPU-1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    assert machine.gpus() == [{"model": "H200", "capability": "9.0", "memory_bytes": 150 << 30, "uuid": "GPU-1"}]


def test_attempts_are_added_and_never_overwritten(run):
    for attempt in (1, 2, 2, 5):
        provenance.record(specification(), run, attempt)
    assert [one["attempt"] for one in kept(run)["attempts"]] == [1, 2, 5]


def test_a_record_that_cannot_be_read_is_set_aside(run):
    run.provenance.write_text("{")
    provenance.record(specification(), run, 2)
    assert [one["attempt"] for one in kept(run)["attempts"]] == [2]
    assert (run.artifacts / "provenance-before-attempt-2.json").read_text() == "{"


def test_packages_are_pinned_each_once():
    found = provenance.packages()
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", package) for package in found)
    assert found == sorted(set(found))


CONDA = f"""\
#!/bin/sh
echo "$@" > "$CONDA_PREFIX/asked"
echo 'name: env
dependencies:
  - python=3.11
variables:
  API_TOKEN: {SECRET}
prefix: /opt/env'
exit ${{CONDA_CODE:-0}}
"""


@pytest.fixture
def conda(tmp_path, monkeypatch):
    program = tmp_path / "conda"
    program.write_text(CONDA)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CONDA_EXE", str(program))
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path))
    return tmp_path


def test_of_a_conda_environment_its_history_is_kept_without_its_variables(run, conda):
    provenance.record(specification(), run, 1)
    assert (conda / "asked").read_text() == f"env export --from-history --prefix {conda}\n"
    text = (run.artifacts / "conda-history.yml").read_text()
    assert "  - python=3.11\nprefix: /opt/env\n" in text
    assert SECRET not in text
    assert kept(run)["conda"] == {"file": "conda-history.yml", "reason": None}


def test_a_conda_that_fails_is_a_reason(run, conda, monkeypatch):
    monkeypatch.setenv("CONDA_CODE", "3")
    provenance.record(specification(), run, 1)
    assert kept(run)["conda"]["reason"].startswith("conda ended with 3")
    monkeypatch.setenv("CONDA_EXE", str(conda / "none"))
    provenance.record(specification(), run, 1)
    assert "No such file" in kept(run)["conda"]["reason"]


def test_without_conda_there_is_a_reason(run, monkeypatch):
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    provenance.record(specification(), run, 1)
    assert kept(run)["conda"] == {"file": None, "reason": "CONDA_PREFIX is not set"}


def test_no_secret_of_the_environment_is_written(run, conda, monkeypatch, capsys):
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "SLURM_JWT", "MY_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    provenance.record(specification(), run, 1)
    written = [path for path in run.root.rglob("*") if path.is_file()]
    assert len(written) >= 4
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    assert SECRET not in capsys.readouterr().out
