"""The JSON Schema (draft 2020-12) of a config, with the fields' own descriptions: what `launch schema` prints."""

import json
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from launcher.config.schema import ORDER, Experiment

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class _Generator(GenerateJsonSchema):
    """Without pydantic's titles, which repeat the keys, and with descriptions on one line."""

    def generate(self, schema: Any, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
        return {"$schema": DIALECT, "title": "samebits experiment", **tidy(super().generate(schema, mode))}

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the signature is pydantic's
        return False


def tidy(value: Any) -> Any:
    """Descriptions lose the line breaks and the indentation that they have in the source."""
    if isinstance(value, list):
        return [tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    described = value.get("description")
    rest = {key: tidy(item) for key, item in value.items() if key != "title" or not isinstance(item, str)}
    return rest | {"description": " ".join(described.split())} if isinstance(described, str) else rest


def schema() -> dict[str, Any]:
    """The schema, its keys in the order in which a config is written."""
    made = Experiment.model_json_schema(schema_generator=_Generator)
    made["properties"] = {key: made["properties"][key] for key in ORDER}
    made["required"] = [key for key in ORDER if key in made["required"]]
    return made


def schema_text() -> str:
    """As docs/schema.json holds it."""
    return json.dumps(schema(), indent=2) + "\n"
