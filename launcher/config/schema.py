"""The schema of an experiment's config: the recipe, its name and seeds, the image, and what the cluster is asked for.

Every field is documented where it stands: `launch schema` shows these texts in the user's editor, and docs/config.md
is made of them."""

import re
from collections.abc import Iterator
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from jobs.fields import Positive, Seed
from jobs.recipe import Recipe, Section
from launcher import walltime
from launcher.config.mistake import Mistake, Mistakes

NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
CLOCK: Final = r"^([0-9]{1,3}-)?[0-9]{1,4}:[0-9]{2}:[0-9]{2}$"
MEMORY: Final = r"^[1-9][0-9]{0,6}[KMGT]$"
WORD: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.,@:+-]*$"


def slug(text: str) -> str:
    """The nearest name to a text; may be empty."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip(".-_")[:63].replace("..", ".")


def check_name(name: str) -> str:
    """A name that is safe as a folder, in a file's name, as a job's name and in a shell. Raises ValueError."""
    if re.fullmatch(NAME, name, re.ASCII) and ".." not in name and "\n" not in name:
        return name
    near = slug(name)
    hint = f" Write {near}." if near else ""
    if not name:
        raise ValueError("is empty")
    if ".." in name:
        raise ValueError(f"may not hold `..`: it is the name of a folder.{hint}")
    if len(name) > 63:  # noqa: PLR2004 - of the pattern above
        raise ValueError(f"has {len(name)} characters; at most 63 fit the names of files and jobs")
    if not name[0].isascii() or not name[0].isalnum():
        raise ValueError(f"starts with {_shown(name[0])}; it must start with a letter or a digit.{hint}")
    bad = next(character for character in name if not re.fullmatch(r"[a-z0-9._-]", character, re.ASCII))
    raise ValueError(f"holds {_shown(bad)}; only a-z, 0-9, `.`, `_` and `-` are safe in files, jobs and shells.{hint}")


def _shown(character: str) -> str:
    words = {
        " ": "a space",
        "\n": "a line break",
        "\t": "a tab",
        '"': 'a quote (")',
        "'": "a quote (')",
        "/": "a slash",
    }
    if character.isascii() and character.isupper():
        return f"the capital letter {character}"
    return words.get(character, f"`{character}`" if character.isprintable() else f"U+{ord(character):04X}")


def check_clock(text: str) -> str:
    walltime.clock(text)
    return text


def check_memory(text: str) -> str:
    if not re.fullmatch(MEMORY, text, re.ASCII):
        raise ValueError('is not an amount of memory: a whole number and K, M, G or T, such as "2G"')
    return text


def check_word(text: str) -> str:
    """A name that Slurm gave: one word, which cannot pass for an option or start a new line of a script."""
    if not re.fullmatch(WORD, text, re.ASCII) or "\n" in text:
        raise ValueError("is not one plain word, as Slurm's names are")
    return text


def check_relative(path: str) -> str:
    """A path inside the repository."""
    parts = path.split("/")
    if not path or path.startswith(("/", "~")) or ".." in parts or any(ord(c) < ord(" ") for c in path):
        raise ValueError("is not a path inside the repository, relative to its top")
    return path


def check_base(reference: str) -> str:
    """R26: a tag names another image tomorrow."""
    name, at, digest = reference.partition("@")
    if not re.fullmatch(r"[a-z0-9][A-Za-z0-9._:/-]*", name, re.ASCII) or "\n" in reference:
        raise ValueError("is not the name of an image, `name@sha256:...`")
    if not at:
        what = "names a tag, which can be another image tomorrow" if ":" in name.rpartition("/")[2] else "has no digest"
        command = f"docker pull {name} && docker inspect --format '{{{{index .RepoDigests 0}}}}' {name}"
        raise Mistakes([Mistake((), f"{what}; it must be name@sha256:...", f"This shows it: {command}")])
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest, re.ASCII):
        raise ValueError("has a digest that is not sha256: and 64 hexadecimal digits")
    return reference


Base = Annotated[str, AfterValidator(check_base)]
Name = Annotated[str, AfterValidator(check_name), WithJsonSchema({"type": "string", "pattern": NAME})]
Clock = Annotated[str, AfterValidator(check_clock), WithJsonSchema({"type": "string", "pattern": CLOCK})]
Memory = Annotated[str, AfterValidator(check_memory), WithJsonSchema({"type": "string", "pattern": MEMORY})]
Word = Annotated[str, AfterValidator(check_word), WithJsonSchema({"type": "string", "pattern": WORD})]
RelativePath = Annotated[str, AfterValidator(check_relative)]


def check_seeds(seeds: list[int]) -> list[int]:
    again = [
        Mistake((index,), f"seed {seed} is given twice.", "Each seed is one run.")
        for index, seed in enumerate(seeds)
        if seed in seeds[:index]
    ]
    if again:
        raise Mistakes(again)
    return seeds


Seeds = Annotated[
    list[Seed],
    Field(min_length=1, max_length=1000, json_schema_extra={"uniqueItems": True}),
    AfterValidator(check_seeds),
]


class Image(Section):
    """What the runs execute in, pinned by content."""

    engine: Literal["host", "docker", "apptainer"] = "host"
    """host: the locked virtual environment of this project, compared with the lock before anything starts. docker, apptainer: an
    image of the commit, its environment built from a base, a recipe and the lock, the commit's files as a layer of their own."""
    lock: RelativePath = "requirements.lock"
    """The lock of that environment, in the repository: every package `==`, with hashes."""
    cuda_lock: RelativePath | None = "images/requirements-cuda.lock"
    """CUDA's own wheels: installed into images whose torch is built for CUDA. Left out where the commit has no such file."""
    build: Literal["dockerfile", "definition"] | None = None
    """What an image is built by. null: what the engine builds by itself, docker by the Dockerfile, apptainer by the definition.
    apptainer with dockerfile: the Docker image, turned into a SIF."""
    dockerfile: RelativePath = "images/Dockerfile"
    """The Dockerfile of the environment, in the repository. Its context is itself, the locks and `files`; never the work tree."""
    definition: RelativePath = "images/apptainer.def"
    """The Apptainer definition of the environment, in the repository."""
    base: Base | None = None
    """The image that the environment starts from, `name@sha256:...`. null: the one that the recipe names."""
    files: list[RelativePath] = Field(default_factory=list)
    """Further files of the repository that the recipe copies into the environment."""
    network: Literal["none", "host"] = "none"
    """What a run in a container sees of the network. wandb online and models from a hub need host."""


