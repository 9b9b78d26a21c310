"""The small types that the sections of a config are made of."""

from typing import Annotated

from pydantic import Field, StringConstraints

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""64 lower-case hex digits, as `sha256sum` prints them."""

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
"""A full git commit hash: a branch or a tag can move."""

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What numpy accepts as a seed: 0 to 2**32 - 1."""

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
