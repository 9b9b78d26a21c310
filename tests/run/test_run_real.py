"""The whole program with its real parts: transformers, peft, data, facts, TensorBoard. What a miniature cannot show."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import miniature
import pytest
from same_bits import assert_same_run

from jobs.contract import ATTEMPT_VARIABLE, Exit
from jobs.errors import Refused
from jobs.files import read_lines
from jobs.preemption import StopFlag
from jobs.rundir import RunDir

SETTINGS = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
LORA = {"r": 2, "alpha": 4, "dropout": 0.1, "target_modules": ["c_attn"], "save_modules": ["wte", "lm_head"]}
BUILTIN = {"name": "arithmetic", "digits": 2, "train_rows": 40, "validation_rows": 20}


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """Two trees of one specification; the data's hash is the one that the run itself asks for."""
    from jobs.run import run

    monkeypatch.delenv(ATTEMPT_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)

    def tree(name: str, sha256: str) -> Path:
        specification = miniature.specification_of(
            data={"builtin": {**BUILTIN, "sha256": sha256}, "max_length": 12},
            training={"epochs": 2, "batch_size": 8, "accumulation": 2},
            project_root=str(tmp_path),
        )
        specification["recipe"]["model"]["architecture"]["settings"] = SETTINGS
        specification["recipe"]["lora"] = LORA
        directory = RunDir(tmp_path / name / miniature.NAME, miniature.SEED)
        directory.artifacts.mkdir(parents=True)
        directory.specification.write_text(json.dumps(specification))
        return directory.specification

    with pytest.raises(Refused) as refusal:
        run(tree("unknown", "0" * 64), StopFlag())
    (sha256,) = set(re.findall(r"[0-9a-f]{64}", str(refusal.value))) - {"0" * 64}
    return tree("calm", sha256), tree("blown", sha256)


def test_run_real_is_exact_and_complete(real: tuple[Path, Path]) -> None:
    from jobs.run import run

    calm, blown = real
    assert run(calm, StopFlag()) is Exit.DONE
    codes = [run(blown, miniature.StopAfter(6))]
    while codes[-1] is Exit.SAVED and len(codes) < 50:
        codes.append(run(blown, miniature.StopAfter(6)))
    assert codes[-1] is Exit.DONE
    assert len(codes) > 2
    first, second = RunDir.of_specification(calm), RunDir.of_specification(blown)
    assert_same_run(first, second)
    done, other = json.loads(first.done.read_text()), json.loads(second.done.read_text())
    assert done["sha256"] == other["sha256"]
    assert done["checkpoint"] == (first.checkpoints / "latest").readlink().name
    assert done["accuracy"] is not None
    resumed = [line for line in read_lines(second.events) if line["event"] == "resumed"]
    assert max(line["step"] for line in resumed) > 0, "it went on, it did not begin anew"
    assert not any(line["skipped"] for line in resumed)
    assert first.provenance.exists()
    assert list((first.metrics / "tensorboard").iterdir())
    assert run(calm, StopFlag()) is Exit.DONE


def test_run_real_has_the_same_bits_on_one_rank_and_on_two(real: tuple[Path, Path]) -> None:
    """Elastic, stopped once in between: transformers, peft, dropout, evaluation shared out; and who computed it is on record."""
    calm, blown = real
    for path in real:
        made = json.loads(path.read_text())
        made["recipe"]["training"]["parallel"] = {"ranks": 2, "elastic": True}
        path.write_text(json.dumps(made))
    first, second = RunDir.of_specification(calm), RunDir.of_specification(blown)

    def go(path: Path, ranks: int, *, stop: bool = False) -> int:
        argv = [sys.executable, "-P", "-m", "jobs", str(path)]
        environ = {**os.environ, "PYTHONPATH": str(Path(miniature.__file__).parents[2]), "SAMEBITS_RANKS": str(ranks)}
        with subprocess.Popen(
            argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            said = ""
            for line in process.stdout or ():
                said += line
                if stop and "before training" in line:
                    process.terminate()
        assert process.returncode in {Exit.DONE, Exit.SAVED}, said
        return process.returncode

    assert go(calm, 1) == Exit.DONE
    assert go(blown, 2, stop=True) == Exit.SAVED
    assert go(blown, 2) == Exit.DONE
    assert_same_run(first, second)
    attempts = json.loads(second.provenance.read_text())["attempts"]
    assert [[each["rank"] for each in attempt["ranks"]] for attempt in attempts] == [[0, 1], [0, 1]]
    assert json.loads(first.provenance.read_text())["attempts"][0]["ranks"] is None
