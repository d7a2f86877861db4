import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from storage.arrays import open_arrays

A = np.arange(24, dtype=np.float32).reshape(6, 4)
B = np.arange(6, dtype=np.int64)


def test_every_kind_of_file(tmp_path):
    np.save(tmp_path / "a.npy", A)
    np.savez(tmp_path / "a.npz", acts=A, b=B)
    np.savez_compressed(tmp_path / "c.npz", acts=A, b=B)
    safetensors.numpy.save_file({"acts": A.astype(ml_dtypes.bfloat16), "b": B}, tmp_path / "a.safetensors")
    assert (open_arrays(tmp_path / "a.npy")[""] == A).all()
    for name in ("a.npz", "c.npz", "a.safetensors"):
        found = open_arrays(tmp_path / name)
        assert found.keys() == {"acts", "b"} and (found["acts"].astype(np.float32) == A).all() and (found["b"] == B).all()


def test_what_can_be_mapped_is_not_read(tmp_path):
    np.save(tmp_path / "a.npy", A)
    np.savez(tmp_path / "a.npz", acts=A, **{"with é": A})
    for found in (*open_arrays(tmp_path / "a.npy").values(), *open_arrays(tmp_path / "a.npz").values()):
        assert isinstance(found, np.memmap) and not found.flags.writeable and (found == A).all()


def test_column_order_and_no_rows(tmp_path):
    np.savez(tmp_path / "a.npz", f=np.asfortranarray(A), none=A[:0])
    found = open_arrays(tmp_path / "a.npz")
    assert (found["f"] == A).all() and found["none"].shape == (0, 4)


def test_another_file_under_the_same_name_is_seen(tmp_path):
    np.save(tmp_path / "a.npy", A)
    open_arrays(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", A[:3] + 1)
    assert (open_arrays(tmp_path / "a.npy")[""] == A[:3] + 1).all()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "c.npz", "a.safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 40, -9])
def test_truncated_files(tmp_path, name, keep):
    np.save(tmp_path / "a.npy", A)
    np.savez(tmp_path / "a.npz", acts=A)
    np.savez_compressed(tmp_path / "c.npz", acts=A)
    safetensors.numpy.save_file({"acts": A}, tmp_path / "a.safetensors")
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=name):
        open_arrays(path)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "c.npz"])
def test_any_damaged_byte_of_a_header_is_a_named_error_or_harmless(tmp_path, name):
    np.save(tmp_path / "a.npy", A)
    np.savez(tmp_path / "a.npz", acts=A)
    np.savez_compressed(tmp_path / "c.npz", acts=A)
    data = (tmp_path / name).read_bytes()
    refused = 0
    for place in range(0, min(len(data), 200), 3):
        damaged = bytearray(data)
        damaged[place] ^= 0x55
        path = tmp_path / f"{place}-{name}"
        path.write_bytes(bytes(damaged))
        try:
            open_arrays(path)
        except ValueError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 5


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object))
    np.savez(tmp_path / "a.npz", a=np.array([{}], object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match=f"{name} is damaged or not a plain NumPy file"):
            open_arrays(tmp_path / name)


def test_other_files(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a.pt: one of .npy, .npz, .safetensors is wanted"):
        open_arrays(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError):
        open_arrays(tmp_path / "b.npy")
