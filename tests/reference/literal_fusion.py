"""trackmania_rl's multimodal and hf_vision networks, as plain modules under its own names."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from tests.reference import hf
from tests.reference.literal import QuantilePath, image_head, image_width, native

Models = Mapping[str, nn.Module]  # the Hugging Face models under their names in the body


class Network(QuantilePath):
    """A body under ``fusion`` and the quantile path behind it."""

    def __init__(self, config: Any, models: Models) -> None:
        super().__init__(config)
        multimodal = config.nn.fusion_mode != "none"
        self.fusion = Fusion(config, models) if multimodal else HFVision(config, models)
        self.add_path(self.fusion.width)

    def forward(self, img: Tensor | None, floats: Tensor, tau: Tensor) -> Tensor:
        return self.quantiles(self.fusion(img, floats), tau)


class Body(nn.Module):
    """Normalised floats, their MLP, and pixels for a pretrained model."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("float_inputs_mean", torch.randn(config.float_input_dim))
        self.register_buffer("float_inputs_std", torch.rand(config.float_input_dim) + 0.5)

    def add_float_mlp(self, width: int) -> None:
        count = config_floats(self.config)
        self.float_feature_extractor = nn.Sequential(
            nn.Linear(count, width),
            nn.ReLU(inplace=True),
            nn.Linear(width, width),
            nn.ReLU(inplace=True),
        )

    def normal(self, floats: Tensor) -> Tensor:
        return (floats - self.float_inputs_mean) / self.float_inputs_std

    def hf_tokens(self, model: nn.Module, img: Tensor) -> Tensor:
        folder = self.config.nn.vis.transformer.model_name_or_path
        values = hf.pixels(img, *hf.processor(folder, model))
        hidden = model(pixel_values=values).last_hidden_state
        return hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden

    def summary(self, model: nn.Module, tokens: Tensor) -> Tensor:
        return hf.summary_token(tokens, model, self.config.nn.vis.transformer.summary_token)[
            :, None
        ]


def config_floats(config: Any) -> int:
    return int(config.float_input_dim)


def linear(before: int, after: int) -> nn.Module:
    return nn.Identity() if before == after else nn.Linear(before, after)


def hidden_size(model: Any) -> int:
    sizes = getattr(model.config, "hidden_sizes", None)
    return int(sizes[-1] if sizes else model.config.hidden_size)


def encoder_of(block: Any, width: int) -> nn.Module:
    return native(block, width) if block.n_layers else nn.Identity()


class HFVision(Body):
    def __init__(self, config: Any, models: Models) -> None:
        super().__init__(config)
        block = config.nn.vis.transformer
        self.backbone = models["backbone"]
        hidden = config.nn.float.mlp.hidden_dim
        self.add_float_mlp(hidden)
        self.float_to_hidden = nn.Linear(hidden, block.d_model)
        self.vis_proj = linear(hidden_size(self.backbone), block.d_model)
        self.vis_refine = encoder_of(block, block.d_model)
        self.width = 2 * block.d_model

    def forward(self, img: Tensor, floats: Tensor) -> Tensor:
        tokens = self.hf_tokens(self.backbone, img)
        p = self.vis_refine(self.vis_proj(self.summary(self.backbone, tokens)))[:, 0]
        z = self.float_to_hidden(self.float_feature_extractor(self.normal(floats)))
        return torch.cat([p, z], 1)


