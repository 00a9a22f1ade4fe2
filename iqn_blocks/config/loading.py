"""Configurations from files: YAML or JSON by suffix, with duplicate keys refused."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import PydanticCustomError

from iqn_blocks.config.config import Config
from iqn_blocks.config.merge import PRESETS, list_presets
from iqn_blocks.errors import ConfigError
from iqn_blocks.kinds import Choice
from iqn_blocks.plain import MAX_DEPTH, MAX_VALUES, shorten, show

MAX_BYTES = 4 * 2**20
MAX_NAME = 300
_MAP, _LIST, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "merge"))
_NULLS = ("", "~", "null")
_JSON_TOKEN = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}\[\]]')


def parse(cfg: Config | Mapping[str, Any] | str | os.PathLike[str] | None) -> Config:
    """The configuration from a config object, a mapping, or the path of a YAML or JSON file.

    ``preset: NAME`` at the top level stands for that preset's keys, over which the others are laid.

    Raises:
        ConfigError: with all faults of single keys, or else with all faults between keys.
    """
    if isinstance(cfg, Config):
        return cfg
    if isinstance(cfg, str | os.PathLike):
        return load_config(cfg)
    if cfg is None:
        raise ConfigError(
            "the configuration: found null; accepted: a mapping such as "
            '{"n_actions": 5, "float_input_dim": 3}, a Config, or the path of a YAML or JSON file'
        )
    return Config.model_validate(with_preset(cfg))


def with_preset(cfg: Any) -> Any:
    """The keys of a configuration laid over those of the preset that it names, if it names one."""
    if not isinstance(cfg, Mapping) or cfg.get("preset") is None:
        return cfg
    own = dict(cfg)
    try:
        name = Choice(names=tuple(list_presets())).read(own.pop("preset"))
    except PydanticCustomError as error:
        raise ConfigError(f"preset: {error.message()}") from None
    return Config.merge(read_file(PRESETS / f"{name}.yaml"), own)


def load_config(path: str | os.PathLike[str]) -> Config:
    """The configuration in a file: ``.yaml`` and ``.yml`` are YAML, ``.json`` is JSON.

    Raises:
        ConfigError: with the file's name, where it cannot be read, holds the same key twice, or
            is not a valid configuration.
    """
    try:
        keys = read_file(path)
        if "format_version" in keys:
            raise ConfigError(_checkpoint(Path(path).parent))
        return parse(keys)
    except ConfigError as error:
        raise type(error)(f"{shorten(os.fspath(path), MAX_NAME) or repr('')}: {error}") from None


def _checkpoint(folder: Path) -> str:
    return (
        f"found a checkpoint, or a part of one; accepted: a YAML or JSON file; load its network "
        f"with iqn_blocks.from_pretrained({os.fspath(folder)!r}), which has its configuration as "
        f".config"
    )


def read_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The plain data in a YAML or JSON file whose top level is a mapping; raises ConfigError."""
    readers = {".yaml": _read_yaml, ".yml": _read_yaml, ".json": _read_json}
    suffix = Path(path).suffix.lower()
    if os.path.isfile(os.path.join(path, "model.safetensors")):  # False for impossible names
        raise ConfigError(_checkpoint(Path(path)))
    if suffix == ".safetensors":
        raise ConfigError(_checkpoint(Path(path).parent))
    if suffix not in readers:
        raise ConfigError(f"found the suffix {suffix!r}; accepted: {', '.join(readers)}")
    text = _text(Path(path))
    try:
        data = readers[suffix](text)
    except RecursionError:
        raise ConfigError(f"found data nested too deeply; accepted: {MAX_DEPTH} levels") from None
    if not isinstance(data, dict):
        raise ConfigError(f"found {show(data)} at the top level; accepted: a block of keys")
    return data


def _text(path: Path) -> str:
    try:
        kind = path.stat().st_mode
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):  # opening a pipe would wait for its writer
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
        else:
            raise ValueError("it is a pipe or a device, not a file")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"found more than {MAX_BYTES} bytes; accepted: at most that many")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 at byte {error.start}; save it as UTF-8") from None


def _read_json(text: str) -> Any:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"is not JSON: {error}") from None
    _refuse_duplicates(text)
    return data


def _refuse_duplicates(text: str) -> None:
    """Walks the tokens of valid JSON, with the keys seen so far of each open object."""
    open_keys: list[set[str]] = []
    for token in _JSON_TOKEN.finditer(text):
        symbol, key, colon = token[0], token[1], token[2]
        if symbol in "{[":
            open_keys.append(set())
        elif symbol in "}]":
            open_keys.pop()
        elif colon:
            name = json.loads(key)
            if name in open_keys[-1]:
                line = text.count("\n", 0, token.start()) + 1
                raise ConfigError(f"line {line}: found the key {name!r} a second time; keep one")
            open_keys[-1].add(name)


def _read_yaml(text: str) -> Any:
    try:
        loader = _Yaml(text)
        node = loader.get_single_node()
        return None if node is None else loader.plain(node, ())
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise ConfigError(f"{where}is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"is not YAML: {' '.join(str(error).split())}") from None


class _Yaml(yaml.SafeLoader):
    """Makes plain data of nodes.

    Nodes are counted when they are composed, because PyYAML is slow on large files, and when they
    become data, because aliases can stand for exponentially many.
    """

    composed = made = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.composed += 1
        if self.composed > MAX_VALUES:
            raise ConfigError(f"found more than {MAX_VALUES} values; accepted: at most that many")
        return super().compose_node(parent, index)

    def plain(self, node: yaml.Node, above: tuple[yaml.Node, ...]) -> Any:
        """The data of a node that stands inside the nodes ``above``."""
        self.made += 1
        if self.made > MAX_VALUES:
            raise _fault(node, f"found more than {MAX_VALUES} values; accepted: at most that many")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if any(node is other for other in above):
            raise _fault(
                node, "found a block that holds itself; accepted: plain data; write it out"
            )
        if len(above) >= MAX_DEPTH:
            raise _fault(node, f"found data nested too deeply; accepted: {MAX_DEPTH} levels")
        if node.tag not in (_MAP, _LIST):
            raise _fault(node, f"found the tag {node.tag}; accepted: untagged data; remove it")
        above = (*above, node)
        if isinstance(node, yaml.SequenceNode):
            return [self.plain(item, above) for item in node.value]
        own: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:  # the first block wins, and own keys win over all
                blocks = self.plain(value_node, above)
                for block in blocks if isinstance(blocks, list) else [blocks]:
                    if not isinstance(block, dict):
                        text = f"found {show(block)} after <<; accepted: blocks"
                        raise _fault(value_node, text)
                    merged = block | merged
                continue
            key = self.plain(key_node, above)
            if isinstance(key, list | dict):
                raise _fault(key_node, f"found the key {show(key)}; accepted: strings")
            if key in own:
                raise _fault(key_node, f"found the key {key!r} a second time; keep one")
            own[key] = self.plain(value_node, above)
        return merged | own

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        try:
            value = self.construct_object(node)
            if value is None and node.value.lower() not in _NULLS:  # PyYAML takes any
                raise ValueError
            return value
        except (ValueError, LookupError, AttributeError):  # as PyYAML's constructors fail
            raise _fault(
                node,
                f"found {show(node.value)}, which is no {node.tag.rpartition(':')[2]}; "
                "accepted: values that fit their tag; put it in quotes, without a tag",
            ) from None


def _fault(node: yaml.Node, text: str) -> ConfigError:
    return ConfigError(f"line {node.start_mark.line + 1}: {text}")
