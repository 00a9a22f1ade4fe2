"""The JSON Schema with which editors complete and check configuration files."""

from __future__ import annotations

import inspect
import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml

import iqn_blocks
from docs.examples.typed_config import CONFIG
from iqn_blocks.config import FloatInputs, HeadSlot, Vision
from iqn_blocks.config.part import Chooser
from iqn_blocks.registry import Slot, find_part, list_parts, options_of

ROOT = Path(__file__).parents[1]
SHIPPED = json.loads(files(iqn_blocks).joinpath("config.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SHIPPED)
SMALL = {"n_actions": 2, "float_input_dim": 3}


@pytest.mark.parametrize("path", sorted((ROOT / "docs/configs").glob("*.yaml")), ids=str)
def test_shipped_configs_are_valid(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text("utf-8")))


@pytest.mark.parametrize(
    "nn",
    [
        {},
        {"vis": "impala"},
        {"vis": {"impala": {"width": 2}, "image_size": {"w": 40, "h": 40}}},
        {"vis": {"impala": None}},
        {"decoder": {"advantage": {"mlp": {"hidden": 4}}, "value": "transformer"}},
        {"fusion_mode": "unified", "encoder": {"fusion_encoder": {"mlp": {"n_layers": 1}}}},
        {"fusion_mode": "unified", "encoder": {"fusion_encoder": "cnn"}},
        {"training": {"anything": [1]}, "topology_options": {"a": 1}},
    ],
)
def test_valid_for_both(nn: dict[str, object]) -> None:
    iqn_blocks.Config.model_validate({**SMALL, "nn": nn})
    VALIDATOR.validate({**SMALL, "nn": nn})


@pytest.mark.parametrize(
    "nn",
    [
        {"viss": {}},
        {"vis": "impalla"},
        {"vis": {"impala": {"width": 0}}},
        {"vis": {"impala": {"widht": 1}}},
        {"decoder": {"advantage": {"mlp": {"hidden_dim": "8"}}}},
        {"encoder": {"fusion_encoder": {"mlp": {}, "cnn": {}}}},
        {"iqn": {"kappa": -1.0}},
        {"iqn": {"mixer": "hadamart"}},
    ],
)
def test_wrong_for_both(nn: dict[str, object]) -> None:
    with pytest.raises(iqn_blocks.ConfigError):
        iqn_blocks.Config.model_validate({**SMALL, "nn": nn})
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({**SMALL, "nn": nn})


def test_a_preset_is_a_valid_beginning() -> None:
    VALIDATOR.validate({"preset": "btr", "n_actions": 3, "nn": {"iqn": {"k": 4}}})
    VALIDATOR.validate({"preset": "iqn", **SMALL})
    for wrong in ({"preset": "btrr", **SMALL}, {"preset": "btr"}, {"n_actions": 3}):
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(wrong)


@pytest.mark.parametrize("name", iqn_blocks.list_presets())
def test_presets_are_valid(name: str) -> None:
    keys = yaml.safe_load(files(iqn_blocks).joinpath(f"presets/{name}.yaml").read_text("utf-8"))
    VALIDATOR.validate({**SMALL, **keys})


@pytest.mark.parametrize(("block", "slot"), [("Vision", "stem"), ("HeadSlot", "head")])
def test_every_part_has_its_options(block: str, slot: Slot) -> None:
    _, keys = SHIPPED["$defs"][block]["anyOf"]
    for name in list_parts(slot):
        options = options_of(find_part(slot, name), slot)
        settable = {key for key, option in options.items() if option.kind is not None}
        if name != "cnn":
            assert settable <= keys["properties"][name]["properties"].keys()


@pytest.mark.parametrize("block", [Vision, HeadSlot, FloatInputs])
def test_type_checkers_know_every_part_of_the_library(block: type[Chooser]) -> None:
    own = [n for n in list_parts(block.slot) if is_ours(find_part(block.slot, n))]
    lines = inspect.getsource(block).splitlines()
    missing = [
        n for n in own if n not in block.model_fields and f"        {n}: Any = None" not in lines
    ]
    assert missing == [], f"add them under `if TYPE_CHECKING:` of {block.__name__}"


def is_ours(part: object) -> bool:
    return part.__module__.startswith("iqn_blocks.")


def test_the_typed_example_is_the_network_that_its_plain_data_describe() -> None:
    plain = CONFIG.to_dict()
    assert plain["nn"]["vis"]["impala"]["width"] == 1
    assert iqn_blocks.Config.model_validate(plain) == CONFIG
    VALIDATOR.validate(json.loads(json.dumps(plain)))
