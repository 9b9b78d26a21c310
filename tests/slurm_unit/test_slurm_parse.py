"""Answers of Slurm 22.05.8, as they were recorded."""

from datetime import datetime

import pytest

from launcher.cluster import Answer, JobStatus, members, parse_job, parse_sacct, parse_squeue, settled, states
from launcher.partitions import Partition, limit_minutes, parse_sinfo

RUNNING = (
    "JobId=12 ArrayJobId=12 ArrayTaskId=0 ArrayTaskThrottle=1 JobName=tl UserId=tester(1001) GroupId=tester(1001) MCS_label=N/A "
    "Priority=4294901750 Nice=0 Account=(null) QOS=normal JobState=RUNNING Reason=None Dependency=(null) Requeue=1 Restarts=3 "
    "BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:03 TimeLimit=00:01:00 TimeMin=N/A SubmitTime=2026-11-23T04:49:47 "
    "EligibleTime=2026-11-23T04:49:54 AccrueTime=2026-11-23T04:49:54 StartTime=2026-11-23T04:49:55 EndTime=2026-11-23T04:50:55 "
    "Deadline=N/A PreemptEligibleTime=2026-11-23T04:49:55 PreemptTime=None SuspendTime=None SecsPreSuspend=0 "
    "LastSchedEval=2026-11-23T04:49:55 Scheduler=Main Partition=gpu AllocNode:Sid=localhost:22914 ReqNodeList=(null) "
    "ExcNodeList=(null) NodeList=n1 BatchHost=n1 NumNodes=1 NumCPUs=1 NumTasks=1 CPUs/Task=1 ReqB:S:C:T=0:0:*:* "
    "TRES=cpu=1,mem=100M,node=1,billing=1,gres/gpu=1 Socks/Node=* NtasksPerN:B:S:C=1:0:*:* CoreSpec=* MinCPUsNode=1 "
    "MinMemoryNode=100M MinTmpDiskNode=0 Features=(null) DelayBoot=00:00:00 OverSubscribe=OK Contiguous=0 Licenses=(null) "
    "Network=(null) Command=/home/tester/x/.submission_file_fe52.sh WorkDir=/home/tester/x Comment=samebits:20261123-044825-4c25  "
    "StdErr=/home/tester/x/12_0.log StdIn=/dev/null StdOut=/home/tester/x/12_0.log Power= TresPerNode=gres:gpu:1 \n"
)
PENDING = (
    "JobId=14 ArrayJobId=14 ArrayTaskId=4 ArrayTaskThrottle=2 JobName=arr UserId=tester(1001) GroupId=tester(1001) MCS_label=N/A "
    "Priority=4294901748 Nice=0 Account=(null) QOS=normal JobState=PENDING Reason=JobArrayTaskLimit Dependency=(null) Requeue=1 "
    "Restarts=0 BatchFlag=1 SubmitTime=2026-11-23T04:49:59 EligibleTime=Unknown StartTime=Unknown EndTime=Unknown Deadline=N/A "
    "SuspendTime=None Partition=gpu NodeList= NumNodes=1-1 Command=/home/tester/x.sh WorkDir=/home/tester\n"
)


def test_a_running_job():
    facts = parse_job(RUNNING)
    assert (facts.state, facts.reason, facts.restarts, facts.node) == ("RUNNING", "None", 3, "n1")
    assert facts.preempt_time is None
    assert facts.end_time == datetime(2026, 11, 23, 4, 50, 55)  # noqa: DTZ001 - Slurm's times have no zone


def test_a_preempted_one():
    facts = parse_job(RUNNING.replace("PreemptTime=None", "PreemptTime=2026-11-23T04:50:00"))
    assert facts.evidence()["PreemptTime"] == "2026-11-23T04:50:00"


def test_a_pending_one():
    facts = parse_job(PENDING)
    assert (facts.state, facts.reason, facts.node, facts.end_time) == ("PENDING", "JobArrayTaskLimit", "", None)


@pytest.mark.parametrize("name", ["x JobState=CANCELLED Restarts=9", "a b=c", "UserId=me(1) JobState=FAILED", "ü'\""])
def test_a_jobs_name_and_paths_cannot_pass_for_facts(name):
    text = RUNNING.replace("JobName=tl", f"JobName={name}").replace("/home/tester/x", f"/home/{name}")
    assert parse_job(text) == parse_job(RUNNING)


def test_a_reason_of_several_words():
    assert (
        parse_job(RUNNING.replace("Reason=None", "Reason=launch failed requeued held")).reason
        == "launch failed requeued held"
    )


@pytest.mark.parametrize("text", ["", "\n", "slurm_load_jobs error: Invalid job id specified\n"])
def test_no_record(text):
    assert parse_job(text) is None


def test_squeue():
    text = "11_0|FAILED|n3|NonZeroExitCode\n14_[2-4%2]|PENDING||JobArrayTaskLimit\n14_1|RUNNING|n3|None\n7|CANCELLED||Priority\n"
    found = parse_squeue(text)
    assert set(found) == {"11_0", "14_1", "14_2", "14_3", "14_4", "7"}
    assert found["11_0"] == JobStatus("11_0", "FAILED", "NonZeroExitCode", "n3")
    assert found["14_3"].state == "PENDING"
    assert found["11_0"].ended
    assert not found["14_1"].ended


@pytest.mark.parametrize("reason", ["JobHeldUser", "JobHeldAdmin", "launch failed requeued held"])
def test_held(reason):
    assert JobStatus("1_0", "PENDING", reason, "").held


def test_sacct():
    found = parse_sacct(
        "7_0|CANCELLED by 0|n1|0:0\n11_0|FAILED|n3|1:0\n8_[0%3]|PENDING|None assigned|0:0\n7_0.batch|FAILED|n1|0:15\n"
    )
    assert {job: status.state for job, status in found.items()} == {
        "7_0": "CANCELLED",
        "11_0": "FAILED",
        "8_0": "PENDING",
    }
    assert found["8_0"].node == ""
    assert settled(found["8_0"]).state == "CANCELLED"
    assert settled(found["11_0"]).state == "FAILED"


@pytest.mark.parametrize(
    ("number", "tasks"),
    [
        ("123", ["123"]),
        ("123_4", ["123_4"]),
        ("123_[0-2%4]", ["123_0", "123_1", "123_2"]),
        ("123_[1,3,5-6]", ["123_1", "123_3", "123_5", "123_6"]),
        ("123_[0-6:3]", ["123_0", "123_3", "123_6"]),
        ("123_[0-1,...]", ["123_0", "123_1"]),
    ],
)
def test_members_of_an_array(number, tasks):
    assert members(number) == tasks


def test_sinfo():
    text = "gpu|up|1-00:00:00|4|4|gpu:2\nhigh|drain|infinite|1|64+|gpu:a100:4(S:0-1),gpu:t4:2\nhigh|drain|infinite|2|8|(null)\n"
    assert parse_sinfo(text) == {
        "gpu": Partition("gpu", up=True, minutes=1440, nodes=4, cpus=4, gpus=2),
        "high": Partition("high", up=False, minutes=None, nodes=3, cpus=64, gpus=6),
    }


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("30:00", 30), ("1:00:00", 60), ("2-01:30:00", 2 * 1440 + 90), ("infinite", None), ("n/a", None)],
)
def test_limits(text, minutes):
    assert limit_minutes(text) == minutes


def test_without_slurm_nothing_is_concluded(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = states(["1_0"])
    assert (answer.jobs, "`squeue` is not on PATH" in answer.silent) == ({}, True)
    assert states([]) == Answer({})
