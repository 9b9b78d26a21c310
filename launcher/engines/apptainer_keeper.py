"""The keeper: stands between the task and Apptainer, so that a run in an image gets signals, and ends, as one without.

Slurm signals every process of a step, Apptainer's own as well. Apptainer's parent dies of one that comes while it sets up; the
run's Python dies of one that comes before its handlers stand. So nothing here relies on them: signals are kept until the
container's first process says that it is there (`apptainer_inner`), and go to it over a socket. That socket is its leash, too: it
ends with the keeper, which the kernel ends with its task.

Executed as a file of its own by the host's Python with -I -S: standard library only, nothing of this project."""

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time

STOPS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
PR_SET_CHILD_SUBREAPER = 36
SAVED, UNFIT = 75, 79
LATE_SECONDS = 1.0
"""A signal of Slurm may reach this process so much later than the one that died of it."""
LAST_SECONDS = 10.0
"""How long Apptainer may take to tidy up after its container has ended."""
SERVERS = ("squashfuse", "fuse2fs", "fuse-overlayfs", "gocryptfs")


class Keeper:
    """One start of Apptainer, to its end."""

    def __init__(self, folder: str, message: bytes) -> None:
        self.folder = folder
        self.message = message
        self.stops: list[int] = []
        """Every stop signal, in order."""
        self.told = 0
        """So many of them were passed on."""
        self.inner: socket.socket | None = None
        self.words = b""
        """What the container's first process said: the run's wait status."""
        self.apptainer = 0
        self.status: int | None = None
        """Apptainer's own wait status."""

    def run(self, argv: list[str], environment: dict[str, str]) -> int:
        """Wait status of the run; of Apptainer, where there was none to report it."""
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in STOPS:
            signal.signal(number, lambda number, _frame: self.stops.append(number))
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(os.path.join(self.folder, "keeper", "socket"))
            listening.listen(1)
            self.apptainer = _spawn(argv, environment)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            while self.status is None:
                sources: list[socket.socket | int] = [woken, self.inner if self.inner is not None else listening]
                ready, _, _ = select.select(sources, [], [])
                if woken in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(woken, 512)
                    self._reap()
                if listening in ready:
                    self._greet(listening)
                elif self.inner is not None and self.inner in ready and not self._listen():
                    break
                self._pass_on()
        return self._end()

    def _greet(self, listening: socket.socket) -> None:
        self.inner, _ = listening.accept()
        self.inner.sendall(len(self.message).to_bytes(8, "big") + self.message)
        self.message = b""
        for name in _unshielded(self.apptainer):
            print(
                f"warning: {name} of this Apptainer does not ignore SIGTERM: a preemption can take the image away under a run that "
                "saves. See Signals in docs/images.md.",
                file=sys.stderr,
                flush=True,
            )

    def _listen(self) -> bool:
        """False: the container's first process has ended."""
        try:
            block = self.inner.recv(64) if self.inner is not None else b""
        except OSError:
            block = b""
        self.words += block
        return bool(block)

    def _pass_on(self) -> None:
        if self.inner is None or self.told == len(self.stops):
            return
        numbers = self.stops[self.told :]
        self.told += len(numbers)
        with contextlib.suppress(OSError):  # it has ended; its status comes next
            self.inner.sendall(bytes(numbers))

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.apptainer:
                    self.status = status

    def _end(self) -> int:
        """Let Apptainer unmount what it mounted; then nothing of it may be left."""
        began = time.monotonic()
        while self.status is None and time.monotonic() - began < LAST_SECONDS:
            self._reap()
            time.sleep(0.01)
        _kill_children()
        self._reap()
        if self.words.endswith(b"\n"):
            return int(self.words)
        status = self.status if self.status is not None else int(signal.SIGKILL)
        if self.inner is None:
            return self._not_begun(status)
        code = os.waitstatus_to_exitcode(status)
        return code - 128 if code > 128 else status  # killed with its container: Apptainer says 128 + the signal

    def _not_begun(self, status: int) -> int:
        """Apptainer ended before there was a run. Of a stop signal: then nothing is lost, and the next attempt goes on."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        if self.stops or signal.sigtimedwait(STOPS, LATE_SECONDS) is not None:
            print("stopped before the run began: nothing to save", file=sys.stderr, flush=True)
            return SAVED << 8
        code = os.waitstatus_to_exitcode(status)
        if code == UNFIT:
            return status
        print(
            f"refused: Apptainer did not start the image ({f'signal {-code}' if code < 0 else f'exit code {code}'}); "
            "what it said is above.",
            file=sys.stderr,
            flush=True,
        )
        return UNFIT << 8


def _spawn(argv: list[str], environment: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execve(argv[0], argv, environment)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
    os._exit(127)


def _children(parent: int) -> list[int]:
    """Direct children, zombies not counted."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, above = file.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            if int(above) == parent and state not in (b"Z", b"X"):
                found.append(int(name))
    return found


def _kill_children() -> None:
    """What Apptainer left behind became ours: a FUSE server keeps its mount, and itself, for ever."""
    for _ in range(100):
        left = _children(os.getpid())
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _unshielded(apptainer: int) -> list[str]:
    """FUSE servers that SIGTERM would end."""
    found = []
    for pid in _children(apptainer):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            fields = dict(line.rstrip("\n").partition(":\t")[::2] for line in file)
            ignored = int(fields["SigIgn"], 16) >> (signal.SIGTERM - 1) & 1
            if fields["Name"].startswith(SERVERS) and not ignored:
                found.append(fields["Name"])
    return found


def main() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    start = json.loads(os.environ.pop("SAMEBITS_START"))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    with contextlib.suppress(PermissionError):  # the task has done so
        os.setsid()  # what may be left is known by its session
    with open(os.path.join(folder, "lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print(os.getpid(), file=lock, flush=True)
        keeper = Keeper(folder, json.dumps(start["run"]).encode())
        try:
            status = keeper.run(start["argv"], start["environment"])
        finally:
            _kill_children()
            shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.flush()
    sys.stderr.flush()
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
    os.kill(os.getpid(), -code)
    os._exit(128 - code)


if __name__ == "__main__":
    main()
