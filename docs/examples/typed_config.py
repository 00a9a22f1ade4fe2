"""A configuration written as Python objects: editors complete its keys and check its types.

python docs/examples/typed_config.py --help
"""

from __future__ import annotations

import argparse

import iqn_blocks
from iqn_blocks.config import (
    Btr,
    Config,
    Decoder,
    FloatInputs,
    FloatMlp,
    HeadSlot,
    ImageSize,
    Nn,
    Quantiles,
    Vision,
)

CONFIG = Config(
    n_actions=5,
    float_input_dim=3,
    float_inputs_std=(1.0, 10.0, 0.1),
    nn=Nn(
        vis=Vision(image_size=ImageSize(width=64, height=64), impala={"width": 1}),
        float=FloatInputs(mlp=FloatMlp(hidden_dim=32)),
        iqn=Quantiles(embedding_dimension=64, mixer="hadamard"),
        decoder=Decoder(
            dense_hidden_dimension=64,
            advantage=HeadSlot(mlp={"n_hidden_layers": 2}),
            value=HeadSlot(transformer={"d_model": 32}),
        ),
    ),
    btr=Btr(use_noisy_linear=True),
)

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help
    net = iqn_blocks.build(CONFIG)
    img, floats = net.example_inputs(batch=2)
    q, tau = net(img, floats, num_quantiles=4)
    print(iqn_blocks.describe(net))
    print(q.shape, tau.shape)
