"""The variants by name. Each is a module of pure functions over one frozen pytree (see `saes/topk.py`)."""

from types import ModuleType

from saes import topk

VARIANTS: dict[str, ModuleType] = {"topk": topk}


def variant(name: str) -> ModuleType:
    """Raises ValueError naming the variants there are."""
    if name not in VARIANTS:
        raise ValueError(f"config.sae.variant={name!r}: one of {sorted(VARIANTS)}")
    return VARIANTS[name]
