"""Where a model's parameters and batches go: sharding rules over a mesh of `data` and `model`.

Along `model` the hidden axes of a layer are cut (heads, and the MLP's width) and the vocabulary; along `data` the contexts of a
batch. An axis that the mesh does not divide stays whole. XLA puts in the communication.
"""

import dataclasses

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

# Which axis of a module's matrix is cut, of (…, in, out); and whether its bias is.
_OUT, _IN = -1, -2
_CUT = {"q": _OUT, "k": _OUT, "v": _OUT, "up": _OUT, "gate": _OUT, "o": _IN, "down": _IN, "unembed": _OUT, "embed": _IN}


@dataclasses.dataclass(frozen=True)
class Placement:
    """A mesh with axes `data` and `model`, or None: the first device."""

    mesh: Mesh | None

    @classmethod
    def one_device(cls) -> "Placement":
        return cls(None)

    @property
    def data(self) -> int:
        """Into how many parts a batch is cut."""
        return 1 if self.mesh is None else self.mesh.shape["data"]

    def of(self, path: tuple[str, ...], shape: tuple[int, ...]) -> Sharding:
        """Of a parameter, by its place in the pytree, e.g. ("layers", "q", "w")."""
        if self.mesh is None:
            return SingleDeviceSharding(jax.local_devices()[0])
        axis, leaf = _CUT.get(path[-2]), path[-1]
        if axis is None or (leaf == "b" and axis == _IN) or shape[axis] % self.mesh.shape["model"]:
            return NamedSharding(self.mesh, PartitionSpec())
        spec: list[str | None] = [None] * len(shape)
        spec[axis] = "model"
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def of_batch(self) -> Sharding:
        """Of tokens and what is captured, cut along the contexts."""
        if self.mesh is None:
            return SingleDeviceSharding(jax.local_devices()[0])
        return NamedSharding(self.mesh, PartitionSpec("data"))

    def everywhere(self) -> Sharding:
        """Of what all devices hold."""
        return SingleDeviceSharding(jax.local_devices()[0]) if self.mesh is None else NamedSharding(self.mesh, PartitionSpec())
