"""Configs that are wrong, one after the other: the line, the words, the exit code, and nothing written."""

import pytest
from config_samples import VALID, changed, snapshot, written

from launcher.cli.boundary import guarded
from launcher.config.load import load
from launcher.errors import ExitCode

SEEDS = "seeds: [0, 1, 2]"
LR = "optimizer: {lr: 1e-4}"
EPOCHS = "  epochs: 3"

CASES = {
    # name
    "space in name": (changed("name: quick", "name: 'a b'"), ["x.yaml:2: name: ", "holds a space", "Write a-b."]),
    "path as name": (changed("name: quick", "name: ../x"), [":2: name: ", "`..`", "Write x."]),
    "slash in name": (changed("name: quick", "name: a/b"), [":2: name: ", "a slash"]),
    "dots in name": (changed("name: quick", "name: a..b"), [":2: name: ", "`..`", "Write a.b."]),
    "line break in name": (changed("name: quick", 'name: "a\\nb"'), [":2: name: ", "a line break"]),
    "line break at end of name": (changed("name: quick", 'name: "a\\n"'), [":2: name: ", "a line break"]),
    "quote in name": (changed("name: quick", "name: a'b"), [":2: name: ", "a quote (')"]),
    "double quote in name": (changed("name: quick", "name: 'a\"b'"), [":2: name: ", 'a quote (")']),
    "shell in name": (changed("name: quick", "name: a$(id)"), [":2: name: ", "`$`"]),
    "dash first": (changed("name: quick", "name: -x"), [":2: name: ", "starts with `-`", "Write x."]),
    "capital": (changed("name: quick", "name: Quick"), [":2: name: ", "capital letter Q", "Write quick."]),
    "foreign letter": (changed("name: quick", "name: größe"), [":2: name: ", "`ö`"]),
    "empty name": (changed("name: quick", 'name: ""'), [":2: name: is empty."]),
    "null name": (changed("name: quick", "name:"), [":2: name: is empty (null), not a text."]),
    "number as name": (changed("name: quick", "name: 3"), ["is the number 3, not a text", 'Write "3" in quotes.']),
    "long name": (changed("name: quick", f"name: {'a' * 64}"), ["has 64 characters", "63"]),
    # seeds
    "no seeds": (changed(SEEDS + "\n", ""), ["seeds: missing.", "`seeds: [0, 1, 2]`", "cannot be reproduced"]),
    "seed": (changed(SEEDS, "seed: 3"), [":3: seed: unknown key. Here it is called `seeds`."]),
    "one seed": (changed(SEEDS, "seeds: 3"), [":3: seeds: is the number 3, not a list. Write [3]."]),
    "empty seeds": (changed(SEEDS, "seeds: []"), [":3: seeds: is empty."]),
    "null seeds": (changed(SEEDS, "seeds: null"), [":3: seeds: is empty (null), not a list."]),
    "seed twice": (changed(SEEDS, "seeds:\n - 0\n - 1\n - 0"), [":6: seeds[2]: seed 0 is given twice."]),
    "text seed": (changed(SEEDS, "seeds: ['1']"), ['seeds[0]: is the text "1"', "Write 1 without quotes."]),
    "float seed": (changed(SEEDS, "seeds: [1.0]"), ["seeds[0]: is the number 1.0, not a whole number. Write 1."]),
    "boolean seed": (changed(SEEDS, "seeds: [true]"), ["seeds[0]: is true, not a whole number."]),
    "negative seed": (changed(SEEDS, "seeds: [-1]"), ["seeds[0]: is -1; it must be at least 0."]),
    "large seed": (changed(SEEDS, "seeds: [4294967296]"), ["it must be at most 4294967295."]),
    # types and ranges
    "text for a number": (changed(EPOCHS, '  epochs: "3"'), [":17: training.epochs: ", "Write 3 without quotes."]),
    "float for an integer": (changed(EPOCHS, "  epochs: 3.5"), ["is the number 3.5, not a whole number."]),
    "zero epochs": (changed(EPOCHS, "  epochs: 0"), [":17: training.epochs: is 0; it must be at least 1."]),
    "quoted rate": (changed(LR, "optimizer: {lr: '1e-4'}"), ["not a number. Write 1e-4 without quotes."]),
    "negative rate": (changed(LR, "optimizer: {lr: -1}"), [":19: training.optimizer.lr: is -1; ", "greater than 0."]),
    "unknown choice": (changed(LR, "optimizer: {lr: 1, name: adam}"), ["one of adamw, sgd. Did you mean adamw?"]),
    "short list": (changed(LR, "optimizer: {lr: 1, betas: [0.9]}"), ["betas: has 1 items; it must have at least 2."]),
    "long list": (changed(LR, "optimizer: {lr: 1, betas: [0.9, 0.9, 0.9]}"), ["betas: has 3 items", "at most 2."]),
    "list for a section": (changed(LR, "optimizer: [1e-4]"), ["is a list, not a section. It holds the keys name, lr"]),
    "text for a section": (changed(LR, "optimizer: adam"), ['is the text "adam", not a section.']),
    "text for a list": (changed("[c_attn]", "c_attn"), [":8: lora.target_modules: ", "Write [c_attn]."]),
    "text for a boolean": (VALID + "tracking: {tensorboard: 'true'}\n", ["neither true nor false", "without quotes"]),
    "wrong hash": (changed("sha256: 8", "sha256: X8"), ["data.builtin.sha256: is not a SHA-256: 64"]),
    "number for memory": (changed("cpus: 2", "memory: 2"), ["cluster.memory: ", "Write `memory: 2G`."]),
    "odd memory": (changed("cpus: 2", "memory: 2GB"), ["cluster.memory: ", "not an amount of memory"]),
    "number for time": (changed("time: 01:30:00", "time: 90"), ["cluster.time: ", "Write `time: 01:30:00`."]),
    "odd time": (changed("time: 01:30:00", "time: 01:75:00"), ["cluster.time: ", "is not a length of time"]),
    "minutes and seconds": (changed("time: 01:30:00", "time: 90:00"), ["cluster.time: ", "HH:MM:SS or D-HH:MM:SS"]),
    "no time": (changed("time: 01:30:00", "time: 00:00:00"), ["Slurm takes for no limit"]),
    "lock outside": (VALID + "image: {lock: ../requirements.lock}\n", ["image.lock: ", "not a path inside the repo"]),
    "absolute lock": (VALID + "image: {lock: /etc/passwd}\n", ["image.lock: ", "not a path inside the repo"]),
    "unknown engine": (VALID + "image: {engine: podman}\n", ['"podman"; it must be one of host, docker, apptainer.']),
    "tag": (
        VALID + "image: {engine: docker, base: python:3.11}\n",
        ["image.base: names a tag, which", "This shows it: docker pull python:3.11"],
    ),
    "port, no tag": (
        VALID + "image: {engine: docker, base: reg:5000/py}\n",
        ["image.base: has no digest; it must be name@sha256"],
    ),
    "short digest": (VALID + "image: {engine: docker, base: 'py@sha256:12'}\n", ["64 hexadecimal digits"]),
    "definition in docker": (VALID + "image: {engine: docker, build: definition}\n", ["which only Apptainer builds"]),
    # keys
    "typo": (changed(LR, "optimizer: {lr: 1, weigth_decay: 1}"), ["weigth_decay: unknown", "mean `weight_decay`?"]),
    "key of another section": (changed(EPOCHS, f"{EPOCHS}\n  lr: 1"), ["It belongs under `training.optimizer`."]),
    "key of another tool": (changed(EPOCHS, f"{EPOCHS}\n  learning_rate: 1"), ["called `training.optimizer.lr`."]),
    "nothing like it": (changed(EPOCHS, f"{EPOCHS}\n  zzz: 1"), ["training.zzz: unknown key. Known here: epochs,"]),
    "flag in the config": (changed("cpus: 2", "partition: gpu"), ["cluster.partition: unknown key.", "`--partition`"]),
    "resume": (VALID + "resume: true\n", ["resume: unknown key.", "newest valid checkpoint by itself."]),
    "missing section": (changed(f"  {LR}\n", ""), [":16: training.optimizer: missing. Add `optimizer: {lr: 3e-4}`"]),
    "missing key": (changed(LR, "optimizer: {}"), [":19: training.optimizer.lr: missing. Add `lr: 3e-4` under"]),
    "lora left out": (changed("lora: {r: 8, alpha: 16, target_modules: [c_attn]}\n", ""), ["`lora: null` trains"]),
    "both models": (
        changed("model:\n", "model:\n  pretrained: {id: a/b, revision: main}\n"),
        ["revision: is not a full commit hash"],
    ),
    "neither data": (
        changed("  builtin:", "  files:\n    train: 3\n  builtin:"),
        ["data.files.train: ", "not a section"],
    ),
    # between sections
    "threads without cores": (
        VALID + "numerics: {threads: 4}\n",
        [":23: numerics.threads: is 4, but cluster.cpus is 2."],
    ),
    "cuda without a gpu": (VALID + "numerics: {device: cuda}\n", ["numerics.device: is cuda, but cluster.gpus is 0."]),
    "more nodes than ranks": (
        changed("cpus: 2", "nodes: 2"),
        [":21: cluster.nodes: is 2, but training.parallel.ranks is 1: each node has as many."],
    ),
    "more gpus than ranks": (
        changed("cpus: 2", "gpus: 2") + "numerics: {device: cuda}\n",
        [":21: cluster.gpus: is 2, but a node has 1 of the ranks, with a GPU each."],
    ),
    "tokenizer of no model": (
        changed("  max_length: 16", "  max_length: 16\n  tokenizer: pretrained"),
        [":16: data.tokenizer: is pretrained, but model.pretrained is not given."],
    ),
    # words that readers of YAML disagree about
    "yes": (changed(EPOCHS, "  epochs: yes"), ["`yes` is true to some", 'Write true, or "yes".']),
    "off among any values": (changed("eps: 1e-5", "tie: off"), [":7: model.architecture.settings.tie: `off` is false"]),
    "octal": (changed(EPOCHS, "  epochs: 010"), ["`010` is octal to some", 'Write 10, or "010".']),
    "new octal": (changed(EPOCHS, "  epochs: 0o17"), ["`0o17` is a number to some", "Write it in decimal."]),
    "grouped digits": (changed(EPOCHS, "  epochs: 1_000"), ["`1_000` is a number to some", "Write 1000"]),
    "infinite": (changed("eps: 1e-5", "eps: .inf"), ["settings.eps: `.inf` is not a value"]),
    "not a number": (changed("eps: 1e-5", "eps: [1, .nan]"), ["settings.eps[1]: `.nan` is not a value"]),
    "too large": (changed("lr: 1e-4", "lr: 1e999"), ["`1e999` is larger than any number"]),
    "too small": (changed("lr: 1e-4", "lr: 1e-999"), ["`1e-999` is so small"]),
    "too many digits": (changed(EPOCHS, f"  epochs: {'9' * 5000}"), ["is a number of 5000 digits"]),
    # YAML
    "equal keys": (changed(EPOCHS, f"{EPOCHS}\n  epochs: 4"), [":18: training.epochs: given twice; first on line 17."]),
    "equal sections": (VALID + "training: 3\n", [":23: training: given twice; first on line 16."]),
    "tab": (changed(EPOCHS, "\tepochs: 3"), [":17: not valid YAML: a tab"]),
    "indentation": (changed(EPOCHS, "   epochs: 3"), [":18: not valid YAML: the indentation does not fit"]),
    "two colons": (changed("name: quick", "name: quick: x"), [":2: not valid YAML: a `:`"]),
    "open quote": (changed("name: quick", "name: 'quick"), [":2: not valid YAML: a quote that is never closed."]),
    "open bracket": (changed(SEEDS, "seeds: [0, 1"), ["not valid YAML: a `[` that is never closed"]),
    "reserved character": (
        changed("name: quick", "name: @quick"),
        [":2: not valid YAML: a character that must be quoted"],
    ),
    "python tag": (
        changed("name: quick", "name: !!python/object/apply:os.system [touch gotcha]"),
        [":2: name: the tag `!!python/object/apply:os.system` is not read."],
    ),
    "alias": (changed("name: quick", "name: &a quick\nevaluation: *a"), [":3: evaluation: `*a` is an alias."]),
    "merge": (changed("name: quick", "name: quick\n<<: {a: b}"), [":3: `<<` merges another section."]),
    "number as key": (changed("name: quick", "3: x\nname: quick"), [':2: 3: keys are texts. Write "3" in quotes.']),
    "list as key": (changed("name: quick", "? [a]\n: 3\nname: quick"), [":2: a key must be a plain text."]),
    "second document": (VALID + "---\na: 1\n", [":23: a second document starts here"]),
    "list at the top": ("- a\n- b\n", [":1: the file holds a list; it must hold `key: value` lines."]),
    "text at the top": ("hello\n", [":1: the file holds a single value"]),
    "empty": ("", [":1: the file is empty."]),
    "only a comment": ("# nothing\n", [":1: the file is empty."]),
    "null at the top": ("null\n", [":1: the file is empty."]),
    "deep": (changed("lr: 1e-4", "lr: " + "[" * 40 + "]" * 40), [":19: more than 32 levels"]),
    "very deep": ("a: " + "[" * 100_000, [":1: more than 32 levels"]),
    "half a character": (changed("name: quick", 'name: "\\ud800"'), [":2: name: holds half of a surrogate pair"]),
    # bytes
    "nul": (changed("name: quick", "name: quick\0"), [":2: a control character (U+0000)"]),
    "escape": (changed("name: quick", "name: \x1b[31mquick"), [":2: a control character (U+001B)"]),
    "not utf-8": (VALID.encode().replace(b"quick", b"qu\xefck"), [":2: byte 0xef is not UTF-8."]),
    "utf-16": (VALID.encode("utf-16"), [":1: byte 0xff is not UTF-8."]),
    "too long": ("# x\n" * 70_000, [":1: the file has "]),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake(name, tmp_path, monkeypatch, capsys):
    text, fragments = CASES[name]
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, text).relative_to(tmp_path)
    before = snapshot(tmp_path)

    code = guarded(lambda: load(path), [])

    said = capsys.readouterr()
    assert code == ExitCode.CONFIG, said.err
    assert said.out == ""
    assert said.err.startswith("x.yaml:")
    for fragment in fragments:
        assert fragment in said.err
    assert "Traceback" not in said.err
    assert "pydantic" not in said.err
    assert snapshot(tmp_path) == before


