"""Hugging Face models: found, read and rebuilt; transformers is imported when the first one is.

Models come from a folder or a hub id, through safetensors files alone. Unless ``trust_remote_code``
is true, a model is refused whose configuration leads to code or files of its choice. Attention runs
through
``torch.nn.functional.scaled_dot_product_attention`` where the model can.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from iqn_blocks.errors import ConfigError
from iqn_blocks.plain import show

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Input = Literal["pixel_values", "inputs_embeds"]
SUCH_AS: Mapping[Input, str] = {
    "pixel_values": "ViT, DINOv2, Swin or ConvNeXt",
    "inputs_embeds": "BERT, RoBERTa, GPT-2 or Llama",
}
# Keys by whose values transformers chooses what to import, to download or to read.
_LEADS_ELSEWHERE = frozenset(
    {
        "auto_map",  # classes in files of Python
        "attribute_map",  # lets another key stand for auto_map
        "quantization_config",  # packages
        "backbone",  # models of the hub and of timm, which in turn reads files and hub ids
        "architecture",  # the same
        "model_args",  # arguments for timm, such as a file to read
        "timm_kwargs",
        "transformers_weights",  # a file of weights, safetensors or not
        "configuration_files",  # another configuration
    }
)
# Keys that say how many modules or entries there are.
_COUNTS = re.compile(r"(^|_)(layers?|depths?|blocks|stages|levels|experts|groups|labels)(_|$)")
_FEW = 1000  # modules that are made within a second
_SPARE = (
    2**29
)  # elements of what a model is made with but a network leaves out: embeddings of words
# What computes with PyTorch alone; any other implementation may be code of the hub.
_PLAIN = (None, "eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm")


def load_model(
    path: str, takes: Input, *, key: str = "path", trust_remote_code: bool = False
) -> PreTrainedModel:
    """The model of a folder or hub id with its weights, in the default dtype and on the CPU.

    ``takes`` is the input that it is for, ``key`` what error messages call the path by.

    Raises:
        ConfigError: no such folder, a configuration or weights that cannot be read, weights that
            are missing, a hub that cannot be reached, a model for other inputs.
    """
    from transformers import AutoModel

    config = _read_config(path, key, trust_remote_code)

    def load(attention: str) -> Any:
        return AutoModel.from_pretrained(
            path,
            config=config,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            dtype=torch.get_default_dtype(),
            attn_implementation=attention,
            ignore_mismatched_sizes=True,  # they are an error below, which names them
            output_loading_info=True,
            **_without_pooler(config),
        )

    accepted = "model.safetensors beside config.json; weights in other files are not read"
    with explained(key, path, "its weights cannot be loaded", accepted), _quiet():
        model, report = _with_sdpa(load)
    _check_complete(model, report, path, key)
    return _ready(model, takes, path, key)


def model_from_config(
    config: Mapping[str, Any],
    takes: Input,
    *,
    path: str = "",
    key: str = "path",
    trust_remote_code: bool = False,
    sizes: Mapping[str, Sequence[int]] | None = None,
) -> PreTrainedModel:
    """The model that a configuration describes (``model.config.to_dict()``), with random weights.

    Nothing is read or downloaded; only a model with code of its own needs that code, from ``path``.
    Build it on a real device: buffers that are not saved are computed here. Where the ``sizes`` of
    its tensors are known, nothing is allocated for a model that does not have them.

    Raises:
        ConfigError: transformers does not know the model, cannot build it, or would need more than
            the configuration, which ``trust_remote_code`` does not allow; or its sizes are others.
    """
    from transformers import AutoConfig, AutoModel

    config = dict(config)
    _refuse_elsewhere(config, path, key, trust_remote_code)
    expected = "a configuration that fits the saved tensors"
    if sizes is not None:
        with explained(key, path, "its saved configuration is too large", expected):
            _check_counts(config, max(len(sizes), _FEW))
    if "auto_map" in config:
        kind = type(_read_config(path, key, trust_remote_code))
        parsed = kind.from_dict({**config, "_name_or_path": path})
    else:
        with explained(key, path, "its saved configuration cannot be read", "a known model_type"):
            parsed = AutoConfig.for_model(config.pop("model_type", ""), **config)
    _refuse_elsewhere(parsed, path, key, trust_remote_code)

    def make(attention: str) -> Any:
        return AutoModel.from_config(  # type: ignore[no-untyped-call]
            parsed,
            trust_remote_code=trust_remote_code,
            dtype=torch.get_default_dtype(),
            attn_implementation=attention,
            **_without_pooler(parsed),
        )

    with explained(key, path, "its model cannot be built", "a model that AutoModel knows"):
        if sizes is not None:
            with torch.device("meta"):
                hollow = _with_sdpa(make)
            _check_sizes(hollow, sizes)
        model = _with_sdpa(make)
    return _ready(model, takes, path, key)


def leads_elsewhere(config: object) -> str:
    """The first key that leads transformers to other code or files, at any depth; else ``""``.

    ``config`` is what a file holds, or what transformers has made of it: keys may change names.
    """
    for name, value, outermost in items(config):
        # Attention of the whole model is chosen below, whatever its configuration says.
        chosen = outermost and "attn_implementation" in name
        if (
            (name in _LEADS_ELSEWHERE and value and not _is_plain_name(name, value))
            or ("implementation" in name and value not in _PLAIN and not chosen)
            or name.startswith("__")  # Python's own attributes, such as __dict__
        ):
            return name
    return ""


def _is_plain_name(key: str, value: object) -> bool:
    """Whether it names an architecture inside timm, and no place such as ``hf-hub:owner/name``."""
    return key == "architecture" and isinstance(value, str) and not set(":/\\") & set(value)


def items(config: object) -> Iterator[tuple[str, Any, bool]]:
    """Key and value of every block at any depth, and whether the block is the outermost."""
    pending: list[tuple[Any, bool]] = [(config, True)]
    while pending:
        block, outermost = pending.pop()
        if hasattr(block, "attribute_map"):  # a PretrainedConfig
            block = vars(block)
        if isinstance(block, Mapping):
            yield from ((str(key), value, outermost) for key, value in block.items())
            block = list(block.values())
        if isinstance(block, list | tuple):
            pending += ((value, False) for value in block)


def _check_counts(config: Mapping[str, Any], most: int) -> None:
    """Raise ValueError where making so many modules would take for ever."""
    for name, value, _ in items(config):
        counts = value if isinstance(value, list) else [value]
        if _COUNTS.search(name) and any(type(n) is int and n > most for n in counts):
            raise ValueError(f"{name}: expected at most {most}, found {show(value)}")


def _check_sizes(model: torch.nn.Module, sizes: Mapping[str, Sequence[int]]) -> None:
    """Raise ValueError where a model of no memory would not fit tensors of these sizes."""
    spare = sum(map(math.prod, sizes.values())) + _SPARE
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in sizes and tuple(sizes[name]) != tuple(tensor.shape):
            raise ValueError(f"{name} is {tuple(tensor.shape)}, saved is {tuple(sizes[name])}")
        spare -= 0 if name in sizes else tensor.numel()
        if spare < 0:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, too large for what is saved")


def _refuse_elsewhere(config: object, path: str, key: str, trust_remote_code: bool) -> None:
    found = "" if trust_remote_code else leads_elsewhere(config)
    if found:
        flag = f"{key.rpartition('.')[0]}.trust_remote_code".lstrip(".")
        raise ConfigError(
            f"{key}: found {path!r}, whose configuration holds {found}, by which it names code or "
            f"files from elsewhere; accepted: a model without; if you trust what it names, set "
            f"{flag} to true"
        )


def plain_config(model: PreTrainedModel) -> dict[str, Any]:
    """What :func:`model_from_config` rebuilds the model from: plain data, without local paths."""
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)
    return config


def _read_config(path: str, key: str, trust_remote_code: bool) -> PretrainedConfig:
    from transformers import AutoConfig, PretrainedConfig

    folder, contents = Path(path), "a folder that holds config.json and model.safetensors"
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"{key}: found {path!r}, a folder without config.json; accepted: {contents}, or a "
                "hub id; save the model there"
            )
        what, accepted = "its config.json cannot be read", "that of a model transformers knows"
    else:
        if folder.exists() or _looks_local(path):
            raise ConfigError(
                f"{key}: found {path!r}, but there is no such folder; accepted: {contents}, or a "
                "hub id (name, or owner/name); correct the path"
            )
        what = "there is no such folder, and the hub gave no configuration of that id"
        accepted = f"{contents}, or the id of a model that the hub or its cache has"
    with explained(key, path, what, accepted):
        content, _ = PretrainedConfig.get_config_dict(path)
    _refuse_elsewhere(content, path, key, trust_remote_code)
    with explained(key, path, what, accepted):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            path, trust_remote_code=trust_remote_code
        )
    _refuse_elsewhere(config, path, key, trust_remote_code)
    return config


def _looks_local(path: str) -> bool:
    """Whether a path cannot be a hub id, which is ``name`` or ``owner/name``."""
    return path.startswith((".", "~", os.sep)) or path.count("/") > 1 or "\\" in path


@contextmanager
def explained(key: str, path: str, what: str, accepted: str) -> Iterator[None]:
    """Turn whatever goes wrong in a foreign library into one line."""
    try:
        yield
    except Exception as error:  # many types, each meaning the same here
        reason = " ".join(str(error).split())
        hint = ""
        if isinstance(error, ImportError) and "timm" in reason:
            hint = "; it is a model of timm: pip install 'iqn-blocks[timm]'"
        raise ConfigError(
            f"{key}: found {path!r}; {what} ({type(error).__name__}: {reason[:300]}); accepted: "
            f"{accepted}{hint}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' table of unexpected weights off the screen: no model here needs them."""

    def other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    log = logging.getLogger("transformers.modeling_utils")
    log.addFilter(other)
    try:
        yield
    finally:
        log.removeFilter(other)


