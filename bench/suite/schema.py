"""The JSON Schema of a suite file: the dataclasses' own, with the short forms and the plugins' options."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from bench.contract import plugins
from bench.contract.spec import Suite
from bench.contract.workload import KINDS
from bench.suite import config
from bench.suite.price import API_FORM, HOUR_FORM


def suite_schema() -> dict[str, Any]:
    """What an editor needs to complete and check a suite file; each plugin's options are spelled out."""
    schema = TypeAdapter(Suite).json_schema()
    defs: dict[str, Any] = schema["$defs"]
    recipe = defs["Recipe"]
    recipe["properties"]["steps"]["items"] = {"$ref": "#/$defs/Step"}
    del recipe["properties"]["replicate_of"]  # what a suite has of `replicates`, and no file says
    defs["Step"] = _any_plugin(plugins.METHODS, "method", {})
    for spec, package, key, own in (
        ("EngineSpec", plugins.ENGINES, "name", "label"),
        ("Task", plugins.TASKS, "task", "name"),
    ):
        forms = _any_plugin(package, key, {own: {"type": "string"}})
        defs[spec] = {"anyOf": [{"enum": list(plugins.names(package))}, forms]}
    defs["Recipe"] = {"anyOf": [{"enum": sorted(config.named_recipes())}, recipe]}
    defs["Model"] = {"anyOf": [{"type": "string", "description": "A local folder or a Hub id"}, defs["Model"]]}
    for kind, load in KINDS.items():  # one without a kind is offline
        defs[load.__name__]["additionalProperties"] = False
        if kind != "offline":
            defs[load.__name__]["required"] = [*defs[load.__name__].get("required", []), "kind"]
    mapping = {kind: f"#/$defs/{load.__name__}" for kind, load in KINDS.items()}
    schema["properties"]["workloads"]["items"]["discriminator"] = {"propertyName": "kind", "mapping": mapping}
    for key, form in (("price_per_hour", HOUR_FORM), ("api_price", API_FORM)):
        schema["properties"][key]["anyOf"].append({"type": "string", "description": form})
    schema["required"] = [key for key in schema["required"] if key != "name"]  # the file's name serves
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "llm-bench suite", **schema}


def _any_plugin(package: str, key: str, more: dict[str, Any]) -> dict[str, Any]:
    """One object form per plugin of the package: its name under `key`, and its options."""
    forms = []
    for name in plugins.names(package):
        options = TypeAdapter(plugins.load(package, name).Options).json_schema()
        properties = {key: {"const": name}, **options.get("properties", {}), **more}
        forms.append({"type": "object", "properties": properties, "required": [key], "additionalProperties": False})
    return {"anyOf": forms}
