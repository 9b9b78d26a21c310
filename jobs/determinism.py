"""R2, R3: all seeds and flags that make a run a function of its specification, and the environment they need.

`environment` is standard library only: it is asked before torch is imported, since most of it acts at process start alone."""

import zlib
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from jobs.recipe import Numerics

_CAPABILITIES: Final = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "avx512": {"ATEN_CPU_CAPABILITY": "avx512", "MKL_CBWR": "AVX512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "default": {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
"""Each changes bits (docs/exactness.md), so they are pinned together: torch's own kernels, MKL's, oneDNN's."""


def environment(numerics: Mapping[str, Any]) -> dict[str, str]:
    """The variables that pin the bits, from the `numerics` section of run.json. They must be set before the process starts."""
    threads = str(numerics["threads"])
    return {
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        **_CAPABILITIES[numerics["cpu_capability"]],
        # Else MKL takes fewer threads where there are fewer cores, and sums in another order.
        "MKL_DYNAMIC": "FALSE",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def seed_everything(seed: int) -> None:
    """R2. What the recipe draws is computed (jobs/order.py); this is for whatever a user's code draws besides."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is the one that foreign code draws from
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def make_deterministic(numerics: "Numerics") -> None:
    """R3, and torch's own refusal of kernels that are not deterministic."""
    import torch

    torch.set_num_threads(numerics.threads)
    torch.backends.cudnn.deterministic = numerics.deterministic
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.use_deterministic_algorithms(numerics.deterministic)


def random_state(device_type: str) -> dict[str, Any]:
    """The global generators of python, numpy, torch and the CUDA device that is used, as tensors and integers only.

    So that a checkpoint that holds them loads with `weights_only=True`."""
    import random

    import numpy as np
    import torch

    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    return {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "kind": str(kind),
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if device_type == "cuda" else [],
    }


def random_checksums() -> dict[str, int]:
    """Of the states of those global generators that go on from where they were: torch's are set anew for each micro-batch."""
    import random

    import numpy as np

    _, words, gauss = random.getstate()
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "python": zlib.crc32(array("I", words), zlib.crc32(repr(gauss).encode())),
        "numpy": zlib.crc32(np.asarray(keys).data, zlib.crc32(repr([float(value) for value in rest]).encode())),
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """The inverse of `random_state`."""
    import random

    import numpy as np
    import torch

    python, kept = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    np.random.set_state(  # noqa: NPY002
        (kept["kind"], kept["keys"].numpy().astype(np.uint32), kept["position"], kept["has_gauss"], kept["cached"])
    )
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0])


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the global generators as they were found: for what draws from them and must not count."""
    import random

    import numpy as np
    import torch

    python, array, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    drawn = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state() if drawn else None  # this device's: the others are other ranks'
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)


@contextmanager
def deterministic_kernels() -> Iterator[None]:
    """R3: evaluation is deterministic even in a run whose training is not."""
    import torch

    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(mode=True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
