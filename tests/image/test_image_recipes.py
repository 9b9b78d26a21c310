"""Recipes as a whole: their base, what they copy and fetch, their locks; and the recipes of this project pass."""

from pathlib import Path

import pytest
from recipe_ground import BASE, CUDA, DIGEST, HASH, LOCK, LOCKS, definition, docker, judged

from launcher import lock
from launcher.image import recipes
from launcher.image.dockerfile import instructions

ROOT = Path(__file__).parents[2]
OTHER = f"docker.io/library/debian@{DIGEST}"
TAG = "which can be another image tomorrow."

BASES = {
    "tag": ("FROM python:3.11\n", "Dockerfile:1: The base python:3.11 is named by a tag"),
    "nothing": ("FROM python\n", "Dockerfile:1: The base python has no digest."),
    "short digest": ("FROM python@sha256:0123\n", "Dockerfile:1: The base python@sha256:0123 has a digest that is not"),
    "registry with a port": ("FROM h:5000/python\n", "Dockerfile:1: The base h:5000/python has no digest."),
    "platform": (
        "FROM --platform=linux/amd64 python:3.11 AS x\n",
        "Dockerfile:1: The base python:3.11 is named by a tag",
    ),
    "second stage": (
        f"FROM {BASE} AS a\nRUN true\nFROM debian:12\n",
        "Dockerfile:3: The base debian:12 is named by a tag",
    ),
    "first stage": (f"FROM debian:12 AS a\nFROM {BASE}\n", "Dockerfile:1: The base debian:12 is named by a tag"),
    "argument": ("ARG BASE=python:3.11\nFROM ${BASE}\n", "Dockerfile:2: The base python:3.11 is named by a tag"),
    "parts": ("ARG V=3.11\nFROM python:$V\n", "Dockerfile:2: The base python:3.11 is named by a tag"),
    "default in place": ("FROM ${B:-python:3.11}\n", "Dockerfile:1: The base python:3.11 is named by a tag"),
    "no default": ("ARG B\nFROM $B\n", "Dockerfile:2: The base `$B` has no value."),
    "argument of a stage": (f"FROM {BASE}\nARG B={OTHER}\nFROM $B\n", "Dockerfile:3: The base `$B` has no value."),
    "scratch": ("FROM scratch\nCOPY x /x\n", "Dockerfile:1: The image starts from scratch"),
    "none": ("RUN true\n", "Dockerfile:1: No FROM"),
    "lower case": ("from python:3.11 as x\n", "Dockerfile:1: The base python:3.11 is named by a tag"),
    "syntax": (
        f"# syntax=docker/dockerfile:1\nFROM {BASE}\n",
        "Dockerfile:1: The image that `# syntax` names docker/dockerfile:1",
    ),
    "unknown": (f"FROM {BASE}\nRUNS true\n", "Dockerfile:2: RUNS is no instruction of a Dockerfile."),
    "shell": (
        f'FROM {BASE}\nSHELL ["/usr/bin/python3", "-c"]\n',
        "Dockerfile:2: SHELL /usr/bin/python3: its commands cannot",
    ),
}
COPIES = {
    "from an image": ("COPY --from=debian:12 /a /b", "The image of COPY --from debian:12 is named by a tag"),
    "from no stage": ("COPY --from=builder /a /b", "The image of COPY --from builder has no digest."),
    "from a variable": ("COPY --from=$X /a /b", "COPY --from=$X: the image has no value."),
    "mount": ("RUN --mount=type=bind,from=debian:12,target=/x true", "The image of RUN --mount=from debian:12"),
    "two mounts": (
        "RUN --mount=type=cache,target=/c --mount=from=x,target=/x true",
        "The image of RUN --mount=from x has no",
    ),
    "behind mounts": ("RUN --mount=type=cache,target=/c pip install a", "pip installs a without an exact version."),
    "url": ("ADD https://h/x.tar.gz /x", "What ADD fetches is not compared with a checksum."),
    "url of a short checksum": ("ADD --checksum=sha256:ab https://h/x /x", "What ADD fetches is not compared"),
    "git": ("ADD https://h/x.git#main /x", "ADD https://h/x.git#main takes a branch, which can move."),
    "variable": ("ADD $URL /x", "ADD $URL: $URL has no value."),
    "later": ("ONBUILD RUN pip install a", "pip installs a without an exact version."),
    "password": ("ENV PIP_INDEX_URL=https://me:secret@h/simple", "A user and a password stand in the recipe."),
}
GOOD_DOCKERFILE = f"""\
# escape=\\
ARG BASE={BASE}
ARG OTHER="{OTHER}"
FROM ${{OTHER}} AS Builder
ADD --checksum={DIGEST} https://h/x.tar.gz /x
ADD https://h/x.git#0123456789abcdef0123456789abcdef01234567 /y
COPY files/ /z
FROM $BASE
LABEL why="pip install numpy"
ARG LOCK
COPY --from=builder /x /x
COPY --from=0 /y /y
COPY --from={OTHER} /z /z
COPY <<EOF /note
RUN pip install numpy
EOF
RUN --mount=type=bind,from=builder,target=/b \\
    --mount=type=cache,target=/c \\
    pip install --require-hashes -r /l/$LOCK
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
CMD ["python"]
"""


