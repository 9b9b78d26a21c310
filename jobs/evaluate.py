"""How good the model is on rows that it was not trained on: mean loss per counted token, and the share of right answers."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from jobs.data.rows import IGNORED, Example
from jobs.ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch


class Rows(Protocol):
    """What is evaluated on; see `jobs.data.Rows`."""

    answers: bool

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Example: ...


class Evaluation(NamedTuple):
    """A model as it is, on all rows."""

    loss: float
    """Mean over the counted tokens, summed in float64 in the order of the rows."""
    accuracy: float | None
    """Share of rows whose every counted token is the most likely one: the answer is right to its last digit. None where
    rows have no answer apart from their prompt."""
    rows: int


def evaluate(  # noqa: PLR0913 - all but the first two by name
    model: "torch.nn.Module",
    rows: Rows,
    *,
    batch_size: int,
    collate: Callable[[list[Example]], "dict[str, torch.Tensor]"],
    device: "torch.device",
    autocast: Callable[[], AbstractContextManager[Any]],
    stop: Callable[[], bool],
    ranks: Ranks = ALONE,
) -> Evaluation | None:
    """Evaluate on all rows in their order, or None once `stop` turns true between two batches. Several ranks share the batches out,
    and add in the order of the batches: the bits are those of one.

    Draws nothing, and leaves each module in the mode that it was in. Raises ValueError when no token counts."""
    import torch

    modes = [(module, module.training) for module in model.modules()]
    loss, tokens, right = 0.0, 0, 0
    model.eval()
    try:
        with torch.no_grad():
            count = -(-len(rows) // batch_size)
            for first in range(0, count, ranks.size):
                if stop():
                    return None
                counted = [0.0, 0.0, 0.0]
                for number in ranks.share(first, min(first + ranks.size, count)):
                    chosen = [
                        rows[row] for row in range(number * batch_size, min((number + 1) * batch_size, len(rows)))
                    ]
                    batch = {name: tensor.to(device) for name, tensor in collate(chosen).items()}
                    with autocast():
                        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
                    counted = [float(value) for value in _count(logits[:, :-1], batch["labels"][:, 1:])]
                for batch_loss, batch_tokens, batch_right in ranks.numbers(counted):
                    loss, tokens, right = loss + batch_loss, tokens + int(batch_tokens), right + int(batch_right)
    finally:
        for module, training in modes:
            module.training = training
    if not tokens:
        raise ValueError("no token counts in any of the rows")
    return Evaluation(loss / tokens, right / len(rows) if rows.answers else None, len(rows))


def _count(logits: "torch.Tensor", labels: "torch.Tensor") -> tuple[float, int, int]:
    """Of [B, T, V] and [B, T]: the summed loss, how many tokens count, and how many rows are right in each of theirs."""
    import torch

    ignored = labels == IGNORED
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    right = ((logits.argmax(-1) == labels) | ignored).all(-1)
    return losses.double().sum().item(), int((~ignored).sum()), int(right.sum())
