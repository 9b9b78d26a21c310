"""What ranks exchange in a step: reduced once, or gathered per micro-batch (elastic); two ranks on this machine, interleaved.

    python tests/bench/bench_ranks.py [ROUNDS]

Between nodes the network decides: bytes per step and rank are printed beside."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RANKS, ACCUMULATION = 2, 4
SIZES = {"LoRA, 1.2 MB": [64 * 1024] * 4 + [8 * 1024] * 5, "100 MB": [1 << 20] * 25}
"""Trainable fp32 values, by tensor."""


def rank(number: int, place: Path, rounds: int) -> None:
    import torch

    from jobs.layout import Layout
    from jobs.rendezvous import meet

    torch.set_num_threads(1)
    layout = Layout(RANKS, 1, 0, "127.0.0.1", number)
    ranks = meet(layout, place, torch.device("cpu"), lambda: False)
    taken: dict[str, list[float]] = {}
    for name, sizes in SIZES.items():
        gradients = [torch.randn(size) for size in sizes]
        for _ in range(rounds):
            for how in ("reduced", "elastic", "agreement alone"):
                ranks.numbers([0.0])  # begin together
                began = time.perf_counter()
                if how == "reduced":
                    ranks.numbers([0.0] * (3 * ACCUMULATION // RANKS + len(sizes)))
                    ranks.add(gradients)
                else:
                    for _round in range(ACCUMULATION // RANKS):
                        told = ranks.numbers([0.0] * (3 + len(sizes)))
                        if how == "elastic":
                            received = ranks.tensors(gradients)
                            sums = [tensor.clone() for tensor in received[0]]
                            for each in received[1:]:
                                torch._foreach_add_(sums, each)
                        assert len(told) == RANKS
                taken.setdefault(f"{name}: {how}", []).append(time.perf_counter() - began)
    ranks.close()
    if number == 0:
        print(json.dumps({name: statistics.median(times) for name, times in taken.items()}))


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "rendezvous.json"
        argv = [sys.executable, __file__, "--rank"]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        ranks = [
            subprocess.Popen(
                [*argv, str(number), str(place), str(rounds)], env=environ, stdout=subprocess.PIPE, text=True
            )
            for number in range(RANKS)
        ]
        said = [each.communicate()[0] for each in ranks]
    medians = json.loads(said[0])
    print(f"{RANKS} ranks, {ACCUMULATION} micro-batches a step, medians of {rounds} interleaved steps:")
    for name, sizes in SIZES.items():
        size = 4 * sum(sizes)
        reduced, elastic, bare = (medians[f"{name}: {how}"] for how in ("reduced", "elastic", "agreement alone"))
        print(
            f"  {name}: agreement alone {1e3 * bare:.2f} ms; reduced {1e3 * reduced:.2f} ms ({size / 1e6:.1f} MB); "
            f"elastic {1e3 * elastic:.2f} ms ({ACCUMULATION * size / 1e6:.1f} MB), {elastic / reduced:.1f}x"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        rank(int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
