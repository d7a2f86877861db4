import json

import ml_dtypes
import numpy as np
import pytest

from activations import store as store_module
from activations.store import ActivationStore, Rows, StoreWriter
from storage import files

HEADER = {"width": 4, "dtype": "float32", "hook": {"layer": 1}, "documents": ["a", "b"]}


def rows(start, n):
    index = np.arange(start, start + n, dtype=np.int32)
    return Rows(np.outer(index, [1, 2, 3, 4]).astype(np.float32) / 7, index % 2, index, index + 5)


def write(folder, header=HEADER, shards=((0, 5), (5, 3))):
    writer = StoreWriter(folder, header)
    for i, (start, n) in enumerate(shards):
        if not writer.kept(i):
            writer.write(i, rows(start, n))
    writer.finish(len(shards))
    return folder


def test_round_trip(tmp_path):
    store = ActivationStore(write(tmp_path))
    assert (store.rows, store.width) == (8, 4)
    for got, expected in zip(store.load(), rows(0, 8), strict=True):
        assert got.dtype == expected.dtype and (got == expected).all()


def test_bfloat16_is_rounded_once(tmp_path):
    store = ActivationStore(write(tmp_path, HEADER | {"dtype": "bfloat16"}))
    expected = rows(0, 8).acts_ND.astype(ml_dtypes.bfloat16).astype(np.float32)
    assert (store.load().acts_ND == expected).all()


def test_an_interrupted_harvest_keeps_whole_shards(tmp_path):
    writer = StoreWriter(tmp_path, HEADER)
    writer.write(0, rows(0, 5))
    stamp = (tmp_path / "shard-00000.safetensors").stat().st_mtime_ns
    again = StoreWriter(tmp_path, HEADER)
    assert again.kept(0) and not again.kept(1)
    again.write(1, rows(5, 3))
    again.finish(2)
    assert (tmp_path / "shard-00000.safetensors").stat().st_mtime_ns == stamp
    assert (ActivationStore(tmp_path).load().token_N == rows(0, 8).token_N).all()


@pytest.mark.parametrize("how", ["header", "bytes"])
def test_a_shard_of_another_header_or_damaged_is_made_again(tmp_path, how):
    StoreWriter(tmp_path, HEADER).write(0, rows(0, 5))
    if how == "bytes":
        path = tmp_path / "shard-00000.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))
    header = HEADER | {"hook": {"layer": 2}} if how == "header" else HEADER
    assert not StoreWriter(tmp_path, header).kept(0)


@pytest.mark.parametrize("position", [-1, 200, 8])
def test_a_flipped_bit_is_found_and_the_shard_named(tmp_path, position):
    path = write(tmp_path) / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="shard-00001.safetensors does not match"):
        ActivationStore(tmp_path).load()


def test_a_finished_store_is_kept_too(tmp_path):
    """What stops after one split is finished must not make it again."""
    before = write(tmp_path).joinpath("manifest.json").read_bytes()
    again = StoreWriter(tmp_path, HEADER)
    assert again.kept(0) and again.kept(1) and not again.kept(2)
    again.finish(2)
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert not StoreWriter(tmp_path, HEADER | {"documents": ["c"]}).kept(0)


def test_a_shard_that_is_missing_is_not_passed_over(tmp_path):
    writer = StoreWriter(tmp_path, HEADER)
    writer.write(1, rows(5, 3))
    with pytest.raises(ValueError, match="lacks 1 of 2 shards, first 0: run the same command again"):
        writer.finish(2)
    assert not (tmp_path / "manifest.json").exists()


def test_several_hosts_write_one_store(tmp_path, monkeypatch):
    """The others never touch what the first has to list, whoever comes first."""
    for host in (1, 0):
        monkeypatch.setattr(store_module.jax, "process_index", lambda host=host: host)
        writer = StoreWriter(tmp_path, HEADER)
        writer.write(host, rows(5 * host, 5 - 2 * host))
        if host == 1:
            writer.finish(2)
            assert not (tmp_path / "manifest.json").exists() and (tmp_path / "shard-00001.record").exists()
    writer.finish(2)
    assert (ActivationStore(tmp_path).load().acts_ND == rows(0, 8).acts_ND).all()


