"""`P`: the places of `kernels.abi.Place`, integers of a module. Before 0.68 Numba takes no `IntEnum` for an index."""

from types import ModuleType
from typing import cast

from fastconv.kernels.abi import Place

_module = ModuleType("places")
vars(_module).update({place.name: place.value for place in Place})
P = cast("type[Place]", _module)
