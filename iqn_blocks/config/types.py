"""The types that keys share."""

from __future__ import annotations

from typing import Annotated

from iqn_blocks.config.kinds import MIN_POSITIVE, Flag, FreeMapping, Real, Text, Whole
from iqn_blocks.config.plain import FrozenMapping

Bool = Annotated[bool, Flag()]
BoolOrNull = Annotated[bool | None, Flag(null=True)]
Size = Annotated[int, Whole()]
SizeOrNull = Annotated[int | None, Whole(null=True)]
Count = Annotated[int, Whole(low=0)]
Probability = Annotated[float, Real(low=0.0, high=1.0, below=True)]
Finite = Annotated[float, Real()]
Positive = Annotated[float, Real(low=MIN_POSITIVE)]
NotNegative = Annotated[float, Real(low=0.0)]
NotPositive = Annotated[float, Real(high=0.0)]
String = Annotated[str, Text()]
OwnKeys = Annotated[FrozenMapping, FreeMapping()]
