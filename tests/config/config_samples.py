"""A config that is right, and what the tests of this folder make of it."""

from pathlib import Path

VALID = """\
# yaml-language-server: $schema=../docs/schema.json
name: quick
seeds: [0, 1, 2]
model:
  architecture:
    type: gpt2
    settings: {n_layer: 2, eps: 1e-5}
lora: {r: 8, alpha: 16, target_modules: [c_attn]}
data:
  builtin:
    name: arithmetic
    train_rows: 400
    validation_rows: 50
    sha256: 89abcdef89abcdef89abcdef89abcdef89abcdef89abcdef89abcdef89abcdef
  max_length: 16
training:
  epochs: 3
  batch_size: 16
  optimizer: {lr: 1e-4}
cluster:
  cpus: 2
  time: 01:30:00
"""


def changed(old: str, new: str) -> str:
    """The config with one place replaced."""
    assert VALID.count(old) == 1, old
    return VALID.replace(old, new)


def written(folder: Path, text: str | bytes, name: str = "x.yaml") -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return path


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path under a folder with its bytes, to see that nothing was written."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}
