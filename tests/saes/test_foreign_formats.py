"""Dictionaries released by others: read as the functions that they are, and nothing in them is ever run."""

import io
import json
import pickle
import sys
import types
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from saes.dictionary import encode
from saes.formats import dictionary_learning, gemma_scope
from storage.npz import read_npz
from storage.state_dict import read_state_dict
from tests.saes.dictionaries import D, F

RNG = np.random.default_rng(5)
X = RNG.normal(size=(30, D)).astype(np.float32)
GEMMA = {
    "w_enc": RNG.normal(size=(D, F)), "b_enc": RNG.normal(size=F), "w_dec": RNG.normal(size=(F, D)), "b_dec": RNG.normal(size=D),
    "threshold": np.abs(RNG.normal(size=F)),
}  # fmt: skip
GEMMA = {name: a.astype(np.float32) for name, a in GEMMA.items()}


def gemma_codes(x):
    pre = x @ GEMMA["w_enc"] + GEMMA["b_enc"]  # b_dec is not subtracted
    return np.where(pre > GEMMA["threshold"], pre, 0)


def test_gemma_scope_1(tmp_path):
    renamed = {name.replace("w_", "W_"): a for name, a in GEMMA.items()}
    np.savez(tmp_path / "params.npz", **renamed)
    dictionary, _ = gemma_scope.load(tmp_path)
    assert (dictionary.w_dec_FD == GEMMA["w_dec"]).all()
    np.testing.assert_allclose(encode(dictionary, jnp.asarray(X)), gemma_codes(X), rtol=1e-4, atol=1e-5)
    np.savez_compressed(tmp_path / "params.npz", **renamed)
    assert (gemma_scope.load(tmp_path)[0].threshold_F == GEMMA["threshold"]).all()


def write_gemma_2(folder, config=(), **tensors):
    safetensors.numpy.save_file(GEMMA | tensors, folder / "params.safetensors")
    known = {"architecture": "jump_relu", "width": F, "affine_connection": False, "type": "sae", "model_name": "google/gemma-3-4b-pt"}
    (folder / "config.json").write_text(json.dumps(known | dict(config)))


def test_gemma_scope_2(tmp_path):
    write_gemma_2(tmp_path)
    dictionary, config = gemma_scope.load(tmp_path)
    assert config["model_name"] == "google/gemma-3-4b-pt"
    np.testing.assert_allclose(encode(dictionary, jnp.asarray(X)), gemma_codes(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "tensors", "says"),
    [
        ({"type": "transcoder"}, {}, "is a transcoder: reads one site"),
        ({"type": "crosscoder"}, {}, "is a crosscoder"),
        ({"type": "other"}, {}, "type='other' is not supported"),
        ({"affine_connection": True}, {}, "is a transcoder with a skip connection"),
        ({"affine_connection": 1}, {}, "affine_connection='1' must be of type bool"),
        (
            {"hf_hook_point_in": "model.layers.3.output", "hf_hook_point_out": "model.layers.4.output"},
            {},
            "a transcoder: reads model.layers.3.output",
        ),
        ({"width": F + 1}, {}, f"width='{F + 1}', the weights say {F}"),
        ({"architecture": "topk"}, {}, "architecture='topk' is not supported"),
        ({}, {"affine_skip_connection": np.zeros((D, D), np.float32)}, "affine_skip_connection.* missing or unknown"),
        ({}, {"b_dec": np.zeros(F, np.float32)}, "b_dec has shape"),
        ({}, {"threshold": np.full(F, np.nan, np.float32)}, "threshold holds NaN"),
    ],
)
def test_gemma_scope_that_is_none(tmp_path, config, tensors, says):
    write_gemma_2(tmp_path, config, **tensors)
    with pytest.raises(ValueError, match=says):
        gemma_scope.load(tmp_path)


def test_gemma_members_that_differ_in_capitals_alone(tmp_path):
    np.savez(tmp_path / "params.npz", W_enc=GEMMA["w_enc"], **GEMMA)
    with pytest.raises(ValueError, match="differ in capitals alone"):
        gemma_scope.load(tmp_path)


def test_no_gemma_scope(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither params.npz"):
        gemma_scope.load(tmp_path)
    np.savez(tmp_path / "params.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match="no matrix 'w_enc'"):
        gemma_scope.load(tmp_path)


RAN = []


class Bomb:
    def __reduce__(self):
        return RAN.append, ("it ran",)


def test_a_pickled_member_is_refused_and_not_run(tmp_path):
    np.savez(tmp_path / "params.npz", W_enc=np.array([Bomb()], object))
    with pytest.raises(ValueError, match="params.npz.*pickled"):
        gemma_scope.load(tmp_path)
    assert not RAN


def npy(array, shape=None):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape or array.shape})
    return header.getvalue() + array.tobytes()


