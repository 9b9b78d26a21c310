"""A plan for Slurm, made by hand: its maker is another module's affair."""

from pathlib import Path

import pytest
from arbiter_job import Job

from launcher.engines import ImageRequest, NodeOptions, Workshop
from launcher.plan import Plan, RunPlan, SlurmRequest, Source


@pytest.fixture
def make_plan(tmp_path):
    def make(*, seeds=(0, 1, 2), root=tmp_path, **changes):
        request = {
            "site": "default",
            "job_name": "tiny",
            "partition": "gpu",
            "account": None,
            "qos": None,
            "time_minutes": 90,
            "nodes": 1,
            "cpus_per_task": 2,
            "gpus_per_node": 0,
            "memory": "1G",
            "signal_seconds": 60,
            "array_parallelism": 2,
            "exclude": None,
            "setup": (),
            "teardown": (),
            "additional": {},
        }
        return Plan(
            experiment="tiny",
            config_file=Path("configs/tiny.yaml"),
            config_text="",
            tree=root / "experiments" / "tiny",
            store=root / "store",
            source=Source(root, "0" * 40, "1" * 40, None, ()),
            image=ImageRequest("host", root, "0" * 40, "1" * 40, "requirements.lock", "2" * 64),
            workshop=Workshop(root / "store"),
            node=NodeOptions(root / "store"),
            network="none",
            pin=None,
            ranks=0,
            runs=tuple(RunPlan(seed, "new", "{}") for seed in seeds),
            environment=(),
            mounts={},
            local_parallelism=1,
            slurm=SlurmRequest(**{**request, **changes}),
            notes=(),
        )

    return make


@pytest.fixture
def job(tmp_path, monkeypatch):
    return Job(tmp_path, monkeypatch)
