"""The network of a scenario in plain PyTorch, as in the papers.

The state repeated for every τ, two separate heads, noise kept as an ``out × in`` matrix and applied
at each forward, PyTorch's spectral norm; activations in place and channels-last convolutions, which
are the fast ones on every machine that was tried. The modules are those of
:mod:`tests.reference.literal`, which the tests compare with other systems' checkpoints.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from iqn_blocks import IQN
from iqn_blocks.export import quiet
from iqn_blocks.interop import trackmania_rl
from tests.reference.literal import Classic
from tests.reference.literal_fusion import Network


class LiteralIQN(nn.Module):
    """The literal network with the weights and the noise that ``net`` has now."""

    def __init__(self, net: IQN) -> None:
        super().__init__()
        config = net.config
        assert config is not None
        self.acting_quantiles = config.nn.iqn.k
        fused = config.nn.fusion_mode != "none"
        self.network = Network(config, {}) if fused else Classic(config)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.load(net)

    def forward(self, img: Tensor | None, floats: Tensor, tau: Tensor) -> Tensor:
        """``(B, C, H, W), (B, F), (K·B, 1) -> (K·B, A)``."""
        if img is not None:
            img = img.contiguous(memory_format=torch.channels_last)
        q: Tensor = self.network(img, floats, tau)
        return q

    def q_values(self, img: Tensor | None, floats: Tensor) -> Tensor:
        """Mean over ``K`` midpoints: ``(B, C, H, W), (B, F) -> (B, A)``."""
        batch, k = len(floats), self.acting_quantiles
        tau = (torch.arange(k, device=floats.device, dtype=floats.dtype) + 0.5) / k
        q = self(img, floats, tau.repeat_interleave(batch).unsqueeze(1))
        mean: Tensor = q.view(k, batch, -1).mean(0)
        return mean

    @torch.no_grad()
    def load(self, net: IQN) -> None:
        """Take over weights, statistics, spectral vectors and noise of the library's network."""
        self.network.load_state_dict(trackmania_rl.to_state_dict(net))


def export_literal(literal: LiteralIQN, img: Tensor | None, floats: Tensor) -> Callable[[], Tensor]:
    """``q_values`` of the literal network in onnxruntime, exported for the size of these inputs."""
    import onnxruntime as ort

    class Acting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.literal = literal

        def forward(self, img: Tensor | None, floats: Tensor) -> Tensor:
            return self.literal.q_values(img, floats)

    with quiet():
        program = torch.onnx.export(Acting().eval(), (img, floats), dynamo=True, verbose=False)
    assert program is not None
    model = program.model_proto.SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = [x for x in (img, floats) if x is not None]
    feeds = {i.name: x.numpy() for i, x in zip(session.get_inputs(), given, strict=True)}
    return lambda: torch.from_numpy(session.run(None, feeds)[0])


@torch.no_grad()
def gradients_of(net: IQN) -> dict[str, Tensor]:
    """The gradients of the library's network under the names of the literal one's parameters."""
    twin = copy.deepcopy(net)
    for (name, parameter), copied in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert parameter.grad is not None, name
        copied.copy_(parameter.grad)
    return trackmania_rl.to_state_dict(twin, float_stats=False)
