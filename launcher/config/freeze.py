"""An experiment as the text of a tree's config.yaml: every default written out, in one order, to the last bit.

Any reader of YAML, old or new, reads the same values from it: whatever two of them could read differently is quoted."""

from typing import Any, Final

import yaml

from launcher.config.scalar import is_text
from launcher.config.schema import ORDER, Experiment

NEVER_FOLD: Final = 2**31


class _Writer(yaml.SafeDumper):
    """PyYAML's safe writer, without aliases, and quoting what either version of YAML would not read as a text."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True

    def write_text(self, text: str) -> yaml.ScalarNode:
        old: str = self.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        is_plain = is_text(text) and text.isprintable() and old == "tag:yaml.org,2002:str"
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if is_plain else '"')

    def write_list(self, items: list[Any]) -> yaml.SequenceNode:
        is_short = all(not isinstance(item, list | dict) for item in items)
        return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=is_short)


_Writer.add_representer(str, _Writer.write_text)
_Writer.add_representer(list, _Writer.write_list)


def frozen_text(experiment: Experiment) -> str:
    """The text. Equal experiments have equal texts, and the text loads back to an equal experiment."""
    values = experiment.model_dump()
    ordered = {key: values[key] for key in ORDER}
    return yaml.dump(ordered, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=NEVER_FOLD)
