"""Every structure of the hf_vision and multimodal topologies against the reference equations.

HF models are tiny ones, written to a folder and really loaded from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from tests import compare, grid, reference, tiny_models

# Models stand by their names until the session's folder is known.
VISION = {name: name for name in tiny_models.VISION}
TEXT = {name: name for name in tiny_models.TEXT}
CASES = {name: name for name in tiny_models.VISION_CASES}
CONFIGS = grid.multimodal_grid(VISION, TEXT) | grid.hf_vision_grid(CASES)


def placed(config: Any, folders: Mapping[str, str]) -> Any:
    """The configuration with folders in place of names."""
    if not isinstance(config, dict):
        return config
    return {
        key: folders[value] if key == "model_name_or_path" else placed(value, folders)
        for key, value in config.items()
    }


def hf_models(config: Any) -> dict[str, nn.Module]:
    """A second copy of each model that the network has, for the reference to run."""
    vision, encoder = config.nn.vis.transformer, config.nn.encoder
    paths = {}
    if vision is not None and vision.use_hf_backbone:
        paths[reference.VISION_BACKBONE] = vision.model_name_or_path
    trunk = encoder.hf_embedding.model_name_or_path or encoder.transformer.model_name_or_path
    if trunk:
        paths[reference.TRUNK_BACKBONE] = trunk
    return {name: tiny_models.load(path) for name, path in paths.items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_agrees_with_the_reference(name: str, folders: dict[str, str]) -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = compare.build_without_warnings(placed(CONFIGS[name], folders))
    compare.randomize(net, generator)
    models = hf_models(net.config)

    compare.compare_single(net.eval(), generator, hf_models=models)

    double = compare.draw_inputs(net.double().config, torch.float64, generator)
    models = {name: model.double() for name, model in models.items()}
    compare.compare(net.eval(), double, double.shared, hf_models=models)
    compare.compare_values(net, double, generator, hf_models=models)
    compare.compare_q_values(net, double, hf_models=models)
    compare.compare(net.train(), double, double.per_sample, hf_models=models)
