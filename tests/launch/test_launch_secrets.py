"""Keys of the user's shell and files, planted: none is in the tree, the store, a record or a log of a run on this machine."""

import json
import sys
from pathlib import Path

import secret_ground
from project import JOB, make_project

LOOKS = """
passed = sorted({"WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN"} & set(os.environ))
pathlib.Path(FILE).write_text(json.dumps(passed))
"""
SITE = f"""\
build:
  ca_bundle: {secret_ground.CA}
  index_url: https://me:$MY_INDEX_PASSWORD@pypi.example.org/simple
  extra_index_urls: ["https://me:{secret_ground.PLANTED["LITERAL_PASSWORD"]}@other.example.org/simple"]
  proxies: {{https: "http://me:$MY_INDEX_PASSWORD@proxy.example.org:3128"}}
"""


def test_no_key_is_written_anywhere(tmp_path: Path) -> None:
    looks = LOOKS.replace("FILE", repr(str(tmp_path / "passed.json")))
    project = make_project(tmp_path / "project", job=JOB.replace("STEPS", "3") + looks)
    docker = project.home / ".docker"
    docker.mkdir()
    (docker / "config.json").write_text(secret_ground.docker_config())
    site = tmp_path / "site.yaml"
    site.write_text(SITE)
    env = {**secret_ground.shell(), "SAMEBITS_SITE": str(site)}
    said = [project.launch("configs/x.yaml", *flags, **env) for flags in (("--dry-run",), ("--dry-run", "--json"), ())]
    said += [project.launch("status", "tiny", **env), project.launch("logs", "tiny", **env)]
    assert [done.returncode for done in said] == [0] * len(said), said
    assert project.tree.run(0).done.exists()
    assert json.loads((tmp_path / "passed.json").read_text()) == ["HF_TOKEN", "WANDB_API_KEY"]
    assert [secret_ground.named(done.stdout + done.stderr) for done in said] == [[]] * len(said)
    assert secret_ground.found(tmp_path, but=(site, docker)) == []


def test_what_is_searched_is_found(tmp_path: Path) -> None:
    """The search itself bites: in binary files, in hidden folders, and encoded."""
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "blob").write_bytes(b"\0\xff" + secret_ground.PLANTED["HF_TOKEN"].encode() + b"\0")
    (tmp_path / "config.json").write_text(secret_ground.docker_config())
    assert secret_ground.found(tmp_path) == [
        ("HF_TOKEN", tmp_path / ".hidden" / "blob"),
        ("REGISTRY_PASSWORD, encoded", tmp_path / "config.json"),
    ]
    assert secret_ground.found(tmp_path, but=(tmp_path / ".hidden", tmp_path / "config.json")) == []
    assert secret_ground.named(sys.executable + secret_ground.CA) == ["the way to the CA"]