def test_right_config_has_none_of_these(tmp_path):
    assert load(written(tmp_path, VALID)).experiment.seeds == [0, 1, 2]


def test_all_mistakes_come_at_once_in_the_order_of_the_lines(tmp_path, capsys):
    text = (
        VALID.replace("name: quick", "name: a b")
        .replace(SEEDS, "seed: 0")
        .replace(EPOCHS, "  epochs: no")
        .replace(LR, "optimizer: {lr: '1', weigth_decay: 0}")
        .replace("cpus: 2", "cpus: 2\n  cpus: 3")
    )
    assert guarded(lambda: load(written(tmp_path, text)), []) == ExitCode.CONFIG
    lines = [
        line.split("x.yaml:")[1].split(": ")[:2] for line in capsys.readouterr().err.splitlines() if "x.yaml" in line
    ]
    assert lines == [
        ["2", "name"],
        ["3", "seed"],
        ["17", "training.epochs"],
        ["19", "training.optimizer.lr"],
        ["19", "training.optimizer.weigth_decay"],
        ["22", "cluster.cpus"],
    ]


def test_a_tag_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    guarded(lambda: load(written(tmp_path, CASES["python tag"][0])), [])
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]


def test_billion_laughs_cost_nothing(tmp_path, capsys):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert guarded(lambda: load(written(tmp_path, "\n".join(levels))), []) == ExitCode.CONFIG
    assert "is an alias" in capsys.readouterr().err
