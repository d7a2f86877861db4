import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from storage.memory_map import memory_map
from storage.tensors import loads

TENSORS = {
    "a": np.arange(12, dtype=np.float32).reshape(4, 3), "b": np.arange(3, dtype=np.int32), "none": np.zeros((0, 3), np.float32),
    "half": np.arange(4).astype(ml_dtypes.bfloat16),
}  # fmt: skip


def test_maps_are_what_reading_gives(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(TENSORS, path, metadata={"note": "n"})
    mapped = memory_map(path)
    for name, tensor in loads(path.read_bytes(), "x").items():
        assert mapped[name].dtype == tensor.dtype and (np.asarray(mapped[name]) == tensor).all()
    assert mapped.keys() == TENSORS.keys() and isinstance(mapped["a"], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        mapped["a"][0, 0] = 1


def test_files_that_are_cut_or_none(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(TENSORS, path)
    data = path.read_bytes()
    for damaged in (data[:-5], data[:50], data[:4], b"", b"not a safetensors file at all", b"\xff" * 40):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x.safetensors is damaged"):
            memory_map(path)