def _check_complete(model: Any, report: Mapping[str, Any], path: str, key: str) -> None:
    """Raise a ConfigError where transformers has filled parameters with random numbers."""
    # What is removed later need not be there: see iqn_blocks.hf.pruning.
    removed = {"pooler", "mask_token"}
    absent = sorted(name for name in report["missing_keys"] if removed.isdisjoint(name.split(".")))
    absent += [f"{name} (of another shape)" for name, *_ in sorted(report["mismatched_keys"])]
    if absent:
        raise ConfigError(
            f"{key}: found {path!r}, whose weights lack {len(absent)} of the parameters of "
            f"{type(model).__name__}: {', '.join(absent[:3])}{', …' if absent[3:] else ''}; "
            "accepted: weights of this very model; save it again with save_pretrained"
        )


def _without_pooler(config: PretrainedConfig) -> dict[str, Any]:
    """The argument that leaves the pooler out, for models that take it."""
    from transformers import MODEL_MAPPING

    model: Any = MODEL_MAPPING.get(type(config), None)
    takes = inspect.isclass(model) and "add_pooling_layer" in inspect.signature(model).parameters
    return {"add_pooling_layer": False} if takes else {}


def _with_sdpa(make: Callable[[str], Any]) -> Any:
    """``make("sdpa")``, or eager attention for a model that has no other (or none at all)."""
    try:
        return make("sdpa")
    except ValueError:
        return make("eager")


def _ready(model: Any, takes: Input, path: str, key: str) -> PreTrainedModel:
    """In training mode, as every new module is; named outputs, and no cache of keys and values."""
    if takes not in inspect.signature(model.forward).parameters:
        raise ConfigError(
            f"{key}: found {path!r} ({type(model).__name__}), which takes no {takes}; accepted: a "
            f"model that does, such as {SUCH_AS[takes]}; name another model"
        )
    model.config.return_dict = True
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    if hasattr(model.config, "do_pooling"):  # timm's: nobody reads the pooled output
        model.config.do_pooling = False
    model.train()
    return model  # type: ignore[no-any-return]
