"""Text to token ids and back: a fixed alphabet of characters, or the tokenizer that belongs to a pretrained model."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from jobs.errors import Refused

ALPHABET: Final = "".join(map(chr, range(ord(" "), ord("~") + 1)))
"""Printable ASCII, in its own order. The ids of a trained model depend on it: it never changes."""

_PAD, _BOS, _EOS, _FIRST = 0, 1, 2, 3


class TokenizerSource(NamedTuple):
    """Where a pretrained tokenizer is loaded from. Its files were verified before."""

    name: str
    """A hub id or a folder."""
    revision: str | None
    """The hub commit; None for a folder."""

    @property
    def hint(self) -> str:
        """For an error: how to get what is on the hub. Starts a line of its own; empty for a folder."""
        if self.revision is None:
            return ""
        return (
            f"\nOn a machine with a network: hf download {self.name} --revision {self.revision}\n"
            "Where the nodes have none, let HF_HOME name a folder that they see, and set HF_HUB_OFFLINE=1"
        )


class Vocabulary(Protocol):
    """What a tokenizer must know."""

    size: int
    """Ids are below it."""
    pad_id: int
    bos_id: int | None
    """Put before each row; None where the tokenizer has none."""
    eos_id: int | None
    """Put after each row; None where the tokenizer has none."""

    def encode(self, text: str) -> list[int]:
        """Ids without bos and eos. Raises ValueError, with the reason, for text that it cannot say."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; pad, bos and eos are left out."""


class Characters:
    """One token per character of the alphabet."""

    size: int = _FIRST + len(ALPHABET)
    pad_id: int = _PAD
    bos_id: int | None = _BOS
    eos_id: int | None = _EOS
    _ids: Final = {character: _FIRST + index for index, character in enumerate(ALPHABET)}

    def encode(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            position = text.index(character) + 1
            raise ValueError(
                f"holds {character!r} (U+{ord(character):04X}) at character {position}, which is not printable ASCII; "
                "the alphabet of `tokenizer: characters` has nothing else"
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(ALPHABET[i - _FIRST] for i in ids if i >= _FIRST)


class Pretrained:
    """The tokenizer of a pretrained model, through transformers."""

    def __init__(self, source: TokenizerSource) -> None:
        """Raises Refused when it cannot be loaded, or has no token that could pad."""
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                source.name, revision=source.revision, trust_remote_code=False
            )
        except Exception as error:  # each kind of tokenizer fails in its own way
            reason = " ".join(str(error).split())
            raise Refused(
                f"data.tokenizer: the tokenizer of {source.name} cannot be loaded: {reason}{source.hint}"
            ) from error
        self.size: int = len(self._tokenizer)
        self.bos_id: int | None = self._tokenizer.bos_token_id
        self.eos_id: int | None = self._tokenizer.eos_token_id
        # Padding is masked and never counts, so any id will do where there is none of its own.
        pad = next((i for i in (self._tokenizer.pad_token_id, self.eos_id, self.bos_id) if i is not None), None)
        if pad is None:
            raise Refused(f"data.tokenizer: the tokenizer of {source.name} has neither a pad, an eos nor a bos token")
        self.pad_id: int = pad

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text
