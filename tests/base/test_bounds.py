"""Bounds beside types: what is out of them is one sentence with key, value and bound."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest

from sanakit.base import ConfigError
from sanakit.base.bounds import Bounds, Share, check_bounds


@dataclass(frozen=True, kw_only=True)
class Inner:
    share: Share = 0.5
    many: tuple[Annotated[float, Bounds(above=0)], ...] | None = (1.0,)


@dataclass(frozen=True, kw_only=True)
class Outer:
    count: Annotated[int, Bounds(least=1, most=10)] = 1
    spike: Annotated[float, Bounds(least=1, off=True)] = 0.0
    maybe: Annotated[float, Bounds(above=0, below=2)] | None = None
    free: float = 0.0
    switch: bool = True
    folder: Annotated[Path, Bounds()] = Path("x")
    name: Annotated[str, Bounds()] = "x"
    inner: Inner = field(default_factory=Inner)
    inners: tuple[Inner, ...] = ()


def test_what_is_inside_passes() -> None:
    check_bounds(Outer())
    check_bounds(Outer(count=10, spike=1.0, maybe=1.9, free=-1e300, switch=False, inners=(Inner(many=None),)))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (Outer(count=0), "count is 0; it must be at least 1 and at most 10"),
        (Outer(count=11), "count is 11; it must be"),
        (Outer(count=10**5000), "count is a huge number; it must be"),
        (Outer(spike=0.5), r"spike is 0.5; it must be 0 \(off\) or at least 1"),
        (Outer(spike=math.inf), "spike is inf; it must be"),
        (Outer(maybe=2.0), "maybe is 2.0; it must be above 0 and below 2"),
        (Outer(maybe=math.nan), "maybe is nan; it must be above 0"),
        (Outer(free=math.nan), "free is nan; it must be a finite number"),
        (Outer(name=""), "name is empty; it must name something"),
        (Outer(inner=Inner(share=1.5)), "inner.share is 1.5; it must be at least 0 and at most 1"),
        (
            Outer(inners=(Inner(), Inner(many=(1.0, 0.0)))),
            r"inners\[1\].many\[1\] is 0.0; it must be above 0",
        ),
    ],
)
def test_what_is_outside_is_one_sentence(config: Outer, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^{told}"):
        check_bounds(config)
