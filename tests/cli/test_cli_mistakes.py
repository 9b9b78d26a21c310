"""Command lines that are wrong: exit code 2, one message, and nothing loaded, started or written."""

import sys

import pytest

from launcher import __version__
from launcher.cli import main
from launcher.errors import ExitCode

CASES = {
    "unknown verb": (["stauts"], "`stauts` is neither a verb nor a config file. Did you mean `launch status`?"),
    "unknown word": (["frobnicate"], "`frobnicate` is neither a verb nor a config file. See `launch --help`."),
    "name of a config": (["quick"], "Did you mean `launch configs/quick.yaml`?"),
    "unknown flag": (["run", "--partion", "gpu", "x.yaml"], "'--partion'. Did you mean '--partition'?"),
    "unknown flag first": (["--parttion", "gpu", "x.yaml"], "Did you mean '--partition'?"),
    "seed on the command line": (["x.yaml", "--seed", "3"], "No such option '--seed'."),
    "hyperparameter": (["x.yaml", "--lr", "3"], "No such option '--lr'"),
    "no config": (["run"], "Missing argument 'CONFIG'. See `launch run --help`."),
    "two configs": (["run", "a.yaml", "b.yaml"], "unexpected extra argument (b.yaml)"),
    "flag without its value": (["x.yaml", "--partition"], "'--partition' requires an argument."),
    "partition with a space": (["x.yaml", "--partition", "a b"], "'a b' is not one plain word."),
    "partition with a line break": (["x.yaml", "--partition", "a\n#SBATCH -x n1"], "is not one plain word."),
    "partition like a flag": (["x.yaml", "--partition=--wrap"], "'--wrap' is not one plain word."),
    "empty account": (["x.yaml", "--account", ""], "'' is not one plain word."),
    "site as a path": (["x.yaml", "--site", "../a"], "'../a' is not one plain word."),
    "odd time": (["x.yaml", "--time", "soon"], "'soon' is not a length of time: write HH:MM:SS or D-HH:MM:SS."),
    "minutes and seconds": (["x.yaml", "--time", "90:00"], "is not a length of time"),
    "no time": (["x.yaml", "--time", "0"], "'0' is no time at all, which Slurm takes for no limit."),
    "local and partition": (
        ["x.yaml", "--local", "--partition", "g", "--qos", "q"],
        "where --partition and --qos would",
    ),
    "time without slurm": (["x.yaml", "--time", "90"], "--time: for Slurm only. Add --partition NAME, or --site NAME."),
    "json without dry run": (["x.yaml", "--json"], "--json goes with --dry-run."),
    "experiments is a file": (["status", "--experiments", "file"], "'file' is a file."),
    "negative seed": (["logs", "x", "--seed", "-1"], "-1 is not in the range"),
    "word as a seed": (["cancel", "x", "--seed", "first"], "'first' is not a valid integer"),
    "attempt nought": (["logs", "x", "--attempt", "0"], "0 is not in the range"),
    "logs of nothing": (["logs"], "Missing argument 'NAME'. See `launch logs --help`."),
    "cancel of nothing": (["cancel"], "Missing argument 'NAME'."),
    "argument of schema": (["schema", "x"], "unexpected extra argument (x)"),
}


@pytest.mark.parametrize("name", CASES)
def test_usage(name, tmp_path, monkeypatch, capsys):
    arguments, said = CASES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "quick.yaml").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))

    assert main(arguments) == ExitCode.USAGE

    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("launch: ")
    assert output.err.count("\n") <= 2
    assert said in output.err
    assert "Traceback" not in output.err
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_at_all_shows_the_help(capsys):
    assert main([]) == ExitCode.USAGE
    output = capsys.readouterr()
    assert "Launch training runs" in output.err
    assert output.out == ""


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(flag, capsys):
    assert main([flag]) == ExitCode.OK
    assert "launch configs/quickstart.yaml" in capsys.readouterr().out
    for verb in ("run", "status", "logs", "cancel", "schema"):
        assert main([verb, flag]) == ExitCode.OK
        assert f"Usage: launch {verb}" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out == f"samebits {__version__}\n"


def test_arguments_are_taken_from_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["launch", "--version"])
    assert main() == ExitCode.OK
    assert "samebits" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["status", "logs", "cancel"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("quik", "No experiment `quik`. Did you mean quick?"),
        ("other", "No experiment `other`. There: quick."),
        ("..", "No experiment `..`."),
        (".", "No experiment `.`."),
        ("half", "No experiment `half`."),
        ("a\x1b[31mb", "No experiment `a\\x1b[31mb`."),
    ],
)
def test_unknown_experiment(verb, name, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAMEBITS_SITE", raising=False)
    (tmp_path / "experiments" / "quick").mkdir(parents=True)
    (tmp_path / "experiments" / "quick" / "config.yaml").touch()
    (tmp_path / "experiments" / "half").mkdir()
    assert main([verb, name]) == ExitCode.NOT_FOUND
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["status"], ["status", "x"], ["logs", "x"], ["cancel", "x"]])
def test_no_experiments_at_all(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAMEBITS_SITE", raising=False)
    assert main(arguments) == ExitCode.NOT_FOUND
    assert f"{tmp_path}/experiments: No such folder of experiments." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
