"""How long training is held up by a checkpoint: written at once, written behind, and the bare copy in memory. Run it by hand:

    python tests/bench/bench_checkpoint.py [ROUNDS]

Then what the writing takes from the training beside it, which shares the machine: the same work with and without a checkpoint under
way, for as long as that takes."""

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from measured import in_turn, model, pinned, table, timed, tree


def keeper_of(folder: Path, network: Any) -> tuple[Any, Any]:
    import torch
    from content_samples import specification

    from jobs.checkpoint import Checkpoints
    from jobs.checksum import Checksum
    from jobs.keeper import Keeper, Logbook
    from jobs.ledger import Ledger
    from jobs.linefile import LineFile, Mark
    from jobs.loop import make_optimizer
    from jobs.order import Course
    from jobs.rundir import RunDir
    from jobs.state import TrainingState

    made, run = specification(), RunDir(folder / "sample", 3)
    run.logs.mkdir(parents=True)

    class Unfenced:
        attempt = 1

        def __call__(self) -> None:
            pass

    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = make_optimizer(made.recipe.training, trained)
    for parameter in trained:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    state = TrainingState(network, optimizer, torch.device("cpu"))
    assert isinstance(state.checksum, Checksum)
    metrics, lines = (LineFile(path, Mark(), lambda: None) for path in (run.metrics_file, run.ledger))
    keeper = Keeper(
        specification=made, directory=run, fence=Unfenced(), checkpoints=Checkpoints(run.checkpoints, 2, lambda: None),
        state=state, course=Course(3, 10**6, 1, 1, 1), numerics={}, logbook=Logbook(metrics, lines, Ledger(lines)), say=print,
        file=None, position=state.progress.position,
    )  # fmt: skip
    return keeper, state


def measure(name: str, folder: Path, network: Any, rounds: int) -> None:
    import torch

    keeper, state = keeper_of(folder, network)
    pairs = list(state.trainable.values())
    pairs += [t for moments in state.optimizer.state.values() for t in moments.values()]
    copies = [torch.empty_like(tensor) for tensor in pairs]
    work = torch.randn(384, 384)

    def copy() -> float:
        return timed(lambda: torch._foreach_copy_(copies, [tensor.detach() for tensor in pairs]))

    def at_once() -> float:
        state.progress.step += 1
        return timed(lambda: (keeper.save(), keeper._outcome()))

    def behind() -> float:
        state.progress.step += 1
        taken = timed(keeper.save)
        while keeper._writer.busy:
            time.sleep(0.001)
        keeper.look()
        return taken

    def products(count: int, *, save: bool) -> float:
        def some() -> None:
            if save:
                state.progress.step += 1
                keeper.save()
            for _ in range(count):
                torch.mm(work, work)

        taken = timed(some)
        keeper._outcome()
        return taken

    with torch.no_grad():
        found = in_turn({"bare copy in memory": copy, "written behind": behind, "written at once": at_once}, rounds, 20)
        size = sum(tensor.nbytes for tensor in pairs) / 1e6
        table(
            f"{name}, {size:.1f} MB in {len(pairs)} tensors: training held up per checkpoint",
            found,
            "bare copy in memory",
        )
        # Work for about twice the time of a checkpoint, so that all of it is met.
        one = statistics.median([products(100, save=False) for _ in range(3)]) / 100
        count = max(20, int(2 * statistics.median(found["written at once"]) / one))
        beside = in_turn(
            {"without": lambda: products(count, save=False), "with a checkpoint behind it": lambda: products(count, save=True)},
            rounds, 20,
        )  # fmt: skip
        table(f"{name}: {count} matrix products", beside, "without")
        lost = [b - a for a, b in zip(*beside.values(), strict=True)]
        print(f"  so one checkpoint costs the training {statistics.median(lost) * 1e3:.1f} ms in all")
    keeper.close()


def main(rounds: int) -> None:
    with tree() as folder:
        measure("LoRA", folder / "lora", model(lora=True), rounds)
        measure("full", folder / "full", model(lora=False), rounds)


if __name__ == "__main__":
    pinned()
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
