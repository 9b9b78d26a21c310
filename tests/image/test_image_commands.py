"""Commands of a recipe: each way to install without an exact version is refused at its line, each exact one passes."""

import pytest
from recipe_ground import BASE, COMMIT, docker, run

PIP = "Dockerfile:2: pip installs"
LOOSE = "without an exact version."
LOOSE_PIP = {
    "bare": ("pip install numpy", f"{PIP} numpy {LOOSE}"),
    "at least": ("pip install 'numpy>=2'", f"{PIP} numpy>=2 {LOOSE}"),
    "compatible": ("pip install numpy~=2.4", f"{PIP} numpy~=2.4 {LOOSE}"),
    "wildcard": ("pip install numpy==2.*", f"{PIP} numpy==2.* {LOOSE}"),
    "range": ("pip install 'numpy==2.4,>2'", f"{PIP} numpy==2.4,>2 {LOOSE}"),
    "one of two": ("pip install click==8.5.1 numpy", f"{PIP} numpy {LOOSE}"),
    "itself": ("pip install --upgrade pip", f"{PIP} pip {LOOSE}"),
    "option before": ("pip --no-cache-dir --proxy http://p install numpy", f"{PIP} numpy {LOOSE}"),
    "short options": ("pip install -qU numpy", f"{PIP} numpy {LOOSE}"),
    "options with values": ("pip install -i https://i/simple --target /x numpy", f"{PIP} numpy {LOOSE}"),
    "pip3": ("pip3 install numpy", f"{PIP} numpy {LOOSE}"),
    "pip3.11": ("pip3.11 install numpy", f"{PIP} numpy {LOOSE}"),
    "a path": ("/opt/venv/bin/pip install numpy", f"{PIP} numpy {LOOSE}"),
    "module": ("python -m pip install numpy", f"{PIP} numpy {LOOSE}"),
    "module, options": ("/usr/bin/python3.11 -I -m pip install numpy", f"{PIP} numpy {LOOSE}"),
    "module, joined": ("python3 -Im pip install numpy", f"{PIP} numpy {LOOSE}"),
    "download": ("pip download numpy", f"{PIP} numpy {LOOSE}"),
    "wheel": ("pip wheel numpy", f"{PIP} numpy {LOOSE}"),
    "url": (
        "pip install https://h/x-1.0-py3-none-any.whl",
        f"{PIP} https://h/x-1.0-py3-none-any.whl, which is a place",
    ),
    "git": ("pip install git+https://h/x", f"{PIP} git+https://h/x, which is a place"),
    "named url": ("pip install 'x @ https://h/x.whl'", f"{PIP} x @ https://h/x.whl, which is a place"),
    "folder": ("pip install .", f"{PIP} ., which is a place"),
    "editable": ("pip install -e ./code", "Dockerfile:2: pip install -e ./code pins nothing."),
    "group": ("pip install --group dev", "Dockerfile:2: pip install --group dev pins nothing."),
    "other file": ("pip install -r requirements.txt", f"{PIP} from requirements.txt, which is not among the locks."),
    "other file, joined": ("pip install -rreqs.txt", f"{PIP} from reqs.txt, which is not among the locks."),
    "other file, =": ("pip install --requirement=reqs.txt", f"{PIP} from reqs.txt, which is not among the locks."),
    "no hashes": (
        "pip install -r requirements.lock",
        "Dockerfile:2: pip install -r requirements.lock does not compare hashes.",
    ),
    "lock and more": ("pip install --require-hashes -r requirements.lock numpy", f"{PIP} numpy {LOOSE}"),
    "constraint that pins others": ("pip install -c requirements.lock scipy", f"{PIP} scipy {LOOSE}"),
    "constraint that is no lock": ("pip install -c other.txt numpy", f"{PIP} numpy {LOOSE}"),
    "variable": ("pip install $PACKAGE", f"{PIP} `$PACKAGE`: $PACKAGE cannot be told without running it."),
    "variable version": (
        "pip install numpy==${V}",
        f"{PIP} `numpy==${{V}}`: ${{V}} cannot be told without running it.",
    ),
    "arguments": ('pip install "$@"', f"{PIP} `$@`: $@ cannot be told"),
    "output": ("pip install $(cat list)", f"{PIP} `$(cat list)`: $(cat list) cannot be told"),
    "backquotes": ("pip install `cat list`", f"{PIP} ``cat list``: `cat list` cannot be told"),
    "verb": ("pip $VERB numpy", "Dockerfile:2: the command of pip `$VERB`: $VERB cannot be told"),
    "grep of another file": ("t=$(grep -o '^torch==.*' other.txt); pip install $t", f"{PIP} `$t`: $t cannot be told"),
    "grep without -o": ("t=$(grep '^torch==' requirements.lock); pip install $t", f"{PIP} `$t`: $t cannot be told"),
    "set twice": ("p=a==1; test -f x && p=b==1; pip install $p", f"{PIP} `$p`: $p cannot be told"),
    "read": ("read p < list; pip install $p", f"{PIP} `$p`: $p cannot be told"),
}
LOOSE_SHELL = {
    "chain": ("true && pip install numpy", f"{PIP} numpy {LOOSE}"),
    "or": ("pip install click==8.5.1 || pip install click", f"{PIP} click {LOOSE}"),
    "semicolon": ("true; pip install numpy; true", f"{PIP} numpy {LOOSE}"),
    "continuation": ("true \\\n # why\n\n && pip install \\\n      numpy", f"Dockerfile:6: pip installs numpy {LOOSE}"),
    "subshell": ("(cd /x; pip install numpy)", f"{PIP} numpy {LOOSE}"),
    "braces": ("{ pip install numpy; }", f"{PIP} numpy {LOOSE}"),
    "branch": ("if test -f x; then pip install numpy; fi", f"{PIP} numpy {LOOSE}"),
    "condition": ("if ! pip install numpy; then exit 1; fi", f"{PIP} numpy {LOOSE}"),
    "loop": ("for p in a b; do pip install $p; done", f"{PIP} `$p`: $p cannot be told"),
    "case": ("case $X in pip) pip install numpy;; esac", f"{PIP} numpy {LOOSE}"),
    "function": ('f() { pip install "$@"; }; f numpy', f"{PIP} `$@`: $@ cannot be told"),
    "assignment before": ("PIP_NO_INDEX=1 pip install numpy", f"{PIP} numpy {LOOSE}"),
    "redirection": ("pip install numpy >/dev/null 2>&1", f"{PIP} numpy {LOOSE}"),
    "redirection first": (">/dev/null 2>&1 pip install numpy", f"{PIP} numpy {LOOSE}"),
    "substitution": ("echo $(pip install numpy)", f"{PIP} numpy {LOOSE}"),
    "quotes": ("""p"i"'p' install numpy""", f"{PIP} numpy {LOOSE}"),
    "escape": ("\\pip install numpy", f"{PIP} numpy {LOOSE}"),
    "sh -c": ("sh -c 'pip install numpy'", f"{PIP} numpy {LOOSE}"),
    "bash -lc": ("bash -exo pipefail -lc 'true && pip install numpy'", f"{PIP} numpy {LOOSE}"),
    "sh -c sh -c": ("sh -c \"sh -c 'pip install numpy'\"", f"{PIP} numpy {LOOSE}"),
    "sh -c variable": ('sh -c "$X"', "Dockerfile:2: What a shell runs here cannot be told: $X."),
    "eval": ("eval pip install numpy", f"{PIP} numpy {LOOSE}"),
    "eval variable": ('eval "$X"', "Dockerfile:2: What a shell runs here cannot be told: $X."),
    "su": ("su user -c 'pip install numpy'", f"{PIP} numpy {LOOSE}"),
    "sudo": ("sudo -H -u user pip install numpy", f"{PIP} numpy {LOOSE}"),
    "env": ("env -u X A=b pip install numpy", f"{PIP} numpy {LOOSE}"),
    "timeout": ("timeout -s 9 10 nice -n 5 pip install numpy", f"{PIP} numpy {LOOSE}"),
    "conda run": ("conda run -n base pip install numpy", f"{PIP} numpy {LOOSE}"),
    "xargs": ("cat list | xargs pip install", "Dockerfile:2: xargs takes what pip installs from its input."),
    "find": ("find . -name '*.txt' -exec pip install -r {} ';'", f"{PIP} from {{}}, which is not among the locks."),
    "command in a variable": (
        "$PIP install numpy",
        "Dockerfile:2: What `$PIP` runs cannot be told without running it.",
    ),
    "here-document": ("<<EOF\n# why\npip install numpy\nEOF", f"Dockerfile:4: pip installs numpy {LOOSE}"),
    "here-document of bash": (
        "bash -e <<-'END'\n\tpip install numpy\n\tEND",
        f"Dockerfile:3: pip installs numpy {LOOSE}",
    ),
    "written, then run": ("cat <<EOF >/x\npip install numpy\nEOF", "Dockerfile:3: A text that is written here brings"),
    "echoed, then run": ("echo pip install numpy | sh", "Dockerfile:2: sh runs what another command writes"),
    "echoed into a file": (
        "echo 'pip install numpy' >/x",
        "Dockerfile:2: A text that is written here brings something in",
    ),
    "exec form": ('["pip", "install", "numpy"]', f"{PIP} numpy {LOOSE}"),
    "exec form of sh": ('["sh", "-c", "pip install numpy"]', f"{PIP} numpy {LOOSE}"),
    "python -c": (
        """python -c 'import subprocess; subprocess.run(["pip", "install", "numpy"])'""",
        "Dockerfile:2: A program of python brings something in",
    ),
    "python from here": (
        "python3 <<EOF\nfrom urllib.request import urlopen\nEOF",
        "Dockerfile:3: A program of python3 brings",
    ),
    "python from a pipe": ("cat x | python3", "Dockerfile:2: python3 runs what another command writes"),
    "setup.py": ("python setup.py install", "Dockerfile:2: setup.py install takes whatever is newest"),
    "quote": ("echo 'x", "Dockerfile:2: The script cannot be followed: a quote (') is not closed."),
    "password": (
        "pip install -i https://me:secret@h/simple click==8.5.1",
        "Dockerfile:2: A user and a password stand in the recipe.",
    ),
}
LOOSE_OTHERS = {
    "apt": ("apt-get install -y --no-install-recommends gcc git=1:2.39.5-0+deb12u2", "apt-get installs gcc without"),
    "apt wildcard": ("apt install gcc=4:12*", "apt installs gcc=4:12* without an exact version."),
    "apt upgrade": ("apt-get update && apt-get -y upgrade", "apt-get upgrade takes whatever the archive has that day."),
    "apt variable": ("apt-get install $X", "apt-get installs `$X`: $X cannot be told"),
    "apt verb": ("apt-get $X gcc", "the command of apt `$X`: $X cannot be told"),
    "apt file from the net": ("apt install https://h/x.deb", "apt installs https://h/x.deb without an exact version."),
    "snapshot of no moment": (
        "echo 'deb https://snapshot.debian.org/archive/debian/latest bookworm main' >/etc/apt/sources.list; apt install gcc",
        "apt installs gcc without an exact version.",
    ),
    "snapshot that is only said": (
        "echo https://snapshot.debian.org/archive/debian/20260101T000000Z; apt install gcc",
        "apt installs gcc without an exact version.",
    ),
    "apk": ("apk add --no-cache gcc", "apk installs gcc without an exact version."),
    "apk about": ("apk add gcc~=12", "apk installs gcc~=12 without an exact version."),
    "apk upgrade": ("apk upgrade", "apk upgrade takes whatever"),
    "dnf": ("dnf -y install gcc", "dnf installs gcc without an exact version."),
    "dnf version only": ("dnf install gcc-12", "dnf installs gcc-12 without an exact version."),
    "yum update": ("yum -y update", "yum update takes whatever"),
    "zypper": ("zypper in gcc", "zypper installs gcc without an exact version."),
    "pacman": ("pacman -Sy gcc", "pacman takes whatever"),
    "conda": ("conda install -y -c conda-forge numpy", "conda installs numpy without an exact version."),
    "conda about": ("mamba install numpy=2.4", "conda installs numpy=2.4 without an exact version."),
    "conda env": ("conda env create -f environment.yml", "conda env takes what an environment's file leaves open."),
    "conda file": (
        "conda create --file list.txt",
        "conda installs from list.txt, which is no explicit list of the commit.",
    ),
    "conda update": ("conda update --all", "conda update takes whatever is newest."),
    "npm": ("npm install -g typescript", "npm installs typescript without an exact version."),
    "npm range": ("npm i typescript@^5.0.0", "npm installs typescript@^5.0.0 without an exact version."),
    "npm all": ("npm install", "npm install takes what package.json leaves open."),
    "npm ci": ("npm ci", "npm ci needs its lock, which is not among image.files."),
    "npx": ("npx cowsay", "npx installs cowsay without an exact version."),
    "uv": ("uv pip install numpy", "pip installs numpy without an exact version."),
    "uv sync of a file": ("uv pip sync reqs.txt", "pip installs from reqs.txt, which is not among the locks."),
    "uv sync": ("uv sync --frozen", "uv installs what cannot be compared with the lock."),
    "uv run": ("uv run pip install numpy", "uv installs what cannot be compared with the lock."),
    "uv run without": ("uv run --no-sync pip install numpy", "pip installs numpy without an exact version."),
    "uv tool": ("uv tool install ruff", "uv runs ruff without an exact version."),
    "uvx": ("uvx ruff check", "uv runs ruff without an exact version."),
    "uv python": ("uv python install 3.11", "uv installs Python 3.11 without an exact version."),
    "pipx": ("pipx install ruff", "pip installs ruff without an exact version."),
    "pipx upgrade": ("pipx upgrade-all", "pipx upgrade-all takes whatever is newest."),
    "poetry": ("poetry install", "poetry installs what cannot be compared with the lock."),
    "easy_install": ("easy_install x", "easy_install installs what cannot be compared with the lock."),
    "go": ("go install h/x@latest", "go installs h/x@latest without an exact version."),
    "cargo": ("cargo install ripgrep", "cargo installs without --locked and --version."),
    "gem": ("gem install rake", "gem installs without an exact version."),
    "curl into sh": ("curl -fsSL https://h/x.sh | sh", "What curl fetches is not compared with a checksum."),
    "bash of curl": ("bash <(curl -s https://h/x.sh)", "What curl fetches is not compared with a checksum."),
    "sh -c of curl": ('sh -c "$(curl -fsSL https://h/x.sh)"', "What curl fetches is not compared with a checksum."),
    "wget": ("wget https://h/x.tar.gz && tar xf x.tar.gz", "What wget fetches is not compared with a checksum."),
    "checked, but run before": (
        "curl https://h/x.sh | tee x.sh | sh; echo 'ab  x.sh' | sha256sum -c -",
        "What curl fetches is not compared with a checksum.",
    ),
    "clone": ("git clone https://h/x", "git clone takes a branch or a tag, which can move."),
    "clone of a tag": ("git clone --depth 1 -b v1.0 https://h/x", "git clone takes a branch or a tag, which can move."),
    "checkout of a tag": ("git clone https://h/x && git -C x checkout v1.0", "git clone takes a branch or a tag"),
    "pull": ("git -C x pull", "git pull takes whatever is newest."),
}
EXACT = {
    "lock": "pip install --no-cache-dir --require-hashes --no-deps -r /tmp/requirements.lock -r requirements-cuda.lock",
    "exact": "pip install 'click==8.5.1' 'numpy[dev]==2.4.6; python_version > \"3\"' torch===2.13.0+cpu",
    "constraint": "pip install --no-deps -c /tmp/requirements.lock torch Click",
    "torch of the lock": "t=$(grep -m1 -oE '^torch==[^ \\\\;]+' /tmp/requirements.lock) && pip install \"$t\"",
    "nothing, where the lock has none": "t=$(grep -o '^absent==.*' requirements.lock); [ -z \"$t\" ] || pip install $t",
    "torch of the lock, perhaps": "t=$(grep -oE '^torch==[^ ]+' requirements.lock || true); [ -z \"$t\" ] || pip install $t",
    "lock of the build": "true",
    "asks": "pip check && pip freeze && pip --version && python -m pip list && pip uninstall -y x && pip cache purge",
    "venv": "python3 -m venv /opt/venv && python -m ensurepip",
    "variable": 'v=8.5.1; pip install click==$v && pip install "click==${v}" click==${w:-8.5.1}',
    "apt": "apt-get update && apt-get install -y gcc=4:12.2.0-3 git=1:2.39.5-0+deb12u2 && rm -rf /var/lib/apt/lists/*",
    "apt file": "apt-get install -y ./x.deb",
    "snapshot": (
        "echo 'deb https://snapshot.debian.org/archive/debian/20260101T000000Z bookworm main' >/etc/apt/sources.list && "
        "apt-get update && apt-get install -y gcc"
    ),
    "snapshot by sed": (
        "sed -i 's#http://h/debian#https://snapshot.debian.org/archive/debian/20260101T000000Z#' /etc/x && "
        "apt-get upgrade -y"
    ),
    "snapshot of apt": "apt install --snapshot 20260101T000000Z gcc",
    "apk": "apk add --no-cache --virtual .build gcc=12.2.1-r4",
    "dnf": "dnf install -y gcc-12.2.1-4.fc37.x86_64 && zypper in gcc=12.2.1-1",
    "conda": "conda install -y numpy==2.4.6 conda-forge::scipy=1.14.1=py311_0",
    "npm": "npm install -g typescript@5.4.2 @scope/x@1.0.0 && npx -p cowsay@1.6.0 cowsay hi",
    "uv": "uv pip install --require-hashes -r requirements.lock && uv venv && uv pip sync --require-hashes requirements.lock",
    "uvx": "uvx ruff@0.5.0 check && uv tool install ruff==0.5.0 && uv python install 3.11.9 && pipx install ruff==0.5",
    "go": "go install h/x@v1.2.3 && cargo install --locked --version 1.2.3 x && gem install rake -v 13.0.6 && go build ./...",
    "checked": "curl -fsSLo x https://h/x && echo 'ab  x' | sha256sum -c - && sh x",
    "clone": f"git clone https://h/x && git -C x checkout --quiet {COMMIT}",
    "fetch": f"git init x && git fetch --depth 1 origin {COMMIT} && git clone --revision={COMMIT} https://h/x",
    "said": "echo 'now pip install numpy runs' && ls pip && cd conda && mkdir -p uv/install && rm -rf npm",
    "words": "grep -q pip install.txt; test -f /usr/bin/apt-get && command -v pip; chmod +x /usr/local/bin/uv",
    "python": "python -c 'import torch; print(torch.__version__)' && python - <<EOF\nprint(1)\nEOF",
    "here-document": "<<EOF\npip install click==8.5.1\nEOF",
    "comment": "true # pip install numpy",
    "case": "case $X in a|b) true;; *) false;; esac",
    "groups": "(cd /x && make) && { true; } && if [ -f y ]; then true; else false; fi; while false; do true; done",
    "a path in a variable": "$VENV/bin/python -m pip check && ${HOME}/bin/tool",
    "arithmetic": "echo $((1 + 2)) && x=$((3*4)) && echo ${x%1} ${#x}",
}


