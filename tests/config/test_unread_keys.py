"""Keys that nobody reads: told by building the network with and without them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from iqn_blocks import ConfigError
from iqn_blocks.assembly import assemble, route
from iqn_blocks.build import unused_keys
from iqn_blocks.config import Config, parse
from iqn_blocks.config.part import Chooser
from iqn_blocks.kinds import Choice, Flag, FreeMapping, Real, Sequence, Whole
from tests import tiny_models
from tests.config.cases import KEYS
from tests.configs import merge

# Read by trainers, or without a trace in the network: such keys are never reported.
NO_TRACE = {
    "nn.vis.transformer.missing_processor",  # read for models of timm alone
    "nn.topology", "nn.init_from_pretrained", "nn.training", "nn.iqn.kappa",
    "nn.decoder.shared_trunk_freeze", "btr.use_munchausen", "btr.munchausen_alpha",
    "btr.munchausen_entropy_tau", "btr.munchausen_lo", "btr.munchausen_clamp",
}  # fmt: skip


def base(**change: Any) -> dict[str, Any]:
    tiny = {
        "n_actions": 3,
        "float_input_dim": 5,
        "nn": {
            "vis": {"image_size": {"width": 36, "height": 34}},
            "float": {"mlp": {"hidden_dim": 8}},
            "iqn": {"embedding_dimension": 6, "n": 4, "k": 3},
            "decoder": {"dense_hidden_dimension": 16},
        },
    }
    return merge(tiny, change)


def multimodal(mode: str, vis: Any, **encoder: Any) -> dict[str, Any]:
    small = {"transformer": {"d_model": 8}}
    return base(nn={"fusion_mode": mode, "vis": vis, "encoder": merge(small, encoder)})


SMALL = {"image_size": {"width": 12, "height": 8}}
PATCHES = {**SMALL, "transformer": {"d_model": 8, "patch_size": 4, "n_heads": 2}}
TEXT = {"model_name_or_path": "bert"}
NATIVE: dict[str, dict[str, Any]] = {
    "4-layer": base(),
    "4-layer, norm": base(btr={"use_spectral_norm": True}),
    "4-layer, residual norm": base(
        nn={"vis": {"cnn": {"use_spectral_norm": True, "spectral_norm_scope": "residual"}}}
    ),
    "impala": base(
        nn={"vis": {**SMALL, "cnn": {"use_impala_cnn": True, "impala_model_size": 1}}},
        btr={"use_adaptive_maxpool": True, "adaptive_maxpool_size": 1, "use_noisy_linear": True},
    ),
    "floats alone": base(
        nn={
            "vis": {"no_image": True},
            "decoder": {
                "advantage": {"mlp": {"hidden_dim": 4}},
                "value": {"mlp": {"hidden_dim": 6, "n_hidden_layers": 2}},
            },
        },
        btr={"use_spectral_norm": True, "noisy_value_readout": True},
    ),
    "image alone": base(
        float_input_dim=0,
        nn={"decoder": {"value": {"transformer": {"d_model": 8, "n_heads": 2}}}},
    ),
    "vision_transformer, direct": multimodal("vision_transformer", PATCHES),
    "vision_transformer, zeros": multimodal(
        "vision_transformer", {"no_image": True, "transformer": {"d_model": 6}},
        fusion_encoder="mlp",
    ),
    "fused_vector": multimodal(
        "post_concat", {}, fusion_encoder="cnn", fusion_cnn={"hidden_channels": [4]}
    ),
    "fused_vector, native": multimodal(
        "post_concat", merge(PATCHES, {"transformer": {"n_layers": 0}}), transformer={"n_layers": 1}
    ),
    "sequence, per_feature": multimodal(
        "post_concat", PATCHES, post_concat_layout="token_sequence",
        float_token_layout="per_feature", transformer={"n_layers": 1},
    ),
    "sequence, hidden": multimodal(
        "post_concat", {"no_image": True}, post_concat_layout="token_sequence",
        float_token_input="mlp_hidden", mlp={"hidden_dim": 4}, fusion_encoder="linear",
    ),
    "unified, native": multimodal("unified", PATCHES, transformer={"n_layers": 0}),
    "unified, cnn": multimodal("unified", {}, fusion_encoder="mlp", fusion_mlp={"n_layers": 1}),
}  # fmt: skip
HF: dict[str, dict[str, Any]] = {
    "hf_vision": base(
        nn={"vis": {**SMALL, "transformer": {
            "use_hf_backbone": True, "model_name_or_path": "vit", "d_model": 8, "n_layers": 0}}}
    ),
    "fused_vector, hf": multimodal(
        "post_concat",
        {**SMALL, "transformer": {
            "use_hf_backbone": True, "model_name_or_path": "vit", "d_model": 8, "n_layers": 1}},
        fusion_encoder="hf_embedding", hf_embedding=TEXT,
    ),
    "sequence, hf": multimodal(
        "post_concat",
        {**SMALL, "transformer": {
            "use_hf_backbone": True, "model_name_or_path": "vit", "d_model": 8, "n_layers": 1,
            "fusion_tokens": "patch_tokens"}},
        post_concat_layout="token_sequence", transformer={"use_hf_backbone": True, **TEXT},
    ),
    "unified, hf": multimodal(
        "unified",
        {**SMALL, "transformer": {"use_hf_backbone": True, "model_name_or_path": "vit"}},
        transformer={"n_layers": 1},
    ),
}  # fmt: skip
# Read without effect: heads of attention over one token, hidden layers of an MLP of one layer.
READ = {
    "fused_vector, hf": frozenset({"nn.vis.transformer.n_heads"}),
    "unified, cnn": frozenset(
        {"nn.encoder.fusion_mlp.hidden_dim", "nn.encoder.fusion_mlp.dropout"}
    ),
}
# Options that another option of the same part makes idle, which the part alone knows.
IDLE_IN_THE_PART = {"nn.vis.conv.readout_size", "nn.vis.conv.spectral_norm"}
# Of the parts that a block chooses among: what is read of one is read of all.
PARTS = ("conv", "impala", "simba", "mlp", "transformer")
PATHS = {"vit": "vit_other", "bert": "bert_other"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root: Path = tmp_path_factory.mktemp("models")
    found = {}
    for name in ("vit", "bert"):
        found[name] = tiny_models.save(name, root / name)
        found[PATHS[name]] = tiny_models.save(name, root / PATHS[name], seed=1)
    return found


def value_at(raw: dict[str, Any], path: str) -> Any:
    block: Any = raw
    for name in path.split("."):
        block = (block or {}).get(name)
    return block


def with_value(raw: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    change: Any = value
    for name in reversed(path.split(".")):
        change = {name: change}
    return merge(raw, change)


def others(path: str, raw: dict[str, Any], folders: dict[str, str]) -> list[Any]:
    """Values for a key that are neither its default nor what it has."""
    kind, old = KEYS[path].kind, value_at(raw, path)
    if path.endswith("model_name_or_path"):
        known = {folder: name for name, folder in folders.items()}
        values: list[Any] = [folders[PATHS[known[old]]]] if old else ["nothing/there"]
    elif isinstance(kind, Flag):
        values = [True, False]
    elif isinstance(kind, Whole):
        values = [1, 2, 3, 8, 12, 40, 64]
    elif isinstance(kind, Choice):
        values = list(kind.names)
    elif isinstance(kind, Real):
        values = [0.25]
    elif isinstance(kind, FreeMapping):
        values = [{"a": 1}]
    elif isinstance(kind, Sequence):
        values = [[2] * raw["float_input_dim"]] if "inputs" in path else [[3, 5]]
    else:
        values = ["x"]
    # null in btr stands for the default of the stem.
    default = KEYS.get(path.replace("btr.", "nn.vis.cnn."), KEYS[path]).default
    return [v for v in values if v not in (old, default)]


def usable(raw: dict[str, Any], path: str, values: list[Any]) -> Iterator[tuple[Config, list[str]]]:
    """The configurations that a network can be built from, and the keys that it does not read."""
    for value in values:
        try:
            config = parse(with_value(raw, path, value))
            yield config, unused_keys(config)
        except ConfigError:
            continue


def observe(config: Config) -> list[Any]:
    """All that can be seen of a network: parameters, example inputs, outputs in training mode."""
    torch.manual_seed(0)
    net = assemble(config).train()
    seen: list[Any] = [[(name, p.requires_grad) for name, p in net.named_parameters()]]
    seen += [(name, tensor.clone()) for name, tensor in net.state_dict().items()]
    inputs = net.example_inputs(2)
    seen += [None if x is None else tuple(x.shape) for x in inputs]
    img = None if inputs.img is None else (inputs.img * 40 + 128).clamp(0, 255).to(torch.uint8)
    torch.manual_seed(1)
    for _ in range(2):
        seen += [*net(img, inputs.floats, scheme="uniform"), net.q_values(img, inputs.floats)]
        net.reset_noise()
    return seen


def same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def check_every_key(
    raw: dict[str, Any], folders: dict[str, str], read: frozenset[str] = frozenset()
) -> None:
    """A key is reported if no value of it changes the network, and not if some value does."""
    config = parse(raw)
    before, unused = observe(config), unused_keys(config)
    wrong, checked = [], 0
    for path, key in KEYS.items():
        if issubclass(key.block, Chooser) and key.inside not in ("", *PARTS):
            continue
        values = others(path, raw, folders)
        changed = [
            found
            for order in (values, values[:0:-1])
            for found in [next(usable(raw, path, order), None)]
            if found is not None and found[0] != config
        ]
        if not changed or path in NO_TRACE or path.endswith("trust_remote_code"):
            continue
        if path == "nn.vis.freeze" and config.nn.vis.no_image:
            assert changed[0][1] == unused
            continue
        checked += 1
        reported = {path in found for _, found in changed}
        effect = any(not same(before, observe(other)) for other, _ in changed)
        idle = path in IDLE_IN_THE_PART and not config.nn.vis.no_image
        if reported != {not effect and path not in read and not idle}:
            wrong.append((path, f"{effect=}", f"{reported=}"))
    assert not wrong, "\n".join(map(str, wrong))
    assert checked > 20


# One network of each kind of encoder; the others take too long for every run.
QUICK = {"4-layer", "floats alone", "fused_vector", "sequence, per_feature", "sequence, hidden"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NATIVE],
)
def test_reported_keys_are_those_without_effect(name: str) -> None:
    check_every_key(NATIVE[name], {}, READ.get(name, frozenset()))


@pytest.mark.slow
@pytest.mark.parametrize("name", HF)
def test_reported_keys_are_those_without_effect_with_models(
    name: str, folders: dict[str, str]
) -> None:
    def with_folders(block: Any) -> Any:
        if not isinstance(block, dict):
            return folders.get(block, block) if isinstance(block, str) else block
        return {key: with_folders(value) for key, value in block.items()}

    check_every_key(with_folders(HF[name]), folders, READ.get(name, frozenset()))


def test_a_topology_by_its_name_reads_the_keys_that_would_lead_to_it(
    folders: dict[str, str],
) -> None:
    raw = merge(HF["hf_vision"], {"nn": {"topology": "hf_vision"}})
    raw["nn"]["vis"]["transformer"]["model_name_or_path"] = folders["vit"]
    assert unused_keys(raw) == []
    for raw in NATIVE.values():
        config = parse(raw)
        named = config.replace(nn={"topology": route(config)})
        assert unused_keys(named) == unused_keys(config)