class Fusion(Body):
    """The three fusion modes; a part that a network lacks is None or an identity."""

    def __init__(self, config: Any, models: Models) -> None:
        super().__init__(config)
        nn_config, vis = config.nn, config.nn.vis
        self.mode, self.encoder = nn_config.fusion_mode, nn_config.encoder
        self.block, self.vis_block = self.encoder.transformer, vis.transformer
        self.sequence = self.encoder.post_concat_layout == "token_sequence"
        self.width, self.d = nn_config.decoder.dense_hidden_dimension, self.block.d_model
        self.d_v = 256 if self.vis_block is None else self.vis_block.d_model
        self.branch = "none"
        if not vis.no_image:
            kind = "cnn" if self.vis_block is None or vis.cnn is not None else "native"
            self.branch = "hf" if kind == "native" and self.vis_block.use_hf_backbone else kind
        self.kind = self.encoder.fusion_encoder or (
            "hf_embedding"
            if self.block.use_hf_backbone
            else ("linear" if self.mode == "vision_transformer" else "native_transformer")
        )
        vision = {"none": lambda: 0, "cnn": self.add_cnn, "native": self.add_native}
        n_vision = vision.get(self.branch, lambda: self.add_hf(models["_hf_vis_backbone"]))()
        self.add_rest(n_vision, models)

    # What the image becomes: the parts, then how many tokens (or how wide a vector) it is.

    def add_cnn(self) -> int:
        self.img_head = image_head(self.config)
        flat = image_width(self.img_head, self.config)
        if self.mode == "vision_transformer":
            self.cnn_to_vis = linear(flat, self.d_v)
            return self.d_v
        if self.mode == "unified":
            self.cnn_to_fuse = linear(flat, self.d)
            return 1
        if self.sequence:
            self.postconcat_cnn_to_fuse = linear(flat, self.d)
            return 1
        return flat

    def add_native(self) -> int:
        vis, patch = self.config.nn.vis, self.vis_block.patch_size
        count = vis.image_size.height // patch * (vis.image_size.width // patch)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(vis.in_channels, self.d_v, patch, patch)
        if self.mode == "unified":
            return count
        self.pos_vis = nn.Parameter(torch.randn(1, count, self.d_v))
        self.enc_vis = encoder_of(self.vis_block, self.d_v)
        if self.mode == "post_concat" and self.sequence:
            self.vis_to_fuse = linear(self.d_v, self.d)
            return count if self.vis_block.fusion_tokens == "patch_tokens" else 1
        return self.d_v

    def add_hf(self, model: Any) -> int:
        self._hf_vis_backbone = model
        size, _, _ = hf.processor(self.vis_block.model_name_or_path, model)
        with torch.no_grad():
            count = self.hf_tokens(model, torch.zeros(1, 3, *size)).shape[1]
        if self.mode == "unified":
            self.hf_vis_proj = linear(hidden_size(model), self.d)
            return count
        self.hf_vis_proj = linear(hidden_size(model), self.d_v)
        self.vis_refine = encoder_of(self.vis_block, self.d_v)
        if self.mode == "post_concat" and self.sequence:
            self.vis_to_fuse = linear(self.d_v, self.d)
            return count if self.vis_block.fusion_tokens == "patch_tokens" else 1
        return self.d_v

    def add_rest(self, vision: int, models: Models) -> None:
        own = self.encoder.mlp or self.config.nn.float.mlp
        count, fused = config_floats(self.config), self.mode == "vision_transformer"
        if fused or (self.mode == "post_concat" and not self.sequence):
            self.add_float_mlp(own.hidden_dim)
            z = (self.d_v if fused else vision) + own.hidden_dim
            if fused and self.kind == "linear":
                self.bridge = nn.Linear(z, self.width)
                return
            tokens = self.block.post_concat_seq_len
            name = "visfloat_to_seq" if fused else "fused_to_seq"
            self.add_module(name, nn.Linear(z, tokens * self.d))
        else:
            tokens = vision + self.add_float_tokens(count, own.hidden_dim)
        position = {"vision_transformer": "pos_vf", "post_concat": "pos_pc", "unified": "pos_uni"}
        self.position_name = position[self.mode]
        self.register_parameter(self.position_name, nn.Parameter(torch.randn(1, tokens, self.d)))
        self.add_trunk(tokens, models)
        self.bridge = nn.Linear(self.d, self.width)

    def add_float_tokens(self, count: int, hidden: int) -> int:
        k = self.block.unified_float_tokens
        if self.mode == "post_concat":
            if self.encoder.float_token_layout == "per_feature":
                self.float_scalar_to_tok = nn.Linear(1, self.d)
                self.float_per_feat_slot_emb = nn.Parameter(torch.randn(1, count, self.d))
                return count
            if self.encoder.float_token_input == "mlp_hidden":
                self.add_float_mlp(hidden)
                count = hidden
        self.float_to_tokens = nn.Linear(count, k * self.d)
        return int(k)

    def add_trunk(self, tokens: int, models: Models) -> None:
        if self.kind == "native_transformer":
            self.enc_fusion_native = encoder_of(self.block, self.d)
        elif self.kind == "mlp":
            c = self.encoder.fusion_mlp
            widths = [tokens * self.d, *[c.hidden_dim] * (c.n_layers - 1)]
            layers: list[nn.Module] = []
            for before, after in pairwise(widths):
                layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
                layers += [nn.Dropout(c.dropout)] if c.dropout else []
            self.fusion_mlp_mod = nn.Sequential(*layers, nn.Linear(widths[-1], self.d))
        elif self.kind == "cnn":
            c = self.encoder.fusion_cnn
            layers, before = [], self.d
            for after in c.hidden_channels:
                layers.append(nn.Conv1d(before, after, c.kernel_size, padding=c.kernel_size // 2))
                layers += [nn.ReLU(inplace=True), *([nn.Dropout1d(c.dropout)] if c.dropout else [])]
                before = after
            tail = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), linear(before, self.d))
            self.fusion_cnn_mod = nn.Sequential(nn.Sequential(*layers), tail)
        elif self.kind == "hf_embedding":
            self._hf_fusion_bb = models["_hf_fusion_bb"]
            hidden = hidden_size(self._hf_fusion_bb)
            self.hf_fusion_proj_in = nn.Linear(self.d, hidden)
            self.hf_fusion_proj_out = linear(hidden, self.d)

    def forward(self, img: Tensor | None, floats: Tensor) -> Tensor:
        normal = self.normal(floats)
        mlp = getattr(self, "float_feature_extractor", None)
        hidden = normal if mlp is None else mlp(normal)
        if self.mode == "vision_transformer" or (self.mode == "post_concat" and not self.sequence):
            z = torch.cat([*self.vector(img, floats), hidden], 1)
            if not hasattr(self, "position_name"):
                return self.bridge(z)
            to_tokens = "visfloat_to_seq" if self.mode == "vision_transformer" else "fused_to_seq"
            tokens = getattr(self, to_tokens)(z).view(len(z), -1, self.d)
        else:
            tokens = torch.cat([*self.image_tokens(img), self.float_tokens(hidden)], 1)
        return self.bridge(self.trunk(tokens + getattr(self, self.position_name)))

    def vector(self, img: Tensor | None, floats: Tensor) -> list[Tensor]:
        if self.branch == "none":
            count = self.d_v if self.mode == "vision_transformer" else 0
            return [floats.new_zeros(len(floats), count)]
        if self.branch == "cnn":
            flat = self.img_head(img)
            return [self.cnn_to_vis(flat) if self.mode == "vision_transformer" else flat]
        if self.branch == "native":
            return [self.enc_vis(self.patches(img) + self.pos_vis).mean(1)]
        tokens = self.hf_tokens(self._hf_vis_backbone, img)
        return [
            self.vis_refine(self.hf_vis_proj(self.summary(self._hf_vis_backbone, tokens)))[:, 0]
        ]

    def image_tokens(self, img: Tensor | None) -> list[Tensor]:
        if self.branch == "none":
            return []
        if self.branch == "cnn":
            unified = self.mode == "unified"
            project = self.cnn_to_fuse if unified else self.postconcat_cnn_to_fuse
            return [project(self.img_head(img))[:, None]]
        if self.mode == "unified":
            if self.branch == "native":
                return [self.patches(img)]
            return [self.hf_vis_proj(self.hf_tokens(self._hf_vis_backbone, img))]
        every = self.vis_block.fusion_tokens == "patch_tokens"
        if self.branch == "native":
            tokens = self.enc_vis(self.patches(img) + self.pos_vis)
            return [self.vis_to_fuse(tokens if every else tokens.mean(1, keepdim=True))]
        tokens = self.hf_tokens(self._hf_vis_backbone, img)
        tokens = tokens if every else self.summary(self._hf_vis_backbone, tokens)
        return [self.vis_to_fuse(self.vis_refine(self.hf_vis_proj(tokens)))]

    def patches(self, img: Tensor | None) -> Tensor:
        return self.patch_embed.proj(img).flatten(2).transpose(1, 2)

    def float_tokens(self, floats: Tensor) -> Tensor:
        if hasattr(self, "float_scalar_to_tok"):
            return self.float_scalar_to_tok(floats[:, :, None]) + self.float_per_feat_slot_emb
        return self.float_to_tokens(floats).view(len(floats), -1, self.d)

    def trunk(self, tokens: Tensor) -> Tensor:
        if self.kind == "mlp":
            return self.fusion_mlp_mod(tokens.flatten(1))
        if self.kind == "cnn":
            return self.fusion_cnn_mod(tokens.transpose(1, 2))
        if self.kind == "hf_embedding":
            mask = torch.ones(tokens.shape[:2], dtype=torch.long)
            embeddings = self.hf_fusion_proj_in(tokens)
            out = self._hf_fusion_bb(inputs_embeds=embeddings, attention_mask=mask)
            return self.hf_fusion_proj_out(out.last_hidden_state.mean(1))
        return getattr(self, "enc_fusion_native", nn.Identity())(tokens).mean(1)
