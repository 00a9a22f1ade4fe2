"""Keys that were set but that the routed network does not read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from iqn_blocks.config.block import Block
from iqn_blocks.config.inputs import Cnn
from iqn_blocks.config.routing import TOPOLOGIES, Parts, parts

if TYPE_CHECKING:
    from iqn_blocks.config.schema import Config


def unused_keys(config: Config, topology: str) -> list[str]:
    """Dotted paths of keys with another value than their default that ``topology`` never reads.

    Keys for trainers are never among them, nor is ``nn.vis.freeze``. A user's own topology may read
    everything but the keys of the quantile path.
    """
    reads = _head_reads(config, topology)
    if topology in TOPOLOGIES:
        p = parts(config)
        reads |= _input_reads(config, p) | _vision_reads(config, p) | _encoder_reads(config, p)
    return [_as_set(config, path) for path in _set_keys(config) if not _is_read(path, reads)]


def _as_set(config: Config, path: str) -> str:
    """The path where a key was set: those of the stem may have come from ``btr``."""
    cnn, (block, _, key) = config.nn.vis.cnn, path.rpartition(".")
    filled = block == "nn.vis.cnn" and cnn is not None and key not in cnn.model_fields_set
    return f"btr.{key}" if filled else path


def _is_read(path: str, reads: dict[str, bool]) -> bool:
    """Keys that the tables do not name are read by every network; a block if any of its keys is."""
    inside = [read for key, read in reads.items() if key.startswith(f"{path}.")]
    return reads.get(path, any(inside) or not inside)


def _set_keys(block: Block, above: str = "") -> Iterator[str]:
    """Paths of keys that differ from their default, or of a block that is there beside it."""
    for name, field in type(block).model_fields.items():
        path, value = f"{above}{name}", getattr(block, name)
        default = field.get_default(call_default_factory=True)
        if not isinstance(value, Block):
            if field.is_required() or value != default:
                yield path
            continue
        inside = list(_set_keys(value, f"{path}."))
        # `cnn` is there by default, whatever its field says.
        optional = default is None and not isinstance(value, Cnn)
        yield from inside or ([path] if optional else [])


def _head_reads(config: Config, topology: str) -> dict[str, bool]:
    decoder, btr = config.nn.decoder, config.btr
    defaulted = any(
        slot.mlp is None or slot.mlp.hidden_dim is None
        for slot in (decoder.advantage, decoder.value)
    )
    return {
        "nn.decoder.dense_hidden_dimension": defaulted or topology not in ("classic", "hf_vision"),
        "btr.noisy_sigma0": btr.use_noisy_linear or btr.noisy_value_readout,
    }


def _input_reads(config: Config, p: Parts) -> dict[str, bool]:
    floats, image = config.float_input_dim > 0, p.branch != "none"
    override = p.fusion is not None and config.nn.encoder.mlp is not None
    return {
        "float_inputs_mean": floats,
        "float_inputs_std": floats,
        "nn.topology_options": False,
        "nn.float.freeze": p.float_mlp,
        "nn.float.mlp.hidden_dim": p.float_mlp and not override,
        "nn.vis.in_channels": image,
        "nn.vis.uint8_scaling": image,
        "nn.vis.image_size.width": image,
        "nn.vis.image_size.height": image,
    }


def _vision_reads(config: Config, p: Parts) -> dict[str, bool]:
    cnn = config.nn.vis.cnn if p.branch == "cnn" and config.nn.vis.cnn else None
    block = cnn or Cnn()
    native, hf = p.branch == "native_transformer", p.branch == "hf_transformer"
    # Without an image, the zeros in its place are as wide as the vision vector.
    zeros = p.branch == "none" and config.nn.fusion_mode == "vision_transformer"
    unified = p.fusion == "unified"
    vision = config.nn.vis.transformer
    every = p.fusion == "sequence" and vision is not None and vision.fusion_tokens != "summary"
    # The 4-layer CNN has no residual block to normalise.
    normalisable = block.use_impala_cnn or block.spectral_norm_scope == "all"
    reads = {
        "nn.vis.cnn.use_impala_cnn": cnn is not None,
        "nn.vis.cnn.impala_model_size": block.use_impala_cnn,
        "nn.vis.cnn.use_adaptive_maxpool": cnn is not None,
        "nn.vis.cnn.adaptive_maxpool_size": block.use_adaptive_maxpool,
        "nn.vis.cnn.use_spectral_norm": cnn is not None and normalisable,
        "nn.vis.cnn.spectral_norm_scope": block.use_spectral_norm,
        "nn.vis.transformer.use_hf_backbone": hf,
        "nn.vis.transformer.model_name_or_path": hf,
        "nn.vis.transformer.trust_remote_code": hf,
        "nn.vis.transformer.hidden_dropout_prob": hf,
        "nn.vis.transformer.d_model": native or (hf and not unified) or zeros,
        "nn.vis.transformer.n_layers": (native or hf) and not unified,
        "nn.vis.transformer.n_heads": p.vision_encoder,
        "nn.vis.transformer.ff_mult": p.vision_encoder,
        "nn.vis.transformer.dropout": p.vision_encoder,
        "nn.vis.transformer.patch_size": native,
        "nn.vis.transformer.post_concat_seq_len": False,
        "nn.vis.transformer.unified_float_tokens": False,
        "nn.vis.transformer.fusion_tokens": (native or hf) and p.fusion == "sequence",
        "nn.vis.transformer.missing_processor": hf,
        "nn.vis.transformer.summary_token": hf and not unified and not every,
    }
    # What is left of them there has found nothing to fill.
    for key in type(block).model_fields:
        reads[f"btr.{key}"] = getattr(config.btr, key, None) in (None, getattr(Cnn(), key))
    return reads


def _encoder_reads(config: Config, p: Parts) -> dict[str, bool]:
    encoder, multimodal = config.nn.encoder, p.fusion is not None
    sequence, tokens = p.fusion == "sequence", p.fusion not in (None, "direct")
    native = p.trunk == "native_transformer"
    layers = native and encoder.transformer.n_layers > 0
    mlp, cnn, hf = p.trunk == "mlp", p.trunk == "cnn", p.trunk == "hf_embedding"
    own_path = encoder.hf_embedding.model_name_or_path != ""
    dense = sequence and encoder.float_token_layout == "dense"
    chooses = multimodal and encoder.fusion_encoder is None
    return {
        "nn.encoder.freeze": multimodal,
        "nn.encoder.mlp.hidden_dim": multimodal and p.float_mlp,
        "nn.encoder.fusion_encoder": multimodal,
        "nn.encoder.post_concat_layout": config.nn.fusion_mode == "post_concat",
        "nn.encoder.float_token_input": sequence,
        "nn.encoder.float_token_layout": sequence,
        "nn.encoder.transformer.use_hf_backbone": chooses or hf,
        "nn.encoder.transformer.model_name_or_path": hf,
        "nn.encoder.transformer.trust_remote_code": hf and not own_path,
        "nn.encoder.transformer.hidden_dropout_prob": hf and not own_path,
        "nn.encoder.transformer.d_model": tokens,
        "nn.encoder.transformer.n_layers": native,
        "nn.encoder.transformer.n_heads": layers,
        "nn.encoder.transformer.ff_mult": layers,
        "nn.encoder.transformer.dropout": layers,
        "nn.encoder.transformer.patch_size": False,
        "nn.encoder.transformer.post_concat_seq_len": p.fusion == "vector",
        "nn.encoder.transformer.unified_float_tokens": p.fusion == "unified" or dense,
        "nn.encoder.transformer.fusion_tokens": False,
        "nn.encoder.transformer.summary_token": False,
        "nn.encoder.transformer.missing_processor": False,
        "nn.encoder.fusion_mlp.hidden_dim": mlp and encoder.fusion_mlp.n_layers > 1,
        "nn.encoder.fusion_mlp.n_layers": mlp,
        "nn.encoder.fusion_mlp.dropout": mlp and encoder.fusion_mlp.n_layers > 1,
        "nn.encoder.fusion_cnn.hidden_channels": cnn,
        "nn.encoder.fusion_cnn.kernel_size": cnn,
        "nn.encoder.fusion_cnn.dropout": cnn,
        "nn.encoder.hf_embedding.model_name_or_path": hf,
        "nn.encoder.hf_embedding.trust_remote_code": hf and own_path,
        "nn.encoder.hf_embedding.hidden_dropout_prob": hf and own_path,
    }
