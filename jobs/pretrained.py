"""A model that exists already: its files verified before anything reads them, or a hub's commit."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jobs.data.tokens import TokenizerSource
from jobs.errors import Refused

if TYPE_CHECKING:
    from jobs.recipe import Pretrained

READ: Final = frozenset({".json", ".safetensors", ".txt", ".model", ".jinja", ".tiktoken", ".spm"})
"""Endings of files that transformers may read from a folder of its own accord."""


def source(origin: "Pretrained", project_root: Path) -> TokenizerSource:
    """Where to load from. The files of a path are compared with their hashes first. Raises Refused."""
    if origin.path is None:
        if origin.id is None or origin.revision is None:  # the schema does not let it come to this
            raise Refused("model.pretrained: neither path nor id with revision is given")
        return TokenizerSource(origin.id, origin.revision)
    folder = project_root / origin.path
    verify(folder, origin.path, origin.sha256 or {})
    return TokenizerSource(str(folder), None)


def verify(folder: Path, shown: str, hashes: dict[str, str]) -> None:
    """Raises Refused with every file that is missing, is another one than pinned, or could be read without being pinned."""
    if not folder.is_dir():
        raise Refused(f"model.pretrained.path: {shown} is not a folder. Paths start at the project's root")
    mistakes = []
    for name, pinned in hashes.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            mistakes.append(f"model.pretrained.sha256: {shown}/{name} cannot be read: {error.strerror}")
            continue
        if found != pinned:
            mistakes.append(
                f"model.pretrained.sha256: {shown}/{name} is not the file that the config pins. Pinned: {pinned}; it has: {found}"
            )
    mistakes += [
        f"model.pretrained.sha256: {shown}/{path.name} could be read, but is not pinned. Add its hash, or remove the file"
        for path in sorted(folder.iterdir())
        if path.suffix in READ and path.name not in hashes and path.is_file()
    ]
    if (folder / "adapter_config.json").exists():
        mistakes.append(
            f"model.pretrained.path: {shown} holds an adapter, whose base would be loaded from somewhere that nobody pinned. "
            "Merge it into its base, and give that"
        )
    if mistakes:
        raise Refused("\n".join(mistakes))


def load(origin: "Pretrained", project_root: Path, attention: str) -> Any:
    """The model in fp32, from safetensors alone: no pickle is opened and no code of a repository is run. Raises Refused."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    place = source(origin, project_root)
    logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            place.name,
            revision=place.revision,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # the hub, a missing file, a torn one: each fails in its own way
        raise Refused(_why(origin, error, place.hint)) from error
    if missing := sorted(report["missing_keys"]):
        raise Refused(
            f"model.pretrained: {origin.path or origin.id} lacks weights of a causal language model: {', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}. They would be random"  # noqa: PLR2004
        )
    return model


def _why(origin: "Pretrained", error: Exception, hint: str) -> str:
    reason = " ".join(str(error).split())
    if origin.path is not None:
        return f"model.pretrained.path: {origin.path} cannot be loaded as a causal language model from safetensors: {reason}"
    return f"model.pretrained.id: {origin.id} at {origin.revision} cannot be loaded: {reason}{hint}"
