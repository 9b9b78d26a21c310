"""Images that are named by their content, and what is said of those that are not. One message for all places."""

import re
from typing import Final

from launcher.errors import Problem

DIGEST: Final = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}\Z")


def base_problem(image: str, where: str, subject: str = "The base") -> Problem:
    """Of an image without a digest, with the command that shows it."""
    name = image.partition("@")[0]
    if "@" in image:
        what = f"{subject} {image} has a digest that is not sha256: and 64 hexadecimal digits."
    elif ":" in name.rpartition("/")[2]:
        what = f"{subject} {image} is named by a tag, which can be another image tomorrow."
    else:
        what = f"{subject} {image} has no digest."
    command = f"docker pull {name} && docker inspect --format '{{{{index .RepoDigests 0}}}}' {name}"
    return Problem(what, where, f"Write name@sha256:... This shows it: {command}")
