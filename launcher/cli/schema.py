"""`launch schema`."""

import click

EPILOG = """\b
Example:
  launch schema > docs/schema.json
\b
The first line of a config names it, so that editors complete and check while you type:
  # yaml-language-server: $schema=../docs/schema.json
"""


@click.command("schema", epilog=EPILOG)
def command() -> int:
    """Print the JSON Schema of a config, for editors."""
    from launcher.config.jsonschema import schema_text

    click.echo(schema_text(), nl=False)
    return 0
