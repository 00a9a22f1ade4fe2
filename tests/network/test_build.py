"""Arguments of ``build``, and what it says about things that are no configuration."""

from __future__ import annotations

import pytest
import torch

import iqn_blocks
from iqn_blocks import build
from tests.registration import forget_later

SMALL = {
    "n_actions": 2,
    "float_input_dim": 3,
    "nn": {"vis": {"no_image": True}, "decoder": {"dense_hidden_dimension": 8}},
    "btr": {"use_noisy_linear": True},
}


def weights(net: iqn_blocks.IQN) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in net.parameters()])


def test_a_seed_gives_the_weights_and_leaves_the_global_generator() -> None:
    before = torch.get_rng_state()
    first = build(SMALL, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(5)
    assert torch.equal(weights(first), weights(build(SMALL, seed=3)))
    assert not torch.equal(weights(first), weights(build(SMALL, seed=4)))
    torch.manual_seed(3)
    assert torch.equal(weights(first), weights(build(SMALL)))


def test_without_a_seed_the_global_generator_is_used() -> None:
    assert not torch.equal(weights(build(SMALL)), weights(build(SMALL)))


def test_dtype_and_device() -> None:
    net = build(SMALL, dtype=torch.float64, seed=3)
    assert net.dtype == torch.float64
    assert torch.equal(weights(net), weights(build(SMALL, seed=3)))
    assert build(SMALL, device="meta").device.type == "meta"
    with torch.device("meta"):
        assert build(SMALL, seed=3).device.type == "meta"


@pytest.mark.parametrize("dtype", ["bfloat16", torch.int64])
def test_other_dtypes_are_refused(dtype) -> None:
    with pytest.raises(TypeError, match=r"dtype: got .*accepted: .*torch\.bfloat16"):
        build(SMALL, dtype=dtype)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "gpu"}, "device: found 'gpu'; accepted: .* 'cuda' for a GPU"),
        ({"device": 1.5}, "device: found 1.5; accepted: .*'cpu'"),
        ({"seed": "0"}, "seed: found '0'; accepted: a whole number of 64 bits, such as 0"),
        ({"seed": True}, "seed: found True; accepted: a whole number"),
        ({"seed": 2**64}, "seed: found 18446744073709551616; accepted: .*of 64 bits"),
    ],
)
def test_devices_and_seeds_that_are_none(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        build(SMALL, **arguments)


def test_keys_as_arguments() -> None:
    with pytest.raises(TypeError, match=r'found the arguments n_actions; .*build\(\{"n_actions"'):
        build(n_actions=3)


@pytest.mark.parametrize("arguments", [(), (None,)])
def test_nothing_is_no_configuration(arguments) -> None:
    with pytest.raises(iqn_blocks.ConfigError, match=r"the configuration: found null; .*a mapping"):
        build(*arguments)


@pytest.mark.parametrize("name", ["", "model.safetensors", "config.json"])
@pytest.mark.parametrize("read", [build, iqn_blocks.load_config])
def test_a_checkpoint_is_no_configuration(tmp_path, name, read) -> None:
    build(SMALL).save_pretrained(tmp_path)
    with pytest.raises(iqn_blocks.ConfigError) as error:
        read(tmp_path / name)
    assert f"iqn_blocks.from_pretrained({str(tmp_path)!r})" in str(error.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"frame_stack": 4}, "frame_stack: unknown key; .*set nn.vis.in_channels"),
        ({"nn": {"vis": {"stem": "impala"}}}, r"nn\.vis\.stem: .*such as nn\.vis\.impala"),
        (
            {"nn": {"vis": {"image_size": [84, 84]}}},
            r"image_size: found \[84, 84\].*write \{width: …, height: …\}",
        ),
    ],
)
def test_keys_of_other_libraries(keys, message) -> None:
    with pytest.raises(iqn_blocks.ConfigError, match=message):
        build({"n_actions": 2, "float_input_dim": 3, **keys})


class Bare(torch.nn.Module):
    """A part that does not say how wide its output is."""

    def __init__(self, *sizes) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("slot", "keys", "path", "widths"),
    [
        ("stem", {"vis": {"bare": {}}}, "nn.vis", "out_dim"),
        ("floats", {"vis": {"no_image": True}, "float": {"bare": {}}}, "nn.float", "out_dim"),
        ("core", {"vis": {"no_image": True}, "core": "bare"}, "nn.core", "state_dim"),
        (
            "mixer",
            {"vis": {"no_image": True}, "iqn": {"mixer": "bare"}},
            "nn.iqn.mixer",
            "phi_dim and out_dim",
        ),
    ],
)
def test_a_part_says_its_widths(slot, keys, path, widths, monkeypatch) -> None:
    forget_later(monkeypatch)
    iqn_blocks.register("bare", slot=slot)(Bare)
    with pytest.raises(iqn_blocks.ConfigError) as error:
        build({"n_actions": 2, "float_input_dim": 3, "nn": keys})
    missing = "".join(f", {width} = None" for width in widths.split(" and "))
    assert str(error.value) == (
        f"{path}: the {slot} registered as 'bare' must be an nn.Module with an integer {widths} "
        f">= 1, got Bare{missing}; set what is missing in its __init__"
    )
