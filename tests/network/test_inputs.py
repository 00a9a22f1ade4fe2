"""Messages about inputs that do not fit, and the look at values that a loop does once."""

from __future__ import annotations

import pytest
import torch

import iqn_blocks
from iqn_blocks import risk
from iqn_blocks.losses import take

IMG, FLOATS = torch.zeros(2, 3, 44, 40), torch.zeros(2, 4)


@pytest.fixture(scope="module")
def net() -> iqn_blocks.IQN:
    return iqn_blocks.build(
        {
            "n_actions": 5,
            "float_input_dim": 4,
            "nn": {
                "vis": {"in_channels": 3, "image_size": {"width": 40, "height": 44}},
                "decoder": {"dense_hidden_dimension": 8},
            },
        }
    )


@pytest.mark.parametrize(
    ("img", "floats", "message"),
    [
        (IMG.permute(0, 2, 3, 1), FLOATS, r"\(2, 44, 40, 3\); .*img\.permute\(0, 3, 1, 2\)"),
        (IMG[0], FLOATS, r"\(3, 44, 40\); .*img\[None\]"),
        (IMG[0].permute(1, 2, 0), FLOATS, r"\(44, 40, 3\); .*img\.permute\(2, 0, 1\)\[None\]"),
        (IMG[:, :1], FLOATS, r"\(B, 3, 44, 40\), uint8, or floating in about \[-1, 1\], got"),
        (IMG.numpy(), FLOATS, r"img: .* got ndarray; write torch\.from_numpy\(img\)"),
        (IMG.int(), FLOATS, r"img: .*torch\.int32; write img\.to\(torch\.uint8\)"),
        (IMG, FLOATS[0], r"floats: .*\(4,\); .*floats\[None\]"),
        (IMG, FLOATS.numpy(), r"floats: .* got ndarray; write torch\.from_numpy\(floats\)"),
        (IMG, FLOATS.int(), r"floats: .*in raw units, got torch\.int32; write floats\.float\(\)"),
        (FLOATS, None, r"img: expected shape .* got shape \(2, 4\)$"),
        (IMG, None, r"floats: .*got NoneType; floats are the second argument"),
    ],
)
def test_what_to_write_instead(net, img, floats, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        net(img, floats)


def test_a_grey_frame_lacks_its_channel() -> None:
    net = iqn_blocks.build({"n_actions": 2, "float_input_dim": 0})
    with pytest.raises(ValueError, match=r"\(2, 256, 256\); .*img\[:, None\]"):
        net(torch.zeros(2, 256, 256))
    with pytest.raises(ValueError, match=r"\(256, 256\); .*img\[None, None\]"):
        net(torch.zeros(256, 256))
    assert net.q_values(torch.zeros(256, 256)[None, None]).shape == (1, 2)


def test_every_suggested_expression_is_accepted(net) -> None:
    img, floats = IMG[0].permute(1, 2, 0), FLOATS[0]
    assert net.q_values(img.permute(2, 0, 1)[None], floats[None]).shape == (1, 5)
    assert net.q_values(IMG.permute(0, 2, 3, 1).permute(0, 3, 1, 2), FLOATS).shape == (2, 5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"img": IMG + 255}, r"img: found values from 255 to 255; .*img\.to\(torch\.uint8\)"),
        ({"img": IMG * torch.nan}, "img: found NaN"),
        ({"floats": FLOATS + torch.inf}, "floats: found NaN or infinity"),
        ({"tau": torch.tensor([[0.5], [1.5]])}, r"tau: found values from 0.5 to 1.5; .*0 to 1"),
        ({"tau": torch.tensor([[-0.1]])}, r"tau: found values from -0.1"),
        ({"mask": torch.tensor([[True] * 5, [False] * 5])}, r"no allowed action in row \[1\]"),
        ({"img": None}, "img: .*got NoneType"),
    ],
)
def test_check_inputs_looks_at_values(net, inputs, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        net.check_inputs(**{"img": IMG, "floats": FLOATS, **inputs})


def test_check_inputs_accepts_what_is_right(net) -> None:
    _, tau = net(IMG, FLOATS)
    net.check_inputs(IMG, FLOATS, tau=tau)
    net.check_inputs(torch.full_like(IMG, 255, dtype=torch.uint8), FLOATS + 1e6)
    net.check_inputs(3 * torch.randn_like(IMG), FLOATS, mask=torch.ones(2, 5, dtype=torch.bool))


@pytest.mark.parametrize(
    ("distortion", "message"),
    [
        ("cvar", r"risk: found 'cvar'; .*iqn_blocks\.risk\.cvar\(0\.25\)"),
        (risk.cvar, r"risk: found the class cvar; .*call it first, as in risk=cvar\(0\.25\)"),
    ],
)
def test_risk_is_a_function_of_tau(net, distortion, message) -> None:
    with pytest.raises(TypeError, match=message):
        net.q_values(IMG, FLOATS, risk=distortion)


@pytest.mark.parametrize("action", [-1, 3])
def test_actions_that_do_not_exist(action) -> None:
    with pytest.raises(ValueError, match=rf"actions: found {action}; accepted: 0 … 2"):
        take(torch.zeros(2, 4, 3), torch.tensor([1, action]))


def test_an_encoder_says_which_input_it_lacks(net) -> None:
    with pytest.raises(TypeError, match="img: this encoder reads it, got None; pass a tensor"):
        net.encode(None, FLOATS)
    with pytest.raises(TypeError, match="floats: this encoder reads it"):
        net.encode(IMG, None)


def test_number_of_parameters(net) -> None:
    assert net.num_parameters() == sum(p.numel() for p in net.parameters())
    head = sum(p.numel() for p in net.value_head.parameters())
    net.value_head.requires_grad_(False)
    assert net.num_parameters() - net.num_parameters(trainable=True) == head
    net.value_head.requires_grad_(True)
