"""Copies in host memory that later steps cannot touch, in memory that each copy uses again."""

from typing import Any

import torch

_Place = tuple[str | int, ...]


class HostCopy:
    """Copies nested state. Allocating anew for each copy costs more than copying: the memory stays, one piece for each tensor's
    place, so that **a copy is valid until the next one is made**.

    What lies on a GPU is copied side by side, into page-locked memory where the machine grants it, and waited for once."""

    def __init__(self) -> None:
        self._kept: dict[_Place, torch.Tensor] = {}
        self._pin = True

    @torch.no_grad()
    def __call__(self, value: Any) -> Any:
        """`value` with each tensor replaced by its copy on the CPU, and tuples by lists; dicts keep their order."""
        used: dict[_Place, torch.Tensor] = {}
        sources: list[torch.Tensor] = []
        copied = self._replace(value, (), used, sources)
        torch._foreach_copy_(list(used.values()), sources, non_blocking=True) if sources else None
        for device in {source.device for source in sources if source.device.type == "cuda"}:
            torch.cuda.current_stream(device).synchronize()
        self._kept = used
        return copied

    def _replace(self, value: Any, place: _Place, used: dict[_Place, torch.Tensor], sources: list[torch.Tensor]) -> Any:
        if isinstance(value, torch.Tensor):
            kept = self._kept.get(place)
            if kept is None or kept.dtype != value.dtype or kept.shape != value.shape:
                kept = self._allocate(value)
            used[place] = kept
            sources.append(value.detach())
            return kept
        if isinstance(value, dict):
            return {key: self._replace(part, (*place, key), used, sources) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._replace(part, (*place, number), used, sources) for number, part in enumerate(value)]
        return value

    def _allocate(self, like: torch.Tensor) -> torch.Tensor:
        if like.device.type == "cuda" and self._pin:
            try:
                return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
            except RuntimeError as error:
                self._pin = False
                print(f"WARNING: no page-locked memory for checkpoints: {error}. Saving takes longer", flush=True)
        return torch.empty(like.shape, dtype=like.dtype)
