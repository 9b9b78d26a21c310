"""The gauge: a reason where there is no GPU, and real means where something answers."""

import threading
from types import SimpleNamespace

import pytest
import torch

from jobs.gpu import INTERVAL, Gauge

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)


class Card:
    """Answers as pynvml does, of one card that gets busier with each question."""

    def __init__(self, *, utilization: bool = True) -> None:
        self.asked, self.open, self.names = 0, 0, []
        self.enough = threading.Event()
        self.utilization = utilization

    def nvmlInit(self):  # noqa: N802 - NVML's names
        self.open += 1

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, name):  # noqa: N802
        self.names.append(name)
        return "card"

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        if not self.utilization:
            raise RuntimeError("Not Supported")
        self.asked += 1
        if self.asked >= 3:
            self.enough.set()
        return SimpleNamespace(gpu=10 * self.asked)

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return SimpleNamespace(used=1000 + self.asked)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-34"))


def test_on_a_cpu_there_is_a_reason_and_no_zero():
    gauge = Gauge(CPU)
    assert gauge.read() == {"gpu_utilization": None, "gpu_reason": "runs on the cpu", "gpu_memory_bytes": None}
    gauge.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has NVML")
def test_without_nvml_its_own_words_are_the_reason():
    gauge = Gauge(CUDA)
    found = gauge.read()
    assert found["gpu_utilization"] is None
    assert found["gpu_reason"].startswith("NVML: ")
    assert found["gpu_memory_bytes"] is None
    gauge.close()


@pytest.mark.usefixtures("gpu")
def test_the_mean_since_the_last_read():
    card = Card()
    gauge = Gauge(CUDA, card)
    assert card.enough.wait(20 * INTERVAL)
    first = gauge.read()
    asked = card.asked
    assert first["gpu_reason"] is None
    assert 10 <= first["gpu_utilization"] <= 10 * asked
    assert first["gpu_memory_bytes"] >= 1002
    second = gauge.read()
    assert second["gpu_utilization"] > 10 * asked  # nothing of the first is left in it
    assert card.names == ["GPU-12-34"]
    gauge.close()
    gauge.close()
    assert card.open == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "gpu-gauge"]


@pytest.mark.usefixtures("gpu")
def test_a_slice_of_a_gpu_has_memory_and_a_reason():
    gauge = Gauge(CUDA, Card(utilization=False))
    assert gauge.read() == {"gpu_utilization": None, "gpu_reason": "NVML: Not Supported", "gpu_memory_bytes": 1000}
    gauge.close()
