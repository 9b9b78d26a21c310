"""What the measurements of the run share: rounds in turn, medians, and a model, a specification and a tree to measure with."""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "content"), str(ROOT / "tests" / "run")]

from jobs.determinism import environment  # noqa: E402 - found by the line above

NUMERICS = {"threads": 1, "cpu_capability": "avx2"}


def pinned() -> None:
    """Start this program anew in the environment of a run, which counts at process start alone."""
    wanted = environment(NUMERICS)
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})  # noqa: S606


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(works: Mapping[str, Callable[[], float]], rounds: int, most: float = 60.0) -> dict[str, list[float]]:
    """Seconds by name. Each round takes every work once, so that a slow minute of the machine slows all of them alike; the first
    round warms up and is left out. No round begins after `most` seconds."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    end = time.monotonic() + most
    for number in range(rounds + 1):
        for name, work in works.items():
            value = work()
            if number:
                taken[name].append(value)
        if number and time.monotonic() > end:
            break
    return taken


def table(title: str, taken: Mapping[str, Sequence[float]], against: str) -> None:
    """Medians and ranges in ms, and the ratio of medians."""
    bare = statistics.median(taken[against])
    print(f"\n{title}: {len(taken[against])} rounds; median, range in ms, ratio to '{against}'")
    for name, values in taken.items():
        middle = statistics.median(values)
        print(
            f"  {name:44} {middle * 1e3:9.2f}   {min(values) * 1e3:.2f}-{max(values) * 1e3:.2f}   {middle / bare:.3f}x",
            flush=True,
        )


@contextmanager
def tree() -> Iterator[Path]:
    """A folder on the disk of this checkout: a temporary folder may lie in memory."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=ROOT) as folder:
        yield Path(folder)


GPT2 = {"n_embd": 320, "n_layer": 6, "n_head": 5, "n_positions": 128, "tie_word_embeddings": True}
"""7.5M parameters and a byte-sized vocabulary: with AdamW's moments, a state of 90 MB."""
LORA = {"r": 8, "alpha": 16, "dropout": 0.1, "target_modules": ["c_attn", "c_proj", "c_fc"]}


def model(*, lora: bool) -> Any:
    """A transformer, all of it trained or LoRA alone."""
    import torch
    from transformers import AutoModelForCausalLM, GPT2Config

    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=258, bos_token_id=0, eos_token_id=0, **GPT2))
    if lora:
        from peft import LoraConfig, get_peft_model

        asked = LoraConfig(
            r=LORA["r"], lora_alpha=LORA["alpha"], lora_dropout=LORA["dropout"], target_modules=LORA["target_modules"],
            fan_in_fan_out=True,
        )  # fmt: skip
        made = get_peft_model(made, asked)
    return made


def batch(rows: int, length: int = 128) -> dict[str, Any]:
    import torch

    ids = torch.randint(258, (rows, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