class Cluster(Section):
    """What one run (one seed) asks of Slurm. Nothing here changes a result. On this machine only `parallel` counts."""

    nodes: Positive = 1
    """Machines per run; `training.parallel.ranks` are shared out evenly over them. On this machine all ranks run on one."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs on each node: one for each of its ranks with `numerics.device: cuda`."""
    cpus: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU cores on each node: at least `numerics.threads` for each of its ranks."""
    memory: Memory = "2G"
    """Main memory on each node: a whole number and K, M, G or T."""
    time: Clock | None = None
    """Time limit of one attempt, HH:MM:SS or D-HH:MM:SS. A run that needs longer saves before the limit and goes on
    in the next attempt. null: the site's default. `--time` counts more."""
    parallel: Positive | None = None
    """How many seeds run at once. null: all on Slurm; on this machine, as many as its cores allow."""


class Experiment(Recipe):
    """One experiment: a config file. Committed with the code, and never changed after its experiment started."""

    name: Name
    """Name of the experiment and of its folder: a-z, 0-9, `.`, `_`, `-`; at most 63 characters. A changed config
    needs a new name."""
    seeds: Seeds
    """One run each. There is no default: a number without its seed cannot be reproduced."""
    image: Image = Image()
    """What the runs execute in."""
    cluster: Cluster = Cluster()
    """What one run asks of Slurm."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if found := list(conflicts(self)):
            raise Mistakes(found)
        return self


ORDER: Final = ("name", "seeds", *Recipe.model_fields, "image", "cluster")
"""The order in which a config is written."""


def conflicts(experiment: Experiment) -> Iterator[Mistake]:
    """What is wrong between sections that are each right."""
    cluster, numerics, ranks = experiment.cluster, experiment.numerics, experiment.training.parallel.ranks
    each = max(1, ranks // cluster.nodes)
    """Ranks on a node."""
    of_ranks = f" for each of {each} ranks on a node" if each > 1 else ""
    if ranks % cluster.nodes:
        yield Mistake(
            ("cluster", "nodes"),
            f"is {cluster.nodes}, but training.parallel.ranks is {ranks}: each node has as many.",
            f"A multiple: training: {{parallel: {{ranks: {cluster.nodes}}}}}.",
        )
    if numerics.threads * each > cluster.cpus:
        yield Mistake(
            ("numerics", "threads"),
            f"is {numerics.threads}{of_ranks}, but cluster.cpus is {cluster.cpus}.",
            f"Ask for the cores: cluster: {{cpus: {numerics.threads * each}}}.",
        )
    if numerics.device == "cuda" and cluster.gpus == 0:
        yield Mistake(
            ("numerics", "device"), "is cuda, but cluster.gpus is 0.", f"Ask for it: cluster: {{gpus: {each}}}."
        )
    elif numerics.device == "cuda" and cluster.gpus != each:
        yield Mistake(
            ("cluster", "gpus"),
            f"is {cluster.gpus}, but a node has {each} of the ranks, with a GPU each.",
            f"Write {each}.",
        )
    if cluster.nodes > 1 and experiment.image.engine != "host" and experiment.image.network == "none":
        yield Mistake(
            ("image", "network"),
            f"is none, but the ranks of {cluster.nodes} nodes have to reach each other.",
            "Write host.",
        )
    if experiment.image.engine == "docker" and experiment.image.build == "definition":
        yield Mistake(("image", "build"), "is definition, which only Apptainer builds.", "Write dockerfile.")
    if experiment.data.tokenizer == "pretrained" and experiment.model.pretrained is None:
        yield Mistake(
            ("data", "tokenizer"),
            "is pretrained, but model.pretrained is not given.",
            "Write characters, or give model.pretrained.",
        )
