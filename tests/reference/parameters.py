"""Named tensors of a network, and a note of which of them an equation has read."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class Parameters:
    """The tensors of one part of a network, by the names of its `state_dict`.

    `params.under("value_head")` narrows to one submodule. Every name that is looked up goes into
    `read`, which the narrowed views share: a tensor that no equation reads is a tensor too many.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], prefix: str = "", read: set[str] | None = None
    ) -> None:
        self._tensors = tensors
        self._prefix = prefix
        self.read: set[str] = set() if read is None else read

    def under(self, name: str) -> Parameters:
        """The part whose names start with `name.`."""
        return Parameters(self._tensors, f"{self._prefix}{name}.", self.read)

    def __getitem__(self, name: str) -> Tensor:
        full = self._prefix + name
        self.read.add(full)
        return self._tensors[full]

    def shaped(self, name: str, *shape: int) -> Tensor:
        """The tensor called `name`, which must have this shape."""
        tensor = self[name]
        if tuple(tensor.shape) != shape:
            raise AssertionError(
                f"{self._prefix}{name} has shape {tuple(tensor.shape)}, the equations: {shape}"
            )
        return tensor

    def everything(self) -> dict[str, Tensor]:
        """All tensors of this part, by their names inside it."""
        names = [name for name in self._tensors if name.startswith(self._prefix)]
        return {name[len(self._prefix) :]: self[name[len(self._prefix) :]] for name in names}