@pytest.mark.parametrize("how", ["declares", "zeros", "cut", "bit", "order"])
def test_archives_that_say_more_than_they_hold(tmp_path, how):
    path, array = tmp_path / "x.npz", np.arange(600, dtype=np.float32)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        content = npy(array, (10**12,)) if how == "declares" else npy(array)
        archive.writestr("a.npy", b"\0" * 3_000_000 if how == "zeros" else content)
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[:-40])
    if how == "bit":
        path.write_bytes(data[:300] + bytes([data[300] ^ 4]) + data[301:])
    if how == "order":
        np.savez(path, a=np.asfortranarray(np.arange(6.0).reshape(2, 3)))
        assert read_npz(path)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
        return
    with pytest.raises(ValueError, match="x.npz is damaged"):
        read_npz(path)


# PyTorch's files, made without it: a zip of a pickle that names torch's functions, and of raw storages.


class Storage:
    def __init__(self, key, array, kind):
        self.key, self.array, self.kind = key, array, kind


def write_pt(path, state, monkeypatch, extra=None, protocol=2):
    """What `torch.save(state)` writes for tensors by name; `extra` is put among them as it is."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*args):
        raise AssertionError("called while reading")

    rebuild.__module__, rebuild.__qualname__, rebuild.__name__ = "torch._utils", "_rebuild_tensor_v2", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild
    kinds = {np.dtype("f4"): "FloatStorage", np.dtype("i4"): "IntStorage", np.dtype("i8"): "LongStorage"}
    for name in kinds.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Tensor:
        def __init__(self, key, array):
            self.storage, self.array = Storage(key, array, getattr(torch, kinds[array.dtype])), array

        def __reduce__(self):
            stride = tuple(s // self.array.itemsize for s in self.array.strides)
            return rebuild, (self.storage, 0, self.array.shape, stride, False, __import__("collections").OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", obj.kind, obj.key, "cpu", obj.array.size) if isinstance(obj, Storage) else None

    tensors = {name: Tensor(str(i), np.asarray(a, order="C")) for i, (name, a) in enumerate(state.items())}
    out = io.BytesIO()
    Pickler(out, protocol).dump(__import__("collections").OrderedDict(tensors | (extra or {})))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ae/data.pkl", out.getvalue())
        for t in tensors.values():
            archive.writestr(f"ae/data/{t.storage.key}", t.array.tobytes())


def normal(*shape):
    return np.random.default_rng(len(shape) + sum(shape)).normal(size=shape).astype(np.float32)


LINEAR = {"encoder.weight": normal(F, D), "encoder.bias": normal(F), "decoder.weight": normal(D, F)}
PLAIN = {"W_enc": normal(D, F), "b_enc": normal(F), "W_dec": normal(F, D), "b_dec": normal(D)}
K_AND_THRESHOLD = {"k": np.array(4, np.int32), "threshold": np.array(0.3, np.float32)}
STATES = {
    "AutoEncoder": LINEAR | {"bias": normal(D)},
    "AutoEncoderNew": LINEAR | {"decoder.bias": normal(D)},
    "GatedAutoEncoder": {k: v for k, v in LINEAR.items() if k != "encoder.bias"}
    | {"decoder_bias": normal(D), "r_mag": 0.1 * normal(F), "gate_bias": normal(F) + 0.1, "mag_bias": normal(F)},
    "JumpReluAutoEncoder": PLAIN | {"threshold": np.abs(normal(F))},
    "AutoEncoderTopK": LINEAR | {"b_dec": normal(D)} | K_AND_THRESHOLD,
    "BatchTopKSAE": LINEAR | {"b_dec": normal(D)} | K_AND_THRESHOLD,
    "MatryoshkaBatchTopKSAE": PLAIN | K_AND_THRESHOLD | {"group_sizes": np.array([5, 15])},
}


def released_codes(kind, s, x):
    """What each class of dictionary_learning computes, from its source."""
    relu = lambda a: np.maximum(a, 0)
    if kind == "AutoEncoder":
        return relu((x - s["bias"]) @ s["encoder.weight"].T + s["encoder.bias"])
    if kind == "AutoEncoderNew":
        return relu(x @ s["encoder.weight"].T + s["encoder.bias"])
    if kind == "GatedAutoEncoder":
        e = (x - s["decoder_bias"]) @ s["encoder.weight"].T
        return (e + s["gate_bias"] > 0) * relu(np.exp(s["r_mag"]) * e + s["mag_bias"])
    if kind == "JumpReluAutoEncoder":
        pre = x @ s["W_enc"] + s["b_enc"]
        return relu(pre * (pre > s["threshold"]))
    w, b = (s["W_enc"], s["b_enc"]) if "W_enc" in s else (s["encoder.weight"].T, s["encoder.bias"])
    f = relu((x - s["b_dec"]) @ w + b)
    if kind == "AutoEncoderTopK":
        return np.where(f >= np.sort(f, axis=1)[:, [-4]], f, 0)
    return f * (f > s["threshold"])


def write_dl(folder, kind, monkeypatch, state=None, trainer=(), **how):
    write_pt(folder / "ae.pt", STATES[kind] if state is None else state, monkeypatch, **how)
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, "layer": 3} | dict(trainer), "buffer": {}}))


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", STATES)
def test_dictionary_learning(tmp_path, monkeypatch, kind, protocol):
    write_dl(tmp_path, kind, monkeypatch, protocol=protocol)
    dictionary, trainer = dictionary_learning.load(tmp_path)
    assert trainer["layer"] == 3 and dictionary.w_dec_FD.shape == (F, D)
    decoder = STATES[kind]["decoder.weight"].T if "decoder.weight" in STATES[kind] else STATES[kind]["W_dec"]
    assert (dictionary.w_dec_FD == decoder).all()
    np.testing.assert_allclose(encode(dictionary, jnp.asarray(X)), released_codes(kind, STATES[kind], X), rtol=1e-4, atol=1e-5)


def test_a_threshold_that_was_never_set_lets_everything_through(tmp_path, monkeypatch):
    write_dl(tmp_path, "BatchTopKSAE", monkeypatch, STATES["BatchTopKSAE"] | {"threshold": np.array(-1.0, np.float32)})
    assert (dictionary_learning.load(tmp_path)[0].threshold_F == 0).all()


def test_a_threshold_that_is_no_number_is_refused(tmp_path, monkeypatch):
    for bad in (np.array(np.nan, np.float32), np.array([0.1, 0.2], np.float32)):
        write_dl(tmp_path, "BatchTopKSAE", monkeypatch, STATES["BatchTopKSAE"] | {"threshold": bad})
        with pytest.raises(ValueError, match="threshold must be a single finite number"):
            dictionary_learning.load(tmp_path)


def test_what_a_state_dict_never_needs_is_refused_and_not_run(tmp_path, monkeypatch):
    write_dl(tmp_path, "AutoEncoder", monkeypatch, extra={"bomb": Bomb()})
    with pytest.raises(ValueError, match="ae.pt is damaged or not a plain state dict"):
        dictionary_learning.load(tmp_path)
    assert not RAN
    write_dl(tmp_path, "AutoEncoder", monkeypatch, extra={"note": "text"})
    with pytest.raises(ValueError, match="other things than tensors"):
        dictionary_learning.load(tmp_path)


def pt_of(path, pickled, **members):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ae/data.pkl", pickled)
        for name, data in members.items():
            archive.writestr(f"ae/data/{name}", data)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02})" + b"\x85" * 2_000_000 + b"K\x01s.",  # a nested tuple as a key: hashing it would overflow the C stack
        b"\x80\x02}" + b"X\x01\x00\x00\x00a" + b"(" + b"K\x01" * 4 + b"tQs.",  # a storage that is none
        b"\x80\x02" + b"K\x01q\x00" + b"h\x00\x86q\x00" * 0 + b"K\x01" + b"2" * 50 + b".",  # an opcode that is not needed
        b"\x80\x02}K\x01K\x02s.",  # a key that is no name
        b"\x80\x02}" + b"(" * 10 + b".",
        b"(" * 5_000_000,
    ],
    ids=["nested key", "storage", "dup", "number key", "marks", "long"],
)
def test_crafted_descriptions_end_in_one_short_line(tmp_path, pickled):
    pt_of(tmp_path / "x.pt", pickled)
    with pytest.raises(ValueError, match=r"x\.pt is damaged or not a plain state dict") as raised:
        read_state_dict(tmp_path / "x.pt")
    assert len(str(raised.value)) < 500


def test_compressed_state_dicts_are_refused(tmp_path, monkeypatch):
    write_pt(tmp_path / "a.pt", {"w": normal(3, 2)}, monkeypatch)
    with zipfile.ZipFile(tmp_path / "a.pt") as a, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as b:
        for name in a.namelist():
            b.writestr(name, a.read(name))
    with pytest.raises(ValueError, match="compressed members"):
        read_state_dict(tmp_path / "b.pt")


@pytest.mark.parametrize("header", [b"(((", b"{'descr': '<f4', 'fortran_order': False, 'shape': (", b"-" * 6000 + b"1"])
def test_crafted_array_headers(tmp_path, header):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match=r"x\.npz is damaged"):
        read_npz(tmp_path / "x.npz")


def test_every_cut_and_many_flipped_bytes_end_in_one_line(tmp_path, monkeypatch):
    """Damage is found, or (in the header of a stored member, which zip does not check) changes nothing."""
    write_pt(tmp_path / "a.pt", {"w": normal(3, 2)}, monkeypatch)
    data = (tmp_path / "a.pt").read_bytes()
    for at in range(0, len(data), 7):
        (tmp_path / "b.pt").write_bytes(data[:at])
        with pytest.raises(ValueError, match=r"b\.pt"):
            read_state_dict(tmp_path / "b.pt")
        (tmp_path / "b.pt").write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            assert (read_state_dict(tmp_path / "b.pt")["w"] == normal(3, 2)).all()
        except ValueError as error:
            assert "b.pt" in str(error)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"encoder.bias": normal(F + 1)}, "encoder.bias has shape"),
        ({"other": normal(3)}, "other.* missing or unknown"),
        ({"k": np.array(0, np.int32)}, "k=0 must be a whole number between 1 and 20"),
        ({"decoder.weight": normal(F, D)}, "decoder.weight has shape"),
        ({"k": np.array([3, 4], np.int32)}, "k must be a single finite number"),
        ({"k": np.array(4.5, np.float32)}, "k=4.5 must be a whole number"),
    ],
)
def test_dictionary_learning_that_does_not_fit(tmp_path, monkeypatch, change, says):
    write_dl(tmp_path, "AutoEncoderTopK", monkeypatch, STATES["AutoEncoderTopK"] | change)
    with pytest.raises(ValueError, match=says):
        dictionary_learning.load(tmp_path)


def test_k_of_the_configuration_where_the_weights_have_none(tmp_path, monkeypatch):
    """As it was kept before k was a buffer."""
    old = {name: a for name, a in STATES["AutoEncoderTopK"].items() if name not in K_AND_THRESHOLD}
    write_dl(tmp_path, "AutoEncoderTopK", monkeypatch, old, {"k": 6})
    assert dictionary_learning.load(tmp_path)[0].k == 6
    write_dl(tmp_path, "AutoEncoderTopK", monkeypatch, old)
    with pytest.raises(ValueError, match="k=0 must be a whole number"):
        dictionary_learning.load(tmp_path)


@pytest.mark.parametrize(
    ("trainer", "says"),
    [
        ({"k": 6}, "config.json: trainer.k='6', the weights say 4"),
        ({"k": "4"}, "config.json: k=4 must be a whole number"),
        ({"dict_size": F + 1}, f"config.json: trainer.dict_size='{F + 1}', the weights say {F}"),
        ({"activation_dim": D + 1}, f"config.json: trainer.activation_dim='{D + 1}', the weights say {D}"),
        ({"submodule_name": "resid_post_layer_4"}, "config.json: trainer.layer is '3' in one field and '4' in another"),
    ],
)
@pytest.mark.parametrize("kind", ["AutoEncoderTopK", "BatchTopKSAE"])
def test_a_configuration_that_contradicts_the_weights_or_itself(tmp_path, monkeypatch, kind, trainer, says):
    write_dl(tmp_path, kind, monkeypatch, trainer=trainer)
    with pytest.raises(ValueError, match=says):
        dictionary_learning.load(tmp_path)
    write_dl(tmp_path, kind, monkeypatch, trainer={"k": 4, "dict_size": F, "activation_dim": D, "submodule_name": "resid_post_layer_3"})
    dictionary_learning.load(tmp_path)


def test_matryoshkas_groups_are_all_its_features_and_a_threshold_has_its_place_in_float32(tmp_path, monkeypatch):
    state = STATES["MatryoshkaBatchTopKSAE"]
    write_dl(tmp_path, "MatryoshkaBatchTopKSAE", monkeypatch, state | {"group_sizes": np.array([5, 14])})
    with pytest.raises(ValueError, match="ae.pt: group_sizes add up to 19, there are 20"):
        dictionary_learning.load(tmp_path)
    write_dl(tmp_path, "MatryoshkaBatchTopKSAE", monkeypatch, state | {"threshold": np.array(np.inf, np.float32)})
    with pytest.raises(ValueError, match="ae.pt: threshold must be a single finite number"):
        dictionary_learning.load(tmp_path)


def test_unknown_classes_and_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        dictionary_learning.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": ["AutoEncoder"]}}))
    with pytest.raises(ValueError, match="dict_class="):
        dictionary_learning.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "CrossCoder"}}))
    with pytest.raises(ValueError, match="is a crosscoder"):
        dictionary_learning.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoder"}}))
    with pytest.raises(FileNotFoundError, match="ae.pt"):
        dictionary_learning.load(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_groups_that_are_no_numbers_are_named(tmp_path, monkeypatch, bad):
    state = STATES["MatryoshkaBatchTopKSAE"] | {"group_sizes": np.array([bad, 8], np.float32)}
    write_dl(tmp_path, "MatryoshkaBatchTopKSAE", monkeypatch, state=state)
    with pytest.raises(ValueError, match="ae.pt: group_sizes add up to (nan|inf)"):
        dictionary_learning.load(tmp_path)