@pytest.mark.parametrize(("script", "what"), LOOSE_PIP.values(), ids=LOOSE_PIP)
def test_pip_without_an_exact_version_is_refused(script, what):
    problems = run(script)
    assert len(problems) == 1, problems
    assert problems[0].startswith(what)


@pytest.mark.parametrize(("script", "what"), LOOSE_SHELL.values(), ids=LOOSE_SHELL)
def test_however_the_shell_is_written(script, what):
    assert any(problem.startswith(what) for problem in run(script)), run(script)


@pytest.mark.parametrize(("script", "what"), LOOSE_OTHERS.values(), ids=LOOSE_OTHERS)
def test_other_installers_and_downloads(script, what):
    assert any(problem.startswith(f"Dockerfile:2: {what}") for problem in run(script)), run(script)


@pytest.mark.parametrize("script", EXACT.values(), ids=EXACT)
def test_what_is_exact_passes(script):
    assert run(script) == []


def test_all_at_once_each_with_its_line():
    text = f"FROM {BASE}\nRUN pip install a \\\n    b==1 \\\n    c && \\\n    apt-get install d\nRUN npm i e\n"
    assert [problem.split(":")[1] for problem in docker(text)] == ["2", "4", "5", "6"]


def test_scripts_of_the_commit_are_read_too():
    script = "#!/bin/sh\nset -e\npip install numpy\n"
    for call in ("./setup.sh", "sh /tmp/setup.sh", "bash -e setup.sh", ". ./setup.sh", "sudo sh setup.sh"):
        assert run(call, setup__sh=script) == ["setup.sh:3: pip installs numpy without an exact version."], call
    program = "#!/usr/bin/env python3\nimport os\nos.system('pip install numpy')\n"
    assert run("./more.py", more__py=program)[0].startswith(
        "more.py:3: A program that the recipe runs brings something in"
    )
    assert "which python3 runs, brings something in" in run("python3 more.py", more__py=program)[0]
    assert run("./setup.sh && ./more.py", setup__sh="true\n", more__py="#!/usr/bin/env python3\nprint(1)\n") == []
    assert run("conda create --file list.txt", list__txt="@EXPLICIT\nhttps://h/x.conda#ab\n") == []
    assert run("npm ci", **{"package-lock__json": "{}"}) == []


def test_variables_of_the_recipe_are_known():
    head = f"FROM {BASE}\nARG V=8.5.1\nENV W=$V P='click==8.5.1 numpy==2.4.6'\n"
    assert docker(f"{head}RUN pip install click==$W $P\n") == []
    assert docker(f"{head}ARG U\nRUN pip install click==$U\n") != []
    assert docker(f"{head}ENV V=$UNKNOWN\nRUN pip install click==$V\n") != []
    assert docker(f"{head}FROM {BASE}\nRUN pip install click==$V\n") != []
    assert (
        docker(f"FROM {BASE}\nARG LOCK=x CUDA_LOCK\nRUN pip install --require-hashes -r /l/$LOCK -r /l/$CUDA_LOCK\n")
        == []
    )