@pytest.mark.parametrize(("text", "what"), BASES.values(), ids=BASES)
def test_a_base_without_digest_is_refused(text, what):
    assert any(problem.startswith(what) for problem in docker(text)), docker(text)


@pytest.mark.parametrize(("line", "what"), COPIES.values(), ids=COPIES)
def test_what_is_taken_from_elsewhere_is_pinned(line, what):
    (problem,) = docker(f"FROM {BASE}\n{line}\n")
    assert problem.startswith(f"Dockerfile:2: {what}")


def test_a_dockerfile_of_pins_passes_and_names_its_base():
    used, problems = judged("dockerfile", GOOD_DOCKERFILE)
    assert (used, problems) == (BASE, [])


def test_the_base_is_that_of_the_last_stage():
    assert judged("dockerfile", f"FROM {BASE} AS a\nFROM {OTHER}\nFROM a\n") == (BASE, [])


def test_the_configs_base_takes_the_place_of_the_recipes():
    assert judged("dockerfile", "ARG BASE=python:3.11\nFROM ${BASE}\n", BASE) == (BASE, [])
    assert judged("dockerfile", "ARG BASE\nFROM $BASE\n", BASE) == (BASE, [])
    (problem,) = docker(f"FROM {OTHER}\n", BASE)
    assert problem == f"Dockerfile:1: The config's image.base is {BASE}, which no FROM takes."
    assert judged("definition", "Bootstrap: docker\nFrom: {{ BASE }}\n", BASE) == (BASE, [])
    (problem,) = definition(f"Bootstrap: docker\nFrom: {OTHER}\n", BASE)
    assert problem == f"apptainer.def:1: The config's image.base is {BASE}, which no From takes."


def test_instructions_are_read_as_the_builder_reads_them():
    text = "from a\n\n# x\nRUN a \\\n  # in between\n\n  b \\\n  c\nRUN <<A cat && <<-'B' cat\none\nA\n\ttwo\n\tB\nLABEL x\n"
    found = [(one.name, one.line, one.rest.replace("\ue000", "~")) for one in instructions(text)]
    assert found == [
        ("FROM", 1, "a"),
        ("RUN", 4, "a ~~~  b ~  c"),
        ("RUN", 9, "<<A cat && <<-'B' cat\none\nA\n\ttwo\n\tB"),
        ("LABEL", 14, "x"),
    ]


