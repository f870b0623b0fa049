"""mkdocs' hook: puts the tables of every setting into a page, where it says ``<!-- every setting -->``.

Meaning, unit and range are those of the config's dataclasses and of the catalog, defaults those of configs/.
"""

import collections.abc
import dataclasses
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

from adarem.run.catalog import OPTIMIZERS
from adarem.run.config import (
    ClusterConfig,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScaleConfig,
    ScheduleConfig,
    TextConfig,
    TrainConfig,
    WandbConfig,
)
from adarem.run.setting import Setting
from adarem.run.sweep import Draw, Halving, PaperPart, SweepSpec
from adarem.run.text_models import GptConfig, LmConfig, LstmConfig

CONFIGS = Path(__file__).parents[1] / "configs"
MARK = "<!-- every setting -->"
# Heading, group, its class, and whether a file of configs/<group> is of that class.
GROUPS = (
    ("data, images", "data", DataConfig, lambda raw: raw.get("kind") != "text"),
    ("data, text", "data", TextConfig, lambda raw: raw.get("kind") == "text"),
    ("model, images", "model", ModelConfig, lambda raw: raw.get("kind") != "text"),
    ("model, AWD-LSTM", "model", LstmConfig, lambda raw: raw.get("name") == "awd_lstm"),
    ("model, GPT", "model", GptConfig, lambda raw: raw.get("name") == "gpt"),
    ("model, text, imported", "model", LmConfig, lambda raw: False),
    ("optimizer", "optimizer", OptimizerConfig, lambda raw: True),
    ("schedule", "schedule", ScheduleConfig, lambda raw: True),
    ("scale", "scale", ScaleConfig, lambda raw: True),
    ("train", "train", TrainConfig, lambda raw: True),
    ("cluster", "cluster", ClusterConfig, lambda raw: True),
    ("wandb", "wandb", WandbConfig, lambda raw: True),
)
HEAD = "| Key | Meaning | Values | Default |\n| --- | --- | --- | --- |"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return markdown.replace(MARK, "\n".join(sections())) if MARK in markdown else markdown


def sections() -> Iterator[str]:
    yield f"\n### A grid's file\n\nIn `configs/grid/`.\n\n{HEAD}"
    yield from rows(SweepSpec, "grid", {})
    for heading, group, cls, belongs in GROUPS:
        choices = {name: raw for name, raw in choices_of(group).items() if belongs(raw)}
        yield f"\n### {heading}\n\n{(cls.__doc__ or '').strip().replace('<', '&lt;')}"
        if len(choices) > 1:
            yield f"\n`{group}=` takes {', '.join(f'`{name}`' for name in choices)}."
        yield f"\n{HEAD}"
        yield from rows(cls, group, choices)
        if cls is OptimizerConfig:
            yield from optimizers(choices)


def optimizers(choices: Mapping[str, dict[str, object]]) -> Iterator[str]:
    for name, optimizer in OPTIMIZERS.items():
        if optimizer.hparams:
            yield f"\n#### {optimizer.label}\n\n`optimizer={name}`; weight decay is {optimizer.decay}.\n\n{HEAD}"
            for key, setting in optimizer.hparams.items():
                yield row(f"optimizer.{key}", setting, "", f"`{shown(choices[name][key])}`")


def choices_of(group: str) -> dict[str, dict[str, object]]:
    """The files of a group by name, each with what it takes over from another; or the group in run.yaml."""
    if not (CONFIGS / group).is_dir():
        return {"": yaml.safe_load((CONFIGS / "run.yaml").read_text(encoding="utf-8"))[group]}
    files = {p.stem: yaml.safe_load(p.read_text(encoding="utf-8")) for p in sorted((CONFIGS / group).glob("*.yaml"))}
    found = {}
    for name, raw in files.items():
        bases = [files[d] for d in raw.get("defaults", []) if isinstance(d, str) and d in files]
        found[name] = {k: v for layer in (*bases, raw) for k, v in layer.items() if k != "defaults"}
    return found


def rows(cls: type, prefix: str, choices: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        key = f"{prefix}.{field.name}"
        setting = next((n for n in getattr(hint, "__metadata__", ()) if isinstance(n, Setting)), None)
        if setting is not None:
            given = {name: raw[field.name] for name, raw in choices.items() if field.name in raw}
            kind = typing.get_args(hint)[0]
            yield row(key, setting, values(kind), default(given, field, len(choices)))
            for part in {Draw, Halving}.intersection(typing.get_args(kind)):
                yield from rows(part, key, {})
        elif dataclasses.is_dataclass(hint) and choices:
            inner = {name: raw.get(field.name, {}) for name, raw in choices.items()}
            yield from rows(typing.cast(type, hint), key, typing.cast(dict[str, dict[str, object]], inner))


def row(key: str, setting: Setting, kind: str, default: str) -> str:
    allowed = "" if setting.allowed is None else str(setting.allowed)
    parts = [part for part in (kind, allowed, setting.unit) if part]
    return f"| `{key}` | {setting.meaning} | {'; '.join(parts)} | {default} |".replace("<", "&lt;")


def values(hint: object) -> str:
    """The values of a type, in words."""
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        return f"list of {values(typing.get_args(hint)[0]).replace(' or ', 's or ')}s"
    if typing.get_origin(hint) is collections.abc.Mapping:
        return "mapping"
    words = {
        PaperPart: "mapping of source and values",
        Draw: "mapping of the keys below",
        Halving: "mapping of the keys below",
        int: "integer",
        float: "number",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    return " or ".join(words[typing.cast(type, h)] for h in typing.get_args(hint) or (hint,))


def default(given: Mapping[str, object], field: dataclasses.Field[object], choices: int) -> str:
    """The value of each choice, those that agree together."""
    if not given and field.default_factory is not dataclasses.MISSING:
        return f"`{shown(field.default_factory())}`"
    if not given and field.default is dataclasses.MISSING:
        return "the catalog's" if choices else "to be given"
    if not given:
        return f"`{shown(field.default)}`"
    by_value: dict[str, list[str]] = {}
    for name, value in given.items():
        by_value.setdefault(shown(value), []).append(name)
    if len(by_value) == 1 and len(given) == choices:
        return f"`{next(iter(by_value))}`"
    return "; ".join(f"`{value}` ({', '.join(names)})" for value, names in by_value.items())


def shown(value: object) -> str:
    if value == "???":
        return "to be given"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    return '""' if value == "" else str(value)
