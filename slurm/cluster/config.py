"""The text of Slurm's configuration files."""

import socket
from pathlib import Path

from cluster.layout import NODES, ClusterError, Layout, Options
from cluster.release import PLUGINS

CTLD_PORT = 0
FIRST_NODE_PORT = 1
DBD_PORT = 5
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
CRED_EXPIRE = 6  # also how long a requeued job waits before it may start again; Slurm ignores less than 5


def slurm_conf(layout: Layout, options: Options, release: Path | None = None) -> str:
    """slurm.conf. Short waits throughout, so that a test sees a requeued job start within seconds and not minutes.
    `release`: where a version lies that is not the machine's own."""
    lines = [
        "ClusterName=samebits",
        f"SlurmctldHost={socket.gethostname()}(127.0.0.1)",
        f"SlurmctldPort={options.base_port + CTLD_PORT}",
        "SlurmUser=slurm",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge}/socket,cred_expire={CRED_EXPIRE}",
        f"StateSaveLocation={layout.state}",
        f"SlurmctldPidFile={layout.run}/slurm/slurmctld.pid",
        f"SlurmctldLogFile={layout.log}/slurmctld.log",
        f"SlurmdSpoolDir={layout.spool}/%n",
        f"SlurmdPidFile={layout.run}/slurm/slurmd-%n.pid",
        f"SlurmdLogFile={layout.log}/slurmd-%n.log",
        "SlurmdParameters=config_overrides",  # the nodes have what is written here, whatever this machine has
        # no cgroups, no affinity: they need rights that a container does not give
        "ProctrackType=proctrack/linuxproc",
        f"TaskPlugin=task/{'cgroup' if options.confine_memory else 'none'}",
        "JobAcctGatherType=jobacct_gather/none",
        "PropagateResourceLimits=NONE",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "DefMemPerCPU=1000",
        "GresTypes=gpu",
        "MpiDefault=none",
        "SwitchType=switch/none",
        "ReturnToService=2",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "JobRequeue=1",
        "KillWait=30",  # a slow machine must get from the signal to its answer before it; what ends by itself waits for nothing
        "OverTimeLimit=0",
        "InactiveLimit=0",
        "Waittime=0",
        "SlurmctldTimeout=60",
        "SlurmdTimeout=30",
        "MessageTimeout=30",
        "EpilogMsgTime=1",
        f"MinJobAge={options.min_job_age}",
        "MaxArraySize=1001",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2",
        "PriorityType=priority/basic",
    ]
    return "\n".join([*lines, *_plugins(release), *_asked_for(layout, options), *_nodes(options)]) + "\n"


def _asked_for(layout: Layout, options: Options) -> list[str]:
    lines = []
    if options.confine_memory:  # the groups bear the job's number, and those of two clusters lie side by side
        lines.append(f"FirstJobId={options.base_port * 1000}")
    if options.user_signal:
        lines.append("SlurmctldParameters=preempt_send_user_signal")
    if options.accounting:
        lines += [
            "AccountingStorageType=accounting_storage/slurmdbd",
            "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={options.base_port + DBD_PORT}",
            f"AccountingStoragePass={layout.munge}/socket",  # for slurmdbd, the socket of munge stands here and not in AuthInfo
            "AccountingStorageTRES=gres/gpu",
        ]
    return lines


def _nodes(options: Options) -> list[str]:
    first = options.base_port + FIRST_NODE_PORT
    nodes = f"n[1-{len(NODES)}]"
    return [
        (
            f"NodeName={nodes} NodeHostname=localhost NodeAddr=127.0.0.1 Port=[{first}-{first + len(NODES) - 1}]"
            f" CPUs={options.node_cpus} RealMemory=8000 Gres=gpu:2 State=UNKNOWN"
        ),
        (
            f"PartitionName=gpu Nodes={nodes} Default=YES DefaultTime=60 MaxTime=1-0 State=UP"
            # LLN: seeds spread over the nodes, as they would on a busy cluster, instead of filling the first one.
            f" PriorityTier=1 PreemptMode=REQUEUE GraceTime={options.grace} LLN=YES"
        ),
        f"PartitionName=high Nodes={nodes} DefaultTime=60 MaxTime=1-0 State=UP PriorityTier=10 PreemptMode=OFF",
    ]


def gres_conf(layout: Layout) -> str:
    return f"NodeName=n[1-{len(NODES)}] Name=gpu File={layout.devices}/nvidia[0-1]\n"


def cgroup_conf(options: Options) -> str:
    """Memory only. Raises ClusterError where this machine cannot."""
    if not options.confine_memory:
        return "CgroupPlugin=disabled\n" if options.slurm != "22.05" else ""
    if not MEMORY_GROUPS.is_dir():
        raise ClusterError(
            f"--confine-memory needs {MEMORY_GROUPS}: control groups of version 1, as Slurm uses without systemd."
        )
    return "CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\n"


def _plugins(release: Path | None) -> list[str]:
    return [f"PluginDir={release / PLUGINS}"] if release else []


def slurmdbd_conf(layout: Layout, options: Options, release: Path | None = None) -> str:
    return "\n".join(
        [
            "AuthType=auth/munge",
            f"AuthInfo=socket={layout.munge}/socket",
            "DbdHost=localhost",
            "DbdAddr=127.0.0.1",
            f"DbdPort={options.base_port + DBD_PORT}",
            "SlurmUser=slurm",
            f"PidFile={layout.run}/slurm/slurmdbd.pid",
            f"LogFile={layout.log}/slurmdbd.log",
            "StorageType=accounting_storage/mysql",
            "StorageHost=localhost",
            "StorageUser=slurm",
            "StorageLoc=slurm_acct_db",
            *_plugins(release),
            "",
        ]
    )