HEAD = f"Bootstrap: docker\nFrom: {BASE}\n"
DEFINITIONS = {
    "tag": ("Bootstrap: docker\nFrom: python:3.11\n", "2: The base python:3.11 is named by a tag"),
    "no from": ("Bootstrap: docker\n\n%post\ntrue\n", "1: From names no image."),
    "library": ("Bootstrap: library\nFrom: a/b/c:latest\n", "2: The base a/b/c:latest is named by a tag"),
    "a file": ("Bootstrap: localimage\nFrom: /x.sif\n", "1: Bootstrap: localimage names nothing by its content."),
    "debootstrap": ("BootStrap: debootstrap\nOSVersion: bookworm\n", "1: Bootstrap: debootstrap names nothing by its"),
    "template": ("Bootstrap: docker\nFrom: {{ BASE }}\n", "2: The base `{{ BASE }}` has no value."),
    "argument": (
        "Bootstrap: docker\nFrom: {{ BASE }}\n\n%arguments\n    BASE=python:3.11\n",
        "2: The base python:3.11 is named by a tag",
    ),
    "second stage": (f"{HEAD}Stage: a\n\nBootstrap: docker\nFrom: debian\n", "6: The base debian has no digest."),
    "none": ("%post\ntrue\n", "1: No Bootstrap: the image has no base."),
    "post": (f"{HEAD}\n%post\n    pip install \\\n        numpy\n", "6: pip installs numpy without an exact version."),
    "post of bash": (
        f"{HEAD}%post -c /bin/bash\n# x\napt-get install gcc\n",
        "5: apt-get installs gcc without an exact",
    ),
    "post of python": (f"{HEAD}%post -c /usr/bin/python3\nimport os\n", "3: %post is run by /usr/bin/python3"),
    "post with a template": (f"{HEAD}%post\npip install click=={{{{ V }}}}\n", "4: {{ V }} has no value."),
    "app": (f"{HEAD}%appinstall x\npip install numpy\n", "4: pip installs numpy without an exact version."),
    "setup": (f"{HEAD}%setup\ncp /etc/x $APPTAINER_ROOTFS\n", "3: %setup runs on this machine, outside of the image."),
    "pre": (f"{HEAD}%pre\ntrue\n", "3: %pre runs on this machine"),
    "files of this machine": (
        f"{HEAD}%files\n    /etc/passwd /x\n",
        "4: /etc/passwd is neither a lock nor among image.files.",
    ),
    "files above": (f"{HEAD}%files\n../x\n", "4: ../x is neither a lock nor among image.files."),
    "unknown": (f"{HEAD}%posts\npip install numpy\n", "3: %posts is no section of a definition."),
    "password": (f"{HEAD}%environment\nexport P=http://me:secret@h\n", "4: A user and a password stand in the recipe."),
}
GOOD_DEFINITION = f"""\
# why
Bootstrap: docker
From: {OTHER}
Stage: first

%post
    true

Bootstrap: docker
From: {{{{ BASE }}}}   # by digest
Stage: final

%arguments
    BASE="{BASE}"
    V=8.5.1

%files from first
    /x /x
%files
    requirements.lock /l/
    images/requirements-cuda.lock /l/
    tools /l/tools

%post
    pip install --require-hashes -r /l/{{{{ LOCK }}}}
    pip install click=={{{{ V }}}}

%environment
    export LANG=C.UTF-8
%runscript
    pip install numpy
%labels
    why pip
"""


@pytest.mark.parametrize(("text", "what"), DEFINITIONS.values(), ids=DEFINITIONS)
def test_a_definition_is_held_to_the_same(text, what):
    assert any(problem.startswith(f"apptainer.def:{what}") for problem in definition(text)), definition(text)


def test_a_definition_of_pins_passes_and_names_its_base():
    text = GOOD_DEFINITION
    assert judged("definition", text, None, **{"tools/x__sh": "true\n"}) == (BASE, [])


