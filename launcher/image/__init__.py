"""From a config's image section and the commit to what the image is made of, with every pin checked before anything is built."""

import hashlib
from typing import TYPE_CHECKING

from launcher.engines import ImageRequest, Ingredient
from launcher.errors import ExitCode, LaunchError, fail
from launcher.image import recipes
from launcher.plan import Source
from launcher.source import origin, read_file

if TYPE_CHECKING:
    from launcher.config.schema import Image


def request(image: "Image", source: Source) -> ImageRequest:
    """What the image of that commit is made of. Only git's objects are read.

    Raises LaunchError (IMAGE) with all that is not pinned, as file:line (R10, R12, R26)."""
    lock = _needed(source, image.lock, "Every package is pinned there (R10): make lock, then commit it.")
    if image.engine == "host":
        return ImageRequest(image.engine, source.repository, source.commit, source.code_tree, image.lock, _digest(lock))
    build = image.build or ("dockerfile" if image.engine == "docker" else "definition")
    path = image.dockerfile if build == "dockerfile" else image.definition
    recipe = _needed(source, path, "It says how the environment is made (R12): write it, then commit it.")
    texts = {path: recipe, image.lock: lock}
    if image.cuda_lock is not None and (cuda := read_file(source, image.cuda_lock)) is not None:
        texts[image.cuda_lock] = cuda
    for extra in image.files:
        texts[extra] = _needed(source, extra, "It is among image.files: commit it, or take it out there.")
    base, problems = recipes.check(build, path, texts, image.base, locks=[image.lock, image.cuda_lock or ""])
    if problems:
        raise LaunchError(ExitCode.IMAGE, problems)
    return ImageRequest(
        engine=image.engine,
        repository=source.repository,
        commit=source.commit,
        code_tree=source.code_tree,
        lock=image.lock,
        lock_sha256=_digest(lock),
        build=build,
        recipe=path,
        base=base,
        cuda_lock=image.cuda_lock if image.cuda_lock in texts else None,
        ingredients=tuple(Ingredient(name, _digest(text)) for name, text in sorted(texts.items())),
        origin=origin(source.repository),
    )


def _needed(source: Source, path: str, hint: str) -> bytes:
    data = read_file(source, path)
    if data is None:
        what = "The commit has no such lock." if path.endswith(".lock") else "The commit has no such file."
        raise fail(ExitCode.IMAGE, what, where=path, hint=hint)
    return data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
