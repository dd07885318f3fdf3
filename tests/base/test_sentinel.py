"""The sentinel: it names the stage, and the innermost layer that broke first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sanakit.base.errors import NumericsError
from sanakit.base.sentinel import check_finite, find_nonfinite_layer
from sanakit.base.text_states import TextStates


class Log(nn.Module):
    """Breaks for negative input."""

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x.log(), None


class Net(nn.Module):
    """Two fine layers around one that breaks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
        self.second = nn.ModuleDict({"log": Log()})
        self.third = nn.Linear(3, 3)

    def forward(self, x: Tensor, text: TextStates | None = None) -> Tensor:
        logged, _ = self.second["log"](self.first(x) - 1e6)
        return self.third(logged)


def test_finite_values_pass() -> None:
    check_finite(torch.ones(3), "decode")
    check_finite(torch.ones(3, dtype=torch.float16) * 6e4, "decode")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_message_names_stage_layer_and_count(value: float) -> None:
    broken = torch.tensor([1.0, value, 2.0], dtype=torch.bfloat16)
    with pytest.raises(NumericsError, match="1 of 3 values .* after decode, layer up.0 .bfloat16 on cpu"):
        check_finite(broken, "decode", "up.0")
    with pytest.raises(NumericsError, match="after decode "):
        check_finite(broken, "decode")


def test_the_first_innermost_layer_is_found_and_hooks_are_gone() -> None:
    net = Net()
    assert find_nonfinite_layer(net, lambda: net(torch.ones(2, 3))) == "second.log"
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in net.modules())


def test_a_broken_input_is_called_input() -> None:
    net = Net()
    text = TextStates(torch.full((1, 2, 3), float("nan")), torch.ones(1, 2, dtype=torch.bool))
    assert find_nonfinite_layer(net, lambda: net(torch.ones(2, 3), text=text)) == "(input)"
    assert find_nonfinite_layer(net, lambda: net(torch.full((2, 3), float("inf")))) == "(input)"


def test_nothing_found_and_hooks_gone_after_an_error() -> None:
    layer = nn.Linear(3, 3)
    assert find_nonfinite_layer(layer, lambda: layer(torch.ones(1, 3))) is None
    with pytest.raises(RuntimeError):
        find_nonfinite_layer(layer, lambda: layer(torch.ones(1, 4)))
    assert not layer._forward_hooks


def test_a_bare_layer_is_named_by_its_class() -> None:
    layer = Log()
    assert find_nonfinite_layer(layer, lambda: layer(-torch.ones(2))) == "Log"