LOOSE_LOCKS = {
    "at least": (f"a==1{HASH}\nb>=2{HASH}\n", "requirements.lock:3: b is not pinned with `==`."),
    "bare": ("a\n", "requirements.lock:1: a is not pinned with `==`."),
    "wildcard": (f"a==1.*{HASH}\n", "requirements.lock:1: a is not pinned with `==`."),
    "range": (f"a==1,<2{HASH}\n", "requirements.lock:1: a is not pinned with `==`."),
    "no hash": (f"a==1{HASH}\nb==2\nc==3{HASH}\n", "requirements.lock:3: b has no hash."),
    "no hash at the end": (f"a==1{HASH}\nb==2\n", "requirements.lock:3: b has no hash."),
    "md5": ("a==1 --hash=md5:0123\n", "requirements.lock:1: a has no hash."),
    "short hash": ("a==1 --hash=sha256:0123\n", "requirements.lock:1: a has no hash."),
    "url": ("a @ https://h/a.whl\n", "requirements.lock:1: a is a URL, which can hold something else tomorrow."),
    "plain url": ("https://h/a.whl\n", "requirements.lock:1: https is a URL"),
    "git": ("git+https://h/a\n", "requirements.lock:1: git+https is a URL"),
    "editable": ("-e .\n", "requirements.lock:1: An editable install or a folder is no version."),
    "folder": ("./a\n", "requirements.lock:1: An editable install or a folder is no version."),
    "option": (f"--index-url https://h\na==1{HASH}\n", "requirements.lock:1: --index-url is an option"),
    "other file": ("-r other.txt\n", "requirements.lock:1: -r is an option"),
    "twice": (f"a==1{HASH}\nA==2{HASH}\n", "requirements.lock:3: a is pinned twice: 1 and 2."),
    "empty": ("# nothing\n", "requirements.lock: The lock pins nothing."),
}


@pytest.mark.parametrize(("text", "what"), LOOSE_LOCKS.values(), ids=LOOSE_LOCKS)
def test_a_lock_that_leaves_something_open_is_refused(text, what):
    texts = {"Dockerfile": f"FROM {BASE}\n".encode(), LOCKS[0]: text.encode(), LOCKS[1]: CUDA.encode()}
    _, problems = recipes.check("dockerfile", "Dockerfile", texts, None, locks=LOCKS)
    assert [str(problem)[: len(what)] for problem in problems] == [what]
    assert all("make lock" in problem.hint for problem in problems)


def test_a_lock_with_hashes_in_any_form_passes():
    digest = "--hash=sha256:" + "ab" * 32
    text = f"{LOCK}one==1 {digest}\nx[y,z] == 1!2.0.post1 ; python_version >= '3.11'{HASH}  # why\n"
    pins, problems = lock.pins(text, "x")
    assert problems == []
    assert pins.items() >= {"one": "1", "x": "1!2.0.post1"}.items()
    assert lock.unhashed(text, "x") == []


def test_everything_is_said_at_once():
    texts = {"Dockerfile": b"FROM python:3.11\nRUN pip install a\n", LOCKS[0]: b"b>=1\n", LOCKS[1]: b"c==1\n"}
    _, problems = recipes.check("dockerfile", "Dockerfile", texts, None, locks=LOCKS)
    assert [problem.where for problem in problems] == [
        "Dockerfile:1",
        "Dockerfile:2",
        "requirements.lock:1",
        "images/requirements-cuda.lock:1",
    ]


@pytest.mark.parametrize(
    "path",
    [
        f"images/{file.name}"
        for file in sorted(ROOT.glob("images/*"))
        if file.suffix == ".def" or "Dockerfile" in file.name
    ],
)
def test_the_recipes_of_this_project_pass(path):
    build = "definition" if path.endswith(".def") else "dockerfile"
    texts = {name: (ROOT / name).read_bytes() for name in (path, *LOCKS)}
    used, problems = recipes.check(build, path, texts, None, locks=LOCKS)
    assert problems == []
    assert "@sha256:" in used


def test_the_locks_of_this_project_have_hashes():
    for name in (*LOCKS, "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert lock.pins(text, name)[1] == lock.unhashed(text, name) == []
