"""Networks that are too large are refused before anything is allocated."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iqn_blocks import ConfigError, check
from iqn_blocks.build import MAX_PARAMETERS
from iqn_blocks.kinds import MAX_LAYERS
from tests.configs import merge, tiny

HUGE: dict[str, dict[str, Any]] = {
    "image": {"nn": {"vis": {"image_size": {"w": 65_536, "h": 65_536}}}},
    "pool": {"btr": {"use_adaptive_maxpool": True, "adaptive_maxpool_size": 65_536}},
    "stem": {"btr": {"use_impala_cnn": True, "impala_model_size": 65_536}},
    "channels": {"nn": {"vis": {"in_channels": 65_536}},
                 "btr": {"use_impala_cnn": True, "impala_model_size": 256}},
    "heads": {"nn": {"decoder": {"value": {"mlp": {"hidden": 65_536, "layers": 2}}}}},
    "slot": {"nn": {"fusion_mode": "unified", "decoder": {
        "dense_hidden_dimension": 32_768, "value": {"transformer": {"d_model": 32_768}}}}},
    "actions": {"n_actions": 65_536, "n_actions_per_block": 65_536},
    "floats": {"float_input_dim": 65_536, "nn": {"float": {"mlp": {"hidden_dim": 65_536}}}},
    "patches": {"nn": {"fusion_mode": "unified", "vis": {
        "transformer": {"patch_size": 1}, "image_size": {"w": 65_536, "h": 65_536}}}},
    "tokens": {"nn": {"fusion_mode": "post_concat", "encoder": {"transformer": {
        "post_concat_seq_len": 65_536}}}},
    "trunk": {"nn": {"fusion_mode": "unified", "encoder": {"fusion_encoder": "mlp", "fusion_mlp": {
        "hidden_dim": 65_536, "n_layers": 3}}}},
    "kernels": {"nn": {"fusion_mode": "unified", "encoder": {"fusion_encoder": "cnn",
        "fusion_cnn": {"hidden_channels": [256, 65_536, 65_536]}}}},
    "layers": {"nn": {"fusion_mode": "unified", "encoder": {"transformer": {
        "n_layers": 128, "d_model": 2048}}}},
    "cosines": {"nn": {"iqn": {"embedding_dimension": 65_536},
                       "vis": {"image_size": {"w": 512, "h": 512}}}},
    "model": {"nn": {"vis": {"transformer": {"use_hf_backbone": True, "model_name_or_path": "a",
                                             "d_model": 65_536}}}},
}  # fmt: skip


@pytest.fixture
def little_memory() -> Iterator[None]:
    """No more than 512 MiB can be allocated: a sixteenth of the smallest refused network."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + 2**29
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("name", HUGE)
def test_huge_networks_are_refused_before_they_are_built(
    name: str, folders: dict[str, str]
) -> None:
    raw = merge({"n_actions": 3, "float_input_dim": 4}, HUGE[name])
    if name == "model":
        raw["nn"]["vis"]["transformer"]["model_name_or_path"] = folders["vit"]
    with pytest.raises(ConfigError) as error:
        check(raw)
    message = str(error.value)
    assert message.startswith("the network: found ")
    assert f"parameters; accepted: at most {MAX_PARAMETERS}" in message
    assert message.endswith(": reduce the sizes there")
    found, _, *parts = map(int, re.findall(r"\d+", message.replace("2^63", str(2**63))))
    assert found > 2**31
    assert found == (sum(parts) if parts else 2**63)


@pytest.mark.usefixtures("little_memory")
def test_the_limit_itself() -> None:
    def sized(width: int) -> dict[str, Any]:
        mlp = {"hidden_dim": width}
        keys = {"vis": {"no_image": True}, "float": {"mlp": mlp}, "iqn": {"embedding_dimension": 1}}
        return {"n_actions": 1, "float_input_dim": 1, "nn": keys}

    def count(n: int) -> int:
        return (n + n) + (n * n + n) + (n + n) + 2 * (n * 512 + 512) + 2 * (512 + 1)

    widest = max(n for n in range(44_000, 46_500) if count(n) <= 2**31)
    assert check(sized(widest)).nn.float.mlp.hidden_dim == widest
    with pytest.raises(ConfigError, match=f"the network: found {count(widest + 1)} parameters"):
        check(sized(widest + 1))


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"encoder": {"transformer": {"n_layers": 129}}}, "nn.encoder.transformer.n_layers"),
        ({"encoder": {"fusion_mlp": {"n_layers": 65_536}}}, "nn.encoder.fusion_mlp.n_layers"),
        ({"decoder": {"value": {"mlp": {"layers": 129}}}},
         "nn.decoder.value.mlp.n_hidden_layers"),
    ],
)  # fmt: skip
def test_counts_of_layers_have_a_bound_of_their_own(keys: dict[str, Any], path: str) -> None:
    """Each layer takes time and memory, also where none is allocated for its numbers."""
    with pytest.raises(ConfigError, match=rf"{path}: found .*accepted: .* to 128"):
        check(tiny(nn={"fusion_mode": "unified", **keys}))


def layers_everywhere(n: int) -> dict[str, dict[str, Any]]:
    head = {"transformer": {"d_model": 4, "n_heads": 1, "n_layers": n}}
    simba = {"simba": {"hidden_dim": 4, "n_blocks": n}}
    simba_2 = {"simba_v2": {"hidden_dim": 4, "n_blocks": n}}
    native = {"transformer": {"d_model": 8, "n_heads": 1, "n_layers": n}}
    heads = {"value": head, "advantage": head}
    return {
        "transformers": {
            "fusion_mode": "post_concat", "vis": native, "encoder": native, "decoder": heads
        },
        "perceptrons": {
            "fusion_mode": "unified",
            "encoder": {"fusion_encoder": "mlp", "fusion_mlp": {"hidden_dim": 4, "n_layers": n}},
            "decoder": {slot: {"mlp": {"hidden_dim": 4, "n_hidden_layers": n}} for slot in heads},
        },
        "simba": {
            "vis": {"no_image": True}, "float": simba, "decoder": dict.fromkeys(heads, simba)
        },
        "simba_v2": {
            "vis": {"no_image": True}, "float": simba_2,
            "decoder": dict.fromkeys(heads, simba_2),
        },
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore::iqn_blocks.UnusedConfigWarning")
@pytest.mark.parametrize("name", layers_everywhere(1))
def test_as_many_layers_as_are_accepted_take_no_second(name: str) -> None:
    base = {"n_actions": 3, "float_input_dim": 4}
    start = time.process_time()
    check({**base, "nn": layers_everywhere(MAX_LAYERS)[name]})
    assert time.process_time() - start < 1
    with pytest.raises(ConfigError, match=rf"found {MAX_LAYERS + 1} \(int\); accepted: a whole"):
        check({**base, "nn": layers_everywhere(MAX_LAYERS + 1)[name]})
