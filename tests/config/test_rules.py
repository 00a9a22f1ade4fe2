"""Rules between keys: each is broken once, read, and mended by its own way out."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from iqn_blocks import ConfigError, check, register
from iqn_blocks._arguments import nearest_divisor
from iqn_blocks.config import parse
from tests.config.cases import faults
from tests.config.rules import HF, RULES, config, multimodal, nn
from tests.configs import merge
from tests.registration import forget_later

KNOWN_WHILE_BUILDING = {"small image", "heads of a decoder slot", "tokens of a decoder slot"}


@pytest.mark.parametrize("name", RULES)
def test_a_broken_rule_says_so_and_its_way_out_works(name: str) -> None:
    broken, says, mended = RULES[name]
    (line,) = faults(broken)
    assert line.startswith(says)
    assert "accepted: " in line
    for change in mended:
        mended = merge(broken, change)
        (check if name in KNOWN_WHILE_BUILDING else parse)(mended)


def test_all_faults_between_keys_come_at_once() -> None:
    # Each of these leaves the parts of the others in place.
    together = ["means", "two kinds of head", "patches", "unified widths"]
    raw: dict[str, Any] = {}
    for name in together:
        raw = merge(raw, RULES[name].broken)
    found = faults(raw)
    assert len(found) == len(together)
    for name in together:
        start = re.split(r"found ", RULES[name].says)[0]
        assert sum(line.startswith(start) for line in found) == 1


@pytest.mark.parametrize("side", ["width", "height"])
def test_the_smallest_image_is_the_smallest(side: str) -> None:
    check(nn(vis={"image_size": {side: 34}}))
    with pytest.raises(ConfigError, match="at least 34 x 34"):
        check(nn(vis={"image_size": {side: 33}}))
    check(nn(vis={"image_size": {side: 1}, "cnn": {"use_impala_cnn": True}}))


HEADS = {"n_heads": 3}
QUIET = {
    "small image, no image": nn(vis={"no_image": True, "image_size": {"w": 1}}),
    "small image, patches": multimodal(
        "unified", vis={"image_size": {"w": 4, "h": 4}, "transformer": {"patch_size": 2}}
    ),
    "patches of a HF model": nn(vis={"transformer": {**HF, "patch_size": 7}}),
    "patches, no image": nn(vis={"no_image": True, "transformer": {"patch_size": 7}}),
    "vision heads, unified": multimodal("unified", vis={"transformer": HEADS}),
    "vision heads, no image": multimodal(
        "post_concat", vis={"no_image": True, "transformer": HEADS}
    ),
    "trunk heads, classic": nn(encoder={"transformer": HEADS}),
    "trunk heads, other trunk": multimodal("unified", fusion_encoder="mlp", transformer=HEADS),
    "trunk heads, default linear": multimodal("vision_transformer", transformer=HEADS),
    "trunk heads, no layers": multimodal("unified", transformer={**HEADS, "n_layers": 0}),
    "widths, not unified": multimodal("post_concat", vis={"transformer": {"d_model": 64}}),
    "path of a vision model, no image": nn(
        vis={"no_image": True, "transformer": {"use_hf_backbone": True}}
    ),
    "path of a trunk model, classic": nn(encoder={"fusion_encoder": "hf_embedding"}),
    "path of a trunk model, other trunk": multimodal(
        "unified", fusion_encoder="mlp", transformer={"use_hf_backbone": True}
    ),
    "two paths, classic": nn(
        encoder={"transformer": HF, "hf_embedding": {"model_name_or_path": "other"}}
    ),
    "per_feature, unified": multimodal("unified", float_token_layout="per_feature"),
    "patch tokens, unified": multimodal(
        "unified", vis={"transformer": {"fusion_tokens": "patch_tokens"}}
    ),
    "channels, native": multimodal("unified", vis={"in_channels": 4, "transformer": {}}),
    "no floats, own topology": config(
        float_input_dim=0, nn={"topology": "mine", "vis": {"no_image": True}}
    ),
    "state width, own topology": nn(
        topology="mine", decoder={"value": {"transformer": {"d_model": 100}}}
    ),
    "native and unfused": nn(vis={"transformer": {}}),
    "own topology, native and unfused": nn(topology="mine", vis={"transformer": {}}),
}


@pytest.mark.parametrize("name", QUIET)
def test_rules_are_quiet_where_their_parts_are_not_built(name: str) -> None:
    parse(QUIET[name])


@pytest.mark.parametrize("raw", [
    nn(topology="mine", vis={"cnn": {}, "transformer": {}}),
    nn(topology="mine", decoder={"value": {"mlp": {}, "transformer": {}}}),
    nn(topology="mine", decoder={"value": {"transformer": {"n_heads": 3}}}),
    merge(nn(topology="mine"), {"float_inputs_std": [1.0]}),
    nn(topology="mine", decoder={"value": {"mlp": {"hidden_dim": 65_536, "n_hidden_layers": 9}}}),
])  # fmt: skip
def test_rules_that_own_topologies_keep_to(
    raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(torch.nn.Module):
        def __init__(self, config: Any) -> None:
            super().__init__()
            self.state_dim = 256

    forget_later(monkeypatch)
    register("mine")(Mine)
    assert len(faults(raw)) == 1


def test_suggested_widths_suit_the_heads_too() -> None:
    raw = config(
        float_input_dim=1,
        nn={
            "vis": {"no_image": True},
            "float": {"mlp": {"hidden_dim": 1000}},
            "decoder": {"value": {"transformer": {"d_model": 120, "n_heads": 4}}},
        },
    )
    (line,) = faults(raw)
    assert line.endswith("set d_model to 100")  # 125 divides 1000 too, but has no 4 heads
    assert nearest_divisor((1000,), 120) == 125
    assert nearest_divisor((7,), 5, multiple_of=2) == 7
    assert nearest_divisor((12, 18), 5) == 6
    assert nearest_divisor((8,), 3) == 2
