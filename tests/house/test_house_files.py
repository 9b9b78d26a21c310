"""The form of the house: size and first line of files, no place of a developer's in them, scripts, configs, the change log."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = {"launcher": 310, "jobs": 310, "slurm": 310, "images": 310, "docs": 310, "tests": 500}
LONGEST_FUNCTION = 68
# written in two parts, or this file would find itself
PLACES = ("/wo" + "rk/", "/ro" + "ot/", "/opt/" + "pypi")
HOSTS = ("pypi" + ".org", "python" + "hosted", "deb.debian" + ".org", "registry.npm" + "js")


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z", "--cached"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts() -> dict[str, str]:
    found = {}
    for path in tracked():
        try:
            found[str(path.relative_to(ROOT))] = path.read_text()
        except UnicodeDecodeError:
            continue
    return found


PYTHON = [path for path in tracked() if path.suffix == ".py" or path.name == "testcluster"]
SHELL = [path for path in tracked() if path.suffix == ".sh" or path == ROOT / ".ci" / "run"]
CONFIGS = sorted(path for path in tracked() if path.is_relative_to(ROOT / "configs") and path.suffix == ".yaml")


def ids(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def strangers(text: str) -> list[str]:
    """Places and hosts of one machine in a text that is for all."""
    return [word for word in (*PLACES, *HOSTS) if re.search(rf"(?<!\w){re.escape(word)}", text)]


def test_no_file_is_long():
    sizes = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PYTHON}
    assert {name: size for name, size in sizes.items() if size > LONGEST.get(name.partition("/")[0], 310)} == {}


def test_functions_fit_on_a_screen():
    found = {}
    for path in PYTHON:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    found[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert found == {}


def test_the_first_line_of_a_file_says_its_job():
    silent = [
        path for path in PYTHON if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert ids(silent) == []


def test_no_names_that_say_nothing():
    empty = re.compile(r"^class \w*(Manager|Helper|Utils?|Handler)\b", flags=re.MULTILINE)
    assert [
        str(path) for path in PYTHON if empty.search(path.read_text()) or re.search(r"util|helper", path.stem)
    ] == []


def test_nothing_tracked_names_a_place_of_one_machine():
    allowed = {"tests/house/test_house_files.py"}
    found = {name: words for name, text in texts().items() if name not in allowed and (words := strangers(text))}
    assert found == {}


@pytest.mark.parametrize("word", [*PLACES, *HOSTS])
def test_a_place_of_one_machine_is_seen(word):
    assert strangers(f"see {word}project") == [word]


@pytest.mark.parametrize("path", SHELL, ids=ids(SHELL))
def test_scripts_parse_and_stop_at_the_first_error(path):
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "\nset -euo pipefail\n" in text
    assert path.stat().st_mode & 0o111
    unquoted = re.compile(r"(?<![\"'\w{(])\$(@|\*)(?!\")")
    assert [line for line in text.splitlines() if unquoted.search(line)] == []


def test_there_is_a_shipped_config_and_each_is_valid():
    from launcher.config.load import load

    assert ROOT / "configs" / "quickstart.yaml" in CONFIGS
    for path in CONFIGS:
        load(path)


def test_each_shipped_config_names_the_schema():
    assert [str(path) for path in CONFIGS if "yaml-language-server: $schema=" not in path.read_text()] == []


def test_the_change_log_has_a_place_for_what_comes():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "\n## [Unreleased]\n" in text


def test_every_goal_of_make_is_explained_and_phony():
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)
    goals = re.findall(r"^([a-z-]+):", text, flags=re.MULTILINE)
    assert phony is not None
    assert sorted(phony[1].split()) == sorted(goals)
    assert re.findall(r"^([a-z-]+):(?!.*## )", text, flags=re.MULTILINE) == []
