"""The command line: `launch VERB ...`; `launch configs/x.yaml ...` is short for `launch run configs/x.yaml ...`."""

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem

from launcher import __version__
from launcher.cli.boundary import guarded

VERBS: Final = {
    "run": "Launch a config: all its seeds, here or on Slurm.",
    "status": "What has become of the runs.",
    "logs": "What a run has written, attempt by attempt.",
    "cancel": "Stop an experiment's runs for good.",
    "image": "Build, move, list and remove images.",
    "chaos": "Beat a twin of an experiment with real blows, and compare it with a calm one.",
    "schema": "Print the JSON Schema of a config, for editors.",
}
"""Every verb with the first line of its help, so that `launch --help` loads none of them. A test compares."""


COMPLETION: Final = "_LAUNCH_COMPLETE"
"""Set by the shell's completion, which click serves: `eval "$(_LAUNCH_COMPLETE=bash_source launch)"`."""


class Verbs(click.Group):
    """One file per verb in this folder, imported when that verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"launcher.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs (`launch VERB --help` says more)"):
            formatter.write_dl(list(VERBS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs and flags, and files where none fits, since a config may stand first."""
        return super().shell_complete(ctx, incomplete) or [CompletionItem(incomplete, type="file")]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if args and args[0] not in own and args[0] not in VERBS:
            args = ["run", *args] if args[0].startswith("-") or _is_config(args[0]) else _refuse(args[0], ctx)
        return super().parse_args(ctx, args)


def _is_config(word: str) -> bool:
    """Whether a first word that is no verb was meant as a file, so that what is said about it is said about a file."""
    return "/" in word or word.endswith((".yaml", ".yml", ".json", ".toml")) or Path(word).exists()


def _refuse(word: str, ctx: click.Context) -> list[str]:
    hint = ""
    if near := difflib.get_close_matches(word, VERBS, 1):
        hint = f" Did you mean `launch {near[0]}`?"
    elif Path("configs", f"{word}.yaml").is_file():
        hint = f" Did you mean `launch configs/{word}.yaml`?"
    raise click.UsageError(f"`{word}` is neither a verb nor a config file.{hint}", ctx)


EPILOG: Final = """\b
Examples:
  launch configs/quickstart.yaml                           on this machine
  launch configs/x.yaml --partition gpu                    on Slurm
  launch configs/x.yaml --partition gpu --dry-run          only show what would be done
  launch status x
"""


@click.group(
    cls=Verbs, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, message="samebits %(version)s")
def group() -> None:
    """Launch training runs that survive preemption and reproduce to the same bits.

    `launch CONFIG` is short for `launch run CONFIG`. What a run computes stands in the config, which is committed;
    flags only say where and when it happens.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. The only place where errors are printed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if COMPLETION in os.environ:
        group.main(given, prog_name="launch")
    return guarded(lambda: _invoke(given), given)


def _invoke(arguments: list[str]) -> int:
    """Without click's own `main`, which has other answers to errors than ours."""
    with group.make_context("launch", arguments) as context:
        return int(group.invoke(context) or 0)
