"""How busy the GPU is, sampled through NVML beside the run; null with the reason where there is none to ask, never 0."""

import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

INTERVAL: Final = 0.5
"""Seconds between two samples. NVML's own figure covers the last sixth of a second to a second."""


class Gauge:
    """A thread that samples one GPU until `close`. No thread where there is nothing to sample."""

    def __init__(self, device: "torch.device", nvml: Any = None) -> None:
        """`nvml`: the module to ask, pynvml unless given."""
        self._reason: str | None = None
        self._handle: Any = None
        self._nvml = nvml
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._busy: list[int] = []
        self._memory: int | None = None
        self._thread: threading.Thread | None = None
        if device.type != "cuda":
            self._reason = f"runs on the {device.type}"
            return
        try:
            self._open(device)
        except Exception as error:  # noqa: BLE001 - a gauge never ends a run
            self._reason = f"NVML: {error}"
            return
        self._thread = threading.Thread(target=self._sample_until_closed, name="gpu-gauge", daemon=True)
        self._thread.start()

    def read(self) -> dict[str, Any]:
        """Since the last read: mean utilization in percent, largest memory in use in bytes; or why they are not known."""
        if self._handle is not None:
            self._sample()  # so that even a short time has one
        with self._lock:
            busy, memory, reason = self._busy, self._memory, self._reason
            self._busy, self._memory = [], None
        mean = sum(busy) / len(busy) if busy else None
        return {
            "gpu_utilization": mean,
            "gpu_reason": None if mean is not None else reason or "NVML gave no sample",
            "gpu_memory_bytes": memory,
        }

    def close(self) -> None:
        """Stop sampling. Twice is as good as once."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self._thread, self._handle = None, None
            self._nvml.nvmlShutdown()

    def _open(self, device: "torch.device") -> None:
        import torch

        if self._nvml is None:
            import pynvml

            self._nvml = pynvml
        self._nvml.nvmlInit()
        # By its uuid: NVML counts all GPUs of the machine, torch those that CUDA_VISIBLE_DEVICES leaves.
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        self._handle = self._nvml.nvmlDeviceGetHandleByUUID(name)

    def _sample_until_closed(self) -> None:
        while not self._closing.wait(INTERVAL):
            self._sample()

    def _sample(self) -> None:
        """Each figure by itself: a slice of a GPU (MIG) has memory, but NVML knows no utilization for it."""
        try:
            used = int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
            with self._lock:
                self._memory = max(used, self._memory or 0)
            busy = int(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu)
            with self._lock:
                self._busy.append(busy)
                self._reason = None
        except Exception as error:  # noqa: BLE001
            with self._lock:
                self._reason = f"NVML: {error}"
