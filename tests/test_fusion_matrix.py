"""The whole matrix of the multimodal topology: each combination is refused, or a network."""

from __future__ import annotations

import itertools
from collections import defaultdict

import iqn_blocks
from iqn_blocks.build import unused_keys
from tests.configs import merge

MODES = ("vision_transformer", "post_concat", "unified")
VISION = {
    "none": {"no_image": True},
    "cnn": {"image_size": {"width": 34, "height": 35}, "cnn": {}},
    "impala": {
        "image_size": {"width": 9, "height": 9},
        "cnn": {"use_impala_cnn": True, "impala_model_size": 1},
    },
    "native": {
        "image_size": {"width": 4, "height": 8},
        "transformer": {"patch_size": 2, "d_model": 8},
    },
    "hf": {"transformer": {"use_hf_backbone": True}},
}
TRUNKS = ("linear", "native_transformer", "mlp", "cnn", "hf_embedding")
OPTIONS = {  # keys that have one other value than their default
    "vis.transformer.fusion_tokens": "patch_tokens",
    "encoder.post_concat_layout": "token_sequence",
    "encoder.float_token_input": "mlp_hidden",
    "encoder.float_token_layout": "per_feature",
}
SUBSETS = [set(s) for n in range(len(OPTIONS) + 1) for s in itertools.combinations(OPTIONS, n)]


def config_of(mode, vision, trunk, options, folders):
    """No key is set that the combination without options does not read."""
    nn = {
        "fusion_mode": mode,
        "vis": VISION[vision],
        "encoder": {"fusion_encoder": trunk},
        "iqn": {"embedding_dimension": 4},
        "decoder": {"dense_hidden_dimension": 8},
    }
    if (mode, trunk) != ("vision_transformer", "linear"):
        nn["encoder"]["transformer"] = {"d_model": 8}
    if trunk == "hf_embedding":
        nn["encoder"]["hf_embedding"] = {"model_name_or_path": folders["bert"]}
    if vision == "hf":
        own = {"model_name_or_path": folders["vit"]} | ({} if mode == "unified" else {"d_model": 8})
        nn = merge(nn, {"vis": {"transformer": own}})
    for path in options:
        change = OPTIONS[path]
        for key in reversed(path.split(".")):
            change = {key: change}
        nn = merge(nn, change)
    return {"n_actions": 2, "float_input_dim": 3, "nn": nn}


def allowed(mode, vision, options):
    """What the rules between keys let through, of options that are read."""
    sequence = mode == "post_concat" and "encoder.post_concat_layout" in options
    for option, possible in {
        "vis.transformer.fusion_tokens": sequence and vision in ("native", "hf"),
        "encoder.post_concat_layout": mode == "post_concat",
        "encoder.float_token_input": sequence and "encoder.float_token_layout" not in options,
        "encoder.float_token_layout": sequence and "encoder.float_token_input" not in options,
    }.items():
        if option in options and not possible:
            return False
    return True


def signature(net):
    """What tells one structure from another: every tensor's name and shape, every module."""
    state = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    return str(state), repr(net)


def test_each_combination_is_refused_or_a_network_of_its_own(folders):
    built = defaultdict(list)
    for mode, vision, trunk, options in itertools.product(MODES, VISION, TRUNKS, SUBSETS):
        config = config_of(mode, vision, trunk, options, folders)
        name = "-".join([mode, vision, trunk, *sorted(options)])
        try:
            net = iqn_blocks.build(config, strict=True)
        except iqn_blocks.ConfigError as error:
            assert not allowed(mode, vision, options), f"{name}: {error}"
            # What is wrong is an option, and the message names it, or the block that it is in.
            both = "found both cnn and transformer" in str(error)
            assert both or any(f"nn.{path}" in str(error) for path in options), f"{name}: {error}"
        else:
            assert allowed(mode, vision, options), name
            built[signature(net)].append(name)
    twins = [names for names in built.values() if len(names) > 1]
    assert sorted(twins) == sorted(same_by_the_equations())
    assert sum(len(names) for names in built.values()) == sum(
        allowed(mode, vision, options)
        for mode, vision, _, options in itertools.product(MODES, VISION, TRUNKS, SUBSETS)
    )


def same_by_the_equations():
    """A transformer's vector is the same in two modes; so is a sequence without patches."""
    for vision, trunk in itertools.product(("native", "hf"), TRUNKS[1:]):
        yield [f"vision_transformer-{vision}-{trunk}", f"post_concat-{vision}-{trunk}"]
    for vision, trunk in itertools.product(("none", "cnn", "impala"), TRUNKS):
        sequence = f"post_concat-{vision}-{trunk}-encoder.post_concat_layout"
        yield [sequence, f"unified-{vision}-{trunk}"]


def test_every_option_that_is_not_read_is_an_error_or_reported(folders):
    for mode, vision, options in itertools.product(MODES, VISION, SUBSETS):
        try:
            unused = unused_keys(config_of(mode, vision, "mlp", options, folders))
        except iqn_blocks.ConfigError:
            assert not allowed(mode, vision, options)
            continue
        assert set(unused) <= {f"nn.{path}" for path in options}
        assert (unused == []) == allowed(mode, vision, options)
