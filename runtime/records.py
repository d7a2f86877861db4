"""The record of a stage: what its results depend on, and the checksum of each; read, mended, and held against what is on disk.

`<stage>/stage.json` carries its own checksum and has a copy in `.records/`: one that is lost or damaged is written again from the other,
where the files that it lists are what it says.
"""

from typing import Any

import jax
from etils import epath

from storage import files, ownership

NAME = "stage.json"
COPIES = ".records"
VERIFIED = 64 * 2**20  # bytes: outputs below that are verified on every start, larger ones before a stage reads them
OF_A_STAGE = 2 * 2**30  # bytes of a stage's outputs that are verified on every start, the smallest first
_KEYS = {"stage", "status", "fingerprint", "outputs"}

Record = dict[str, Any]


class NotOurs(ValueError):
    """A folder that a stage would write to holds files, and nothing says that they are the program's."""


def read(workdir: epath.Path, stage: str, guarded: bool) -> Record | None:
    """The record of a stage; None: it has none and its folder is empty or not there, or what is there is the program's and cheap to make again.

    Raises:
      NotOurs: files without a record, or with a damaged one of a guarded stage whose copy does not vouch for them.
    """
    folder = workdir / stage
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise NotOurs(f"{folder} is a file, and the stage {stage!r} writes a folder of that name: take another --workdir, or move it away")
    path, copy = folder / NAME, workdir / COPIES / f"{stage}.json"
    record = _valid(path, stage)
    if record is not None:
        other = _valid(copy, stage)
        if (
            other is not None
            and other != record
            and damage(workdir, record, everything=True)
            and not damage(workdir, other, everything=True)
        ):
            files.write_record(path, other)
            print(f"{stage}: {path} is of other results, and is written again from {copy}, whose files are there")
            return other
        if other != record:
            files.write_record(copy, record)
        return record
    if not any(True for _ in folder.iterdir()):
        return None
    state = "damaged" if path.exists() else "not there"
    record = _valid(copy, stage)
    if record is not None and (problem := damage(workdir, record, everything=True)) is None:
        files.write_record(path, record)
        print(f"{stage}: {path} was {state}, and is written again from {copy}; {len(record['outputs'])} files are what it says")
        return record
    if not guarded and (record is not None or ownership.written(folder)):
        return {"stage": stage, "status": "lost", "fingerprint": {}, "outputs": {} if record is None else record["outputs"]}
    because = f" and {problem}" if record is not None else ""
    raise NotOurs(
        f"{folder} holds files, its record {NAME} is {state}{because}: put {NAME} back from a copy of the workdir, "
        f"or move {folder} away (nothing in it is removed) and run again"
    )


def write(workdir: epath.Path, record: Record) -> None:
    """Both the stage's record and its copy."""
    files.write_record(workdir / COPIES / f"{record['stage']}.json", record)
    files.write_record(workdir / record["stage"] / NAME, record)


def forget(workdir: epath.Path, stage: str) -> None:
    """Removes the copy of a record."""
    copy = workdir / COPIES / f"{stage}.json"
    if copy.exists() and jax.process_index() == 0:
        copy.unlink()


def outputs(folder: epath.Path, paths: list[epath.Path]) -> dict[str, dict[str, Any]]:
    """Checksum and bytes of a stage's results, by name."""
    return {str(p.relative_to(folder)): {"sha256": files.sha256_file(p), "bytes": p.stat().length} for p in sorted(paths)}


def files_of(folder: epath.Path, stage: str) -> list[str]:
    """Files of a stage's folder, wherever it was moved to, that its record says are the program's."""
    record = _valid(folder / NAME, stage)
    return [] if record is None else [NAME, *record["outputs"]]


def fields(folder: epath.Path, stage: str) -> dict[str, Any] | None:
    """Config fields that the results in a stage's folder, wherever it was moved to, were made with; None: no record of finished results."""
    record = _valid(folder / NAME, stage)
    return record["fingerprint"]["config"] if record is not None and record["status"] == "done" else None


def digest(record: Record) -> str:
    """Of a stage's results: what the stages after it depend on."""
    return files.digest(record["outputs"])


def damage(workdir: epath.Path, record: Record, everything: bool = False) -> str | None:
    """What is wrong with a stage's results, if anything: a file that is missing, cut, or does not match its checksum.

    Args:
      everything: verifies large files too.
    """
    budget = OF_A_STAGE
    for name, entry in sorted(record["outputs"].items(), key=lambda item: (item[1]["bytes"], item[0])):
        path = workdir / record["stage"] / name
        if not path.exists() or (length := path.stat().length) < entry["bytes"]:
            return f"{path} is missing or cut short"
        if length > entry["bytes"] or path.is_dir():
            return f"{path} is not the file of {entry['bytes']:,} bytes that was written"
        budget -= entry["bytes"]
        if (everything or _on_start(entry, budget)) and files.sha256_file(path) != entry["sha256"]:
            return f"{path} does not match its sha256"
    return None


def unverified(record: Record) -> list[str]:
    """Outputs that `damage` leaves to whoever reads them and that nobody else verifies: neither rows with block checksums nor files with a side-car."""
    budget, names = OF_A_STAGE, []
    for name, entry in sorted(record["outputs"].items(), key=lambda item: (item[1]["bytes"], item[0])):
        budget -= entry["bytes"]
        checked_by_readers = f"{name}.sha256" in record["outputs"] or epath.Path(name).name.startswith("shard-")
        if not _on_start(entry, budget) and not checked_by_readers:
            names.append(name)
    return names


def _on_start(entry: dict[str, Any], budget: int) -> bool:
    return entry["bytes"] < VERIFIED and budget >= 0


def _valid(path: epath.Path, stage: str) -> Record | None:
    """A record that is whole and of this stage."""
    if not path.exists():
        return None
    try:
        record = files.read_record(path, "", unsealed=_KEYS)
    except (ValueError, OSError):
        return None
    return record if record.keys() == _KEYS and record["stage"] == stage and _well_formed(record) else None


def _well_formed(record: Record) -> bool:
    """Whether what is in a record has the types that the program writes: one without a checksum could hold anything."""
    made_from, results = record["fingerprint"], record["outputs"]
    if not isinstance(made_from, dict) or not isinstance(results, dict) or record["status"] not in ("started", "done"):
        return False
    if not isinstance(made_from.get("config"), dict) or not isinstance(made_from.get("inputs"), dict):
        return False
    entries = [isinstance(e, dict) and isinstance(e.get("sha256"), str) and isinstance(e.get("bytes"), int) for e in results.values()]
    return all(entries) and (bool(results) or record["status"] == "started")