def test_records_do_not_repeat_the_documents(tmp_path):
    writer = StoreWriter(tmp_path, HEADER | {"documents": [f"document {i}" for i in range(1000)]})
    writer.write(0, rows(0, 5))
    assert (tmp_path / "shard-00000.record").stat().st_size < 1000


def test_rows_are_taken_in_any_order_across_shards(tmp_path):
    store = ActivationStore(write(tmp_path, HEADER | {"dtype": "bfloat16"}))
    wanted = np.array([7, 0, 4, 5, 4])
    assert (store.take(wanted) == rows(0, 8).acts_ND.astype(ml_dtypes.bfloat16).astype(np.float32)[wanted]).all()
    assert store.take(wanted).dtype == np.float32 and store.take(wanted[:0]).shape == (0, 4)
    assert (store.column("position") == np.arange(8)).all()


def test_only_shards_that_are_touched_are_read(tmp_path):
    path = write(tmp_path) / "shard-00001.safetensors"
    data = bytearray(path.read_bytes())
    data[data.index(rows(5, 1).acts_ND.tobytes())] ^= 4
    path.write_bytes(bytes(data))
    store = ActivationStore(tmp_path)
    assert (store.take(np.array([4, 0])) == rows(0, 8).acts_ND[[4, 0]]).all()
    with pytest.raises(ValueError, match="shard-00001.safetensors does not match its checksum at rows from 0"):
        store.take(np.array([4, 5]))


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "OPEN_SHARDS", 3)
    store = ActivationStore(write(tmp_path, shards=[(4 * i, 4) for i in range(20)]))
    for _ in range(2):
        assert (store.take(np.arange(80)[::-1]) == rows(0, 80).acts_ND[::-1]).all()
    assert len(store._open) == 3


@pytest.mark.parametrize(("field", "value"), [("width", 3), ("dtype", "bfloat16")])
def test_a_manifest_that_does_not_match_its_shards(tmp_path, field, value):
    path = write(tmp_path) / "manifest.json"
    manifest = files.read_record(path, "", None) | {field: value}
    path.write_text(json.dumps(manifest))  # without a checksum, as earlier versions wrote it
    with pytest.raises(ValueError, match="shard-00000.safetensors: tensor 'acts' is float32 .* the manifest says"):
        ActivationStore(tmp_path).take(np.array([0]))
    path.write_text(json.dumps(manifest | {"sha256": "0" * 64}))
    with pytest.raises(ValueError, match="manifest.json is damaged: it does not match its own checksum: harvest again"):
        ActivationStore(tmp_path)


def test_truncated_missing_and_foreign_stores(tmp_path):
    path = write(tmp_path) / "shard-00001.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    with pytest.raises(ValueError, match="shard-00001.*bytes"):
        ActivationStore(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="shard-00001"):
        ActivationStore(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="'other'"):
        ActivationStore(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        ActivationStore(tmp_path)
    with pytest.raises(FileNotFoundError, match="manifest.json"):
        ActivationStore(tmp_path / "nowhere")


def test_nan_and_wrong_width_are_refused(tmp_path):
    writer = StoreWriter(tmp_path, HEADER)
    bad = rows(0, 5)
    bad.acts_ND[2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        writer.write(0, bad)
    with pytest.raises(ValueError, match="width"):
        writer.write(0, bad._replace(acts_ND=np.zeros((5, 3), np.float32)))


def test_a_users_file_that_ends_like_our_records_stays(tmp_path):
    for name in ("notes.record", "shard-mine.record"):
        (tmp_path / name).write_text("mine")
    writer = StoreWriter(tmp_path, HEADER)
    writer.write(0, rows(0, 5))
    writer.finish(1)
    assert sorted(p.name for p in tmp_path.glob("*.record")) == ["notes.record", "shard-mine.record"]
