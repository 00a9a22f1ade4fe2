"""trackmania_rl's YAML files, newer and older, as configurations of ours.

The blocks ``nn`` and ``btr`` say what the network is; ``inputs``, ``environment`` and
``state_normalization`` give the sizes of its input and output and the statistics of its float
inputs; all other blocks are the trainer's and are skipped by name.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from iqn_blocks.config import Cnn, Config, ImageSize
from iqn_blocks.config.loading import read_file
from iqn_blocks.config.messages import join
from iqn_blocks.config.schema import CNN_KEYS_OF_BTR
from iqn_blocks.errors import ConfigError, ImportedConfigWarning, UnusedConfigWarning
from iqn_blocks.interop.trackmania_rl.environment import (
    environment_faults,
    float_inputs,
    lacks_waypoints,
)
from iqn_blocks.plain import PlainData, freeze, nearest, show, thaw

Block = dict[Any, Any]
Read = tuple[Config, list[Warning]]  # a configuration, and what its file leaves to say

TRAINER_BLOCKS = (
    "training",
    "memory",
    "exploration",
    "rewards",
    "map_cycle",
    "performance",
    "user",
    "ppo",
    "dpo",
    "grpo",
)
_READ_BLOCKS = ("nn", "neural_network", "btr", "inputs", "environment", "state_normalization")

# Keys of files for pretraining, which may hold blocks of an agent's besides.
_PRETRAINING = ("rl_config_path", "data_dir", "lightning")

# Keys of older `nn` blocks, and their present place.
_RENAMED: Mapping[str, str] = {
    "encoder.fusion_mode": "fusion_mode",
    "encoder.init_from_pretrained": "init_from_pretrained",
    "decoder.advantage.transformer_encoder": "decoder.advantage.transformer",
    "decoder.value.transformer_encoder": "decoder.value.transformer",
}
# Keys of the older flat block, and where the newer block has them.
_FLAT: Mapping[str, str] = {
    "w_downsized": "vis.image_size.width",
    "h_downsized": "vis.image_size.height",
    "use_iqn_image_head": "vis.no_image",  # its opposite
    "float_hidden_dim": "float.mlp.hidden_dim",
    "dense_hidden_dimension": "decoder.dense_hidden_dimension",
    "iqn_embedding_dimension": "iqn.embedding_dimension",
    "iqn_n": "iqn.n",
    "iqn_k": "iqn.k",
    "iqn_kappa": "iqn.kappa",
}
# Keys of the trainer beside them; the newer block has them under `training`.
_FLAT_TRAINING = (
    "use_ddqn",
    "clip_grad_value",
    "clip_grad_norm",
    "number_memories_trained_on_between_target_network_updates",
    "soft_update_tau",
    "target_self_loss_clamp_ratio",
    "single_reset_flag",
    "reset_every_n_frames_generated",
    "additional_transition_after_reset",
    "last_layer_reset_factor",
    "overall_reset_mul_factor",
    "use_jit",
)


def load_config(path_or_mapping: str | os.PathLike[str] | Mapping[str, Any]) -> Config:
    """The network that a trackmania_rl YAML file describes, given as a path or as what it holds.

    Newer files have a block ``nn``, older ones a flat block ``neural_network``; ``fusion_mode`` and
    ``init_from_pretrained`` may stand under ``nn.encoder``, a transformer slot may be called
    ``transformer_encoder``, and ``shared_input: pre_tau`` with ``mlp`` slots is read as
    ``post_tau``, which is what that system computes. ``n_actions`` is the number of
    ``inputs.actions``; number and statistics of the float inputs and ``n_actions_per_block`` follow
    from ``environment`` and ``state_normalization``. Munchausen targets get
    ``munchausen_clamp: log_pi``, the form that system computes. Blocks of the trainer are skipped.

    Warns:
        ImportedConfigWarning: the file lacks the statistics of the way-points, which are then mean
            0 and standard deviation 1; it is written for another algorithm than ``iqn``.
        UnusedConfigWarning: conv keys of ``btr`` that the network does not have, because the file
            has no ``nn.vis.cnn`` for them.

    Raises:
        ConfigError: an unknown block or key, a value that no network can be built from, or a file
            for pretraining.
    """
    config, notes = read_keys(path_or_mapping, read_mapping)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return config


def read_keys(
    source: str | os.PathLike[str] | Mapping[str, Any], read: Callable[[Mapping[str, Any]], Read]
) -> Read:
    """``read`` of a mapping, or of what a file holds; errors then name the file."""
    if isinstance(source, Mapping):
        return read(source)
    try:
        return read(read_file(source))
    except ConfigError as error:
        raise type(error)(f"{os.fspath(source)}: {error}") from None


def read_mapping(given: Mapping[str, Any], *, weights_hold_stats: bool = False) -> Read:
    """What :func:`load_config` does, with its warnings as values.

    Where ``weights_hold_stats``, those that the file lacks are not missed.
    """
    mark = next((key for key in _PRETRAINING if key in given), None)
    if mark is not None:
        raise ConfigError(
            f"found {mark}, a key of files for pretraining; accepted: a file that describes an "
            "agent; load the one that its rl_config_path names"
        )
    if not any(block in given for block in ("nn", "neural_network", "inputs", "environment")):
        raise ConfigError(
            "found none of the blocks nn, neural_network, inputs and environment; accepted: a file "
            "that describes an agent; load the one that the network was trained with"
        )
    faults = [
        *_unknown(given, (*_READ_BLOCKS, *TRAINER_BLOCKS), "{}: unknown block"),
        *_faulty_actions(given),
        *environment_faults(given),
    ]
    nn, btr, flat = (_block(given, key, faults) for key in ("nn", "btr", "neural_network"))
    if "nn" in given and "neural_network" in given:
        faults.append("nn: given beside neural_network, its older form; keep one of them")
    faults += _unknown(flat, (*_FLAT, *_FLAT_TRAINING), "neural_network.{}: unknown key")
    faults += [*_rename_older(nn), *_faulty_float_tokens(nn)]
    if faults:
        raise ConfigError(join(faults))
    _prepare_pretrained_vision(nn)
    ignored = [] if "neural_network" in given else _drop_conv_keys(nn, btr)
    if btr.get("use_munchausen") is True:
        btr.setdefault("munchausen_clamp", "log_pi")
    keys = {
        "n_actions": len(given["inputs"]["actions"]),
        **float_inputs(given),
        "nn": nn or _nested(flat),
        "btr": btr,
    }
    try:
        config = Config.model_validate(keys)
    except ConfigError as error:
        if not flat:
            raise
        raise type(error)(_in_flat_names(str(error))) from None
    why = "because the file has no nn.vis.cnn; move it there if the network has it"
    if config.nn.vis.no_image:
        why = "because the network has no image (nn.vis.no_image); remove it"
        config = _without_image_size(config)
    return config, [
        *(UnusedConfigWarning(f"{path}: set, but not read, {why}") for path in ignored),
        *map(ImportedConfigWarning, _notes(given, weights_hold_stats)),
    ]


def _notes(given: Mapping[str, Any], weights_hold_stats: bool) -> Iterator[str]:
    """What a valid file does not say, and that it is written for another algorithm."""
    training = given.get("training")
    algorithm = training.get("algorithm", "iqn") if isinstance(training, Mapping) else "iqn"
    if algorithm != "iqn":
        yield (
            f"training.algorithm: found {show(algorithm)}; the network is an implicit quantile "
            "network with the encoder that the file describes, its weights fit that encoder alone"
        )
    if lacks_waypoints(given) and not weights_hold_stats:
        yield (
            "state_normalization: missing, so the way-points among the float inputs have mean 0 "
            "and standard deviation 1; add its waypoint_mean_40cp and waypoint_std_40cp, or load "
            "weights that hold float_inputs_mean and float_inputs_std"
        )


def _block(given: Mapping[str, Any], key: str, faults: list[str]) -> Block:
    """A block as a copy that can be changed."""
    try:
        block = thaw(freeze(given.get(key)))
    except PlainData as error:
        faults.append(f"{key}: {error}")
        return {}
    if not isinstance(block, dict | None):
        faults.append(f"{key}: found {show(block)}; accepted: a block of keys")
        return {}
    return block or {}


def _inner(block: Block, *names: str) -> Block:
    """The block under some keys, one inside the other; ``{}`` where there is none."""
    for name in names:
        block = block.get(name, {})
        if not isinstance(block, dict):
            return {}
    return block


def _unknown(keys: Iterable[Any], known: tuple[str, ...], text: str) -> Iterator[str]:
    for key in keys:
        if key not in known:
            near = nearest(key, known)
            hint = f"did you mean {near}?" if near else f"known are {', '.join(known)}"
            yield f"{text.format(key)}; {hint}"


def _faulty_actions(given: Mapping[str, Any]) -> Iterator[str]:
    inputs = given.get("inputs")
    if not isinstance(inputs, Mapping):
        state = "missing" if inputs is None else f"found {show(inputs)}"
        yield f"inputs: {state}; accepted: a block with the key actions"
    elif "actions" not in inputs:
        yield "inputs.actions: missing; add this key, their number is n_actions"
    elif not isinstance(inputs["actions"], list | tuple) or not inputs["actions"]:
        yield (
            f"inputs.actions: found {show(inputs['actions'])}; accepted: a list with an item or "
            f"more"
        )


def _rename_older(nn: Block) -> Iterator[str]:
    """Bring keys of older `nn` blocks to their present place; the faults are keys given twice."""
    for old, new in _RENAMED.items():
        (*source_path, source_key), (*target_path, target_key) = old.split("."), new.split(".")
        source, target = _inner(nn, *source_path), _inner(nn, *target_path)
        if source_key in source:
            value = source.pop(source_key)
            if target.setdefault(target_key, value) != value:
                yield f"nn.{old}: given beside nn.{new}, its present place; keep one of them"
    decoder = _inner(nn, "decoder")
    transformers = [_inner(decoder, name).get("transformer") for name in ("advantage", "value")]
    if decoder.get("shared_input") == "pre_tau" and transformers == [None, None]:
        decoder["shared_input"] = "post_tau"


def _prepare_pretrained_vision(nn: Block) -> None:
    """Set what that system does with pretrained vision models where our defaults differ.

    It takes the first token as summary also of models without a class token, and gives models
    with neither processor nor image size 224 × 224 pixels in [0, 1].
    """
    transformer, mode = _inner(nn, "vis", "transformer"), nn.get("fusion_mode")
    if _inner(nn, "vis").get("no_image") or transformer.get("use_hf_backbone") is not True:
        return
    transformer.setdefault("missing_processor", "unit_224")
    takes_all_tokens = (
        mode == "post_concat"
        and _inner(nn, "encoder").get("post_concat_layout") == "token_sequence"
        and transformer.get("fusion_tokens") == "patch_tokens"
    )
    if mode != "unified" and not takes_all_tokens:
        transformer.setdefault("summary_token", "first")


def _drop_conv_keys(nn: Block, btr: Block) -> list[str]:
    """Drop conv keys of ``btr`` that have no effect; the paths of those that are not the default.

    That system lays them over ``nn.vis.cnn`` where the file has that block, and only there. A flat
    ``neural_network`` has no such block: there ``btr`` was the place of these keys.
    """
    vis = _inner(nn, "vis")
    if isinstance(vis.get("cnn"), dict) and not vis.get("no_image"):
        return []
    defaults = Cnn().to_dict()
    # A value of a wrong type stays, to be refused.
    unread = [key for key in CNN_KEYS_OF_BTR if type(btr.get(key)) is type(defaults[key])]
    return [f"btr.{key}" for key in unread if btr.pop(key) != defaults[key]]


def _faulty_float_tokens(nn: Block) -> Iterator[str]:
    """Keys that must go with ``per_feature``, whether or not the network has float tokens."""
    encoder = _inner(nn, "encoder")
    if encoder.get("float_token_layout") != "per_feature":
        return
    for key, default, value in (
        ("post_concat_layout", "fused_vector", "token_sequence"),
        ("float_token_input", "raw", "raw"),
    ):
        given = encoder.get(key, default)
        if given != value:
            yield (
                f"nn.encoder.float_token_layout: found per_feature with nn.encoder.{key} {given}; "
                f"accepted: per_feature with {value}; set {key} to {value}, or float_token_layout "
                "to dense"
            )


def _without_image_size(config: Config) -> Config:
    """Files give a size also where there is no image; no network reads it then."""
    vis = config.nn.vis.model_copy(update={"image_size": ImageSize()})
    return config.model_copy(update={"nn": config.nn.model_copy(update={"vis": vis})})


def _nested(flat: Block) -> Block:
    """The flat block in its newer form."""
    nn: Block = {"training": {key: flat[key] for key in flat if key in _FLAT_TRAINING}}
    for key in filter(flat.__contains__, _FLAT):
        *blocks, last = _FLAT[key].split(".")
        inner = nn
        for name in blocks:
            inner = inner.setdefault(name, {})
        value = flat[key]
        is_opposite = key == "use_iqn_image_head" and isinstance(value, bool)
        inner[last] = not value if is_opposite else value
    return nn


def _in_flat_names(message: str) -> str:
    """A message about `nn` with the keys that the older file has."""
    flat = {f"nn.{path}": f"neural_network.{key}" for key, path in _FLAT.items()}
    paths = "|".join(map(re.escape, flat))
    return re.sub(rf"(?:{paths})(?![\w.])", lambda match: flat[match[0]], message)
