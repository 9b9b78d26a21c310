"""`python -m launcher.cli.twin REQUEST`: one launch of a twin for `launch chaos`, with the answers to errors that `launch` has."""

import json
import sys
from pathlib import Path

from launcher.cli.boundary import guarded


def launch_twin(request: str) -> int:
    """`request`: `launcher.chaos.twins.Request.text`."""
    from launcher.given import Twin
    from launcher.launch import launch
    from launcher.plan import Flags

    value = json.loads(request)
    flags = Flags(**{**value["flags"], "experiments": Path(value["flags"]["experiments"])})
    twin = Twin(value["name"], Path(value["folder"]))
    return launch(Path(value["config"]), flags, dry_run=False, as_json=False, wait=False, twin=twin)


if __name__ == "__main__":
    sys.exit(guarded(lambda: launch_twin(sys.argv[1]), ["chaos"]))
