"""Hugging Face models: found, read and rebuilt; transformers is imported when the first one is.

Models come from a folder or a hub id, through safetensors files alone. Unless ``trust_remote_code``
is true, a model is refused whose configuration leads to code or files of its choice, and
transformers gets tensors in place of a path, so that it looks for no other files. Attention runs
through ``torch.nn.functional.scaled_dot_product_attention`` where the model can.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from iqn_blocks.errors import ConfigError
from iqn_blocks.hf.foreign import (
    FEW,
    MANY,
    check_counts,
    check_sizes,
    check_total,
    refuse_elsewhere,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Input = Literal["pixel_values", "inputs_embeds"]
SUCH_AS: Mapping[Input, str] = {
    "pixel_values": "ViT, DINOv2, Swin or ConvNeXt",
    "inputs_embeds": "BERT, RoBERTa, GPT-2 or Llama",
}
_WEIGHTS = "model.safetensors"
_MAX_PATH = 1000  # characters of it in a message; hub ids are shorter
_BY_CALLER = "pass trust_remote_code=True"  # what a saved configuration says does not count


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
    accepted = "model.safetensors beside config.json; weights in other files are not read"
    what = "its weights cannot be loaded"
    kind: Any = AutoModel
    source: dict[str, Any] = {"pretrained_model_name_or_path": path}
    if not trust_remote_code:
        with as_config_error(key, path, what, accepted):
            tensors = _read_tensors(path)
            check_counts(config, max(len(tensors), FEW))
            with torch.device("meta"):
                hollow = _with_sdpa(lambda attention: _make(config, attention))
            check_total(hollow, sum(tensor.numel() for tensor in tensors.values()))
        kind, config = type(hollow), hollow.config
        source = {"pretrained_model_name_or_path": None, "state_dict": tensors}

    def load(attention: str) -> Any:
        return kind.from_pretrained(
            **source,
            config=config,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            dtype=torch.get_default_dtype(),
            attn_implementation=attention,
            ignore_mismatched_sizes=True,  # they are an error below, which names them
            output_loading_info=True,
            **_without_pooler(config),
        )

    with as_config_error(key, path, what, accepted), _quiet():
        model, report = _with_sdpa(load)
        model.name_or_path = path
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
    from transformers import AutoConfig

    config = dict(config)
    refuse_elsewhere(config, path, key, trust_remote_code, _BY_CALLER)
    expected = "a configuration that fits the saved tensors"
    if sizes is not None:
        with as_config_error(key, path, "its saved configuration is too large", expected):
            check_counts(config, max(len(sizes), FEW))
    if "auto_map" in config:
        kind = type(_read_config(path, key, trust_remote_code))
        parsed = kind.from_dict({**config, "_name_or_path": path})
    else:
        with as_config_error(
            key, path, "its saved configuration cannot be read", "a known model_type"
        ):
            parsed = AutoConfig.for_model(config.pop("model_type", ""), **config)
    refuse_elsewhere(parsed, path, key, trust_remote_code, _BY_CALLER)

    def make(attention: str) -> Any:
        return _make(parsed, attention, trust_remote_code)

    with as_config_error(key, path, "its model cannot be built", "a model that AutoModel knows"):
        if sizes is not None:
            with torch.device("meta"):
                hollow = _with_sdpa(make)
            check_sizes(hollow, sizes)
        model = _with_sdpa(make)
    return _ready(model, takes, path, key)


def plain_config(model: PreTrainedModel) -> dict[str, Any]:
    """What :func:`model_from_config` rebuilds the model from: plain data, without local paths."""
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)
    return config


def _read_config(path: str, key: str, trust_remote_code: bool) -> PretrainedConfig:
    from transformers import AutoConfig, PretrainedConfig

    folder, contents = Path(path), "a folder that holds config.json and model.safetensors"
    is_folder = os.path.isdir(path)  # False for impossible names, where Path may raise
    if is_folder:
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"{key}: found {path!r}, a folder without config.json; accepted: {contents}, or a "
                "hub id; save the model there"
            )
        what, accepted = "its config.json cannot be read", "that of a model transformers knows"
    else:
        if os.path.exists(path) or _looks_local(path):
            raise ConfigError(
                f"{key}: found {path[:_MAX_PATH]!r}, but there is no such folder; accepted: "
                f"{contents}, or a hub id (name, or owner/name); correct the path"
            )
        what = "there is no such folder, and the hub gave no configuration of that id"
        accepted = f"{contents}, or the id of a model that the hub or its cache has"
    if is_folder:  # transformers follows configuration_files before it gives the content
        with as_config_error(key, path, what, accepted):
            raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        refuse_elsewhere(raw, path, key, trust_remote_code)
    with as_config_error(key, path, what, accepted):
        content, _ = PretrainedConfig.get_config_dict(path)
        check_counts(content, MANY)
    refuse_elsewhere(content, path, key, trust_remote_code)
    with as_config_error(key, path, what, accepted):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            path, trust_remote_code=trust_remote_code
        )
    refuse_elsewhere(config, path, key, trust_remote_code)
    return config


def _read_tensors(path: str) -> dict[str, torch.Tensor]:
    """Those of ``model.safetensors``, or of the files beside it that its index names."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError
    from safetensors.torch import load_file

    def find(name: str) -> Path:
        if not Path(path).is_dir():
            return Path(hf_hub_download(path, name))
        if name != Path(name).name or not (file := Path(path, name)).is_file():
            raise FileNotFoundError(f"{name} is no file in that folder")
        return file

    try:
        return load_file(find(_WEIGHTS))
    except (FileNotFoundError, EntryNotFoundError):
        try:
            index = json.loads(find(f"{_WEIGHTS}.index.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, EntryNotFoundError) as error:
            raise FileNotFoundError(f"there is no {_WEIGHTS}") from error
    tensors: dict[str, torch.Tensor] = {}
    for name in sorted(set(index["weight_map"].values())):
        tensors |= load_file(find(name))
    return tensors


def _make(config: PretrainedConfig, attention: str, trust_remote_code: bool = False) -> Any:
    """A model with random weights."""
    from transformers import AutoModel

    return AutoModel.from_config(  # type: ignore[no-untyped-call]
        config,
        trust_remote_code=trust_remote_code,
        dtype=torch.get_default_dtype(),
        attn_implementation=attention,
        **_without_pooler(config),
    )


def _looks_local(path: str) -> bool:
    """Whether a path cannot be a hub id, which is ``name`` or ``owner/name``."""
    is_odd = path.count("/") > 1 or "\\" in path or len(path) > _MAX_PATH
    return is_odd or path.startswith((".", "~", os.sep))


@contextmanager
def as_config_error(key: str, path: str, what: str, accepted: str) -> Iterator[None]:
    """Turn whatever goes wrong in a foreign library into a ConfigError of one line."""
    try:
        yield
    except Exception as error:  # many types, each meaning the same here
        told: BaseException = error
        hint = ""
        if isinstance(error, ImportError):
            # transformers says which class it could not import; what that one raised says why.
            while told.__cause__ is not None:
                told = told.__cause__
            hint = _what_to_install(str(error), str(told))
        reason = " ".join(str(told).split())
        raise ConfigError(
            f"{key}: found {path!r}; {what} ({type(told).__name__}: {reason[:300]}); accepted: "
            f"{accepted}{hint}"
        ) from error


def _what_to_install(message: str, cause: str) -> str:
    """The way out where transformers cannot import what a model needs; empty if it is unknown."""
    is_timm = "timm" in message.lower()
    if "torchvision" in cause or (is_timm and importlib.util.find_spec("timm") is not None):
        needs = "it is a model of timm, which needs torchvision: " if is_timm else ""
        return f"; {needs}install a torchvision that is built for PyTorch {torch.__version__}"
    return "; it is a model of timm: pip install 'iqn-blocks[timm]'" if is_timm else ""


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
