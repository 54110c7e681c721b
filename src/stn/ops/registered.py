"""Objects that the registry of torch passes as the arguments of an operator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self


class Registered(ABC):
    """A frozen object without tensors, defined by plain values."""

    name: ClassVar[str]
    schema: ClassVar[str]  # types of `arguments` in the registry of torch

    @property
    @abstractmethod
    def arguments(self) -> tuple[Any, ...]:
        """The arguments of the constructor: `type(x)(*x.arguments)` is equal to x."""

    @classmethod
    def of(cls, arguments: Sequence[Any]) -> Self:
        """Build the object from the arguments of the registry of torch, which has lists instead of tuples."""
        return cls(*(tuple(value) if isinstance(value, list) else value for value in arguments))
