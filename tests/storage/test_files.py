"""Checksums, JSON and JSON lines, whole and damaged."""

import hashlib
import json

import pytest
from etils import epath

from storage import files
from storage.tables import read_table, write_table

LEAKS = ("Expecting", "codec", "Errno", "Extra data", "Parquet magic", "Invalid control")


def refused(call, *names):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(name in message for name in names) and "\n" not in message and not any(leak in message for leak in LEAKS), message


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights"
    files.write_with_sidecar(path, b"numbers", {"cfg.json": b"{}"})
    return path


def test_a_sidecar_lists_both_files_as_sha256sum_does_and_itself(weights):
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in (("cfg.json", b"{}"), ("weights", b"numbers"))}
    lines = "".join(f"{sums[name]}  {name}\n" for name in ("cfg.json", "weights"))
    told = (weights.parent / "weights.sha256").read_text()
    assert told == f"{lines}# sha256 of the lines above: {hashlib.sha256(lines.encode()).hexdigest()}\n"
    assert files.sidecar_checksums(weights, "") == sums
    assert weights.read_bytes() == b"numbers" and (weights.parent / "cfg.json").read_bytes() == b"{}"


def test_every_flip_and_every_cut_of_a_sidecar_is_refused_or_changes_nothing(weights):
    beside = files.sidecar(weights)
    whole, sums = beside.read_bytes(), files.sidecar_checksums(weights, "")
    flips = [whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :] for i in range(len(whole)) for bit in (i % 8, 5)]
    for data in flips + [whole[:length] for length in range(len(whole))]:
        beside.write_bytes(data)
        try:
            found = files.sidecar_checksums(weights, "write it again")
            assert found == sums or found["weights"] != sums["weights"], data  # cut to a sum alone: the weights do not match it
        except ValueError as error:
            assert "weights.sha256 is damaged" in str(error) and "write it again" in str(error)
    beside.write_bytes(b"")
    refused(
        lambda: files.sidecar_checksums(weights, "write it again"),
        "weights.sha256 is damaged: it has no checksum of weights: write it again",
    )
    beside.unlink()
    assert files.sidecar_checksums(weights, "") is None


@pytest.mark.parametrize("line", ["{}  weights\n", "{} *weights\n", "{}  ./weights\n", "{}", "{}\n", "{}  weights"])
def test_sidecars_of_earlier_versions_and_of_sha256sum_are_read(tmp_path, line):
    (tmp_path / "weights.sha256").write_text(line.format("0" * 64))
    assert files.sidecar_checksums(tmp_path / "weights", "") == {"weights": "0" * 64}


def test_a_listed_file_that_changed_is_refused(weights):
    files.check_sidecar(weights, "cfg.json", "fetch it again")
    (weights.parent / "cfg.json").write_bytes(b'{"k": 6}')
    refused(
        lambda: files.check_sidecar(weights, "cfg.json", "fetch it again"),
        "cfg.json does not match its sha256 in weights.sha256",
        "fetch it again",
    )
    files.write_with_sidecar(weights, b"numbers")
    files.check_sidecar(weights, "cfg.json", "")  # not listed


def test_json_lines_but_for_the_last_must_be_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [files.json_line({"step": n, "loss": [0.5]}) for n in range(3)]
    path.write_text("".join(lines))
    assert [r["step"] for r in files.read_json_lines(path)] == [0, 1, 2]
    for cut in range(1, len(lines[2])):  # by a kill
        path.write_text("".join(lines)[:-cut])
        assert [r["step"] for r in files.read_json_lines(path)] == ([0, 1, 2] if cut == 1 else [0, 1])
    for number, damage in ((2, "{"), (2, '"x"'), (2, ""), (2, "\udcff"), (1, "NaN1")):
        bad = [*lines]
        bad[number - 1] = damage + "\n"
        path.write_bytes("".join(bad).encode(errors="surrogateescape"))
        refused(
            lambda: files.read_json_lines(path), f"metrics.jsonl, line {number} is damaged", "put the file back from a copy, or --overwrite"
        )
    path.write_text("".join(lines[:2]) + '{"step": 2\n')  # a whole line: no kill cuts behind its end
    refused(lambda: files.read_json_lines(path), "line 3 is damaged: not JSON at line 1 column 11")
    path.write_text("")
    assert files.read_json_lines(path) == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON at line 1 column 1"),
        (b'{"a": 1,\n "b"}', "not JSON at line 2 column 5"),
        (b'{"a": "\xff"}', "byte 7 is no UTF-8"),
        (b"[" * 100_000, "its JSON is nested too deeply"),
        (b"9" * 5000, "a number in it has too many digits"),
    ],
)
def test_what_is_no_json_is_said_in_our_words(tmp_path, data, says):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    refused(lambda: files.read_json(path), f"x.json is damaged: {says}", "put it back from a copy, or make it again")
    refused(lambda: files.read_record(path, "train again", None), f"x.json is damaged: {says}", "train again")


def test_every_flip_of_a_record_is_refused(tmp_path):
    path = epath.Path(tmp_path / "x.json")
    files.write_record(path, {"scale": 0.5, "rounds": [[0, 3]]})
    whole = path.read_bytes()
    for i in range(len(whole)):
        for bit in (i % 8, 5):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << bit]) + whole[i + 1 :])
            try:
                read = files.read_record(path, "train again", unsealed={"scale", "rounds"})
            except ValueError as error:
                assert "x.json is damaged" in str(error) and "train again" in str(error)
            else:  # a blank for another
                assert read == {"scale": 0.5, "rounds": [[0, 3]]}
    deep = json.loads("[" * 700 + "]" * 700)
    path.write_text(json.dumps({"deep": deep, "sha256": "0" * 64}))
    refused(lambda: files.read_record(path, "train again", None), "x.json is damaged", "train again")


def test_a_damaged_table_is_refused_in_our_words(tmp_path):
    path = write_table(tmp_path / "t.parquet", {"a": [1, 2, 3]})
    whole = path.read_bytes()
    for data in (b"", whole[:-3], whole[:20] + whole[-8:], whole[:-30] + b"\xff" * 22 + whole[-8:]):
        path.write_bytes(data)
        refused(lambda: read_table(path), "t.parquet is damaged: not Parquet, or cut: make it again")
