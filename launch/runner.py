"""Runs stages in order; skips what is done, resumes what was begun, refuses to mix two configurations.

Each stage owns the folder `workdir/<stage>`.  Its record `stage.json` ties the results to the config fields and inputs
they depend on.  Inputs are the digests of what the stages before it wrote, so a stage that ran again and wrote the same
bytes leaves those after it standing.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import resource
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
from etils import epath

from launch import signals
from launch.metrics import WallTimes
from launch.stages import STAGES, Stage
from storage import files

SUMMARY = "summary.json"


def run_stages(config: ml_collections.ConfigDict, settings: Any, workdir: epath.Path, only: list[str], overwrite: bool) -> None:
    """Runs `config.stages`, or of them those in `only`.

    Args:
      config: the resolved config, for the records.
      settings: the same, validated (of `launch.studies`), for the stages.

    Raises:
      ValueError: an unknown stage, a stage whose inputs are not there or out of date, a workdir made with other guarded
        fields, or results of a guarded stage that are damaged.
    """
    stages = [STAGES[name] for name in config.stages]
    if unknown := set(only) - {s.name for s in stages}:
        raise ValueError(f"--stages: {sorted(unknown)} not among this config's stages {list(config.stages)}")
    _make_workdir(workdir)
    with _alone_in(workdir):
        _run_chosen(config, settings, workdir, stages, only, overwrite)


def _run_chosen(
    config: ml_collections.ConfigDict, settings: Any, workdir: epath.Path, stages: list[Stage], only: list[str], overwrite: bool
) -> None:
    records = {s.name: _read_record(workdir, s) for s in stages}
    if not overwrite:
        for stage in stages:
            _refuse_other_fields(stage, records[stage.name], _fields(config, stage), workdir)

    current: dict[str, dict[str, Any]] = {}  # records of stages whose results fit this config
    for stage in stages:
        chosen = not only or stage.name in only
        record = records[stage.name]
        missing = [name for name in stage.after if name in config.stages and name not in current]
        if missing and not chosen:
            continue
        if missing:
            raise ValueError(f"stage {stage.name!r} reads what {missing[0]!r} writes, which is not there or out of date: run that too")
        inputs = stage.inputs(settings) | {n: _digest(current[n]) for n in stage.after if n in config.stages}
        fingerprint = {"config": _fields(config, stage), "inputs": inputs}
        same = record is not None and record["fingerprint"] == fingerprint
        if record is not None and not same and stage.guarded and not overwrite:
            raise ValueError(_changed_inputs(stage, record, fingerprint, workdir))
        done = record is not None and same and record["status"] == "done"
        damage = _damage(workdir, record, verify=overwrite) if record is not None and done else None
        if record is not None and done and not damage:
            current[stage.name] = record
            if chosen:
                print(f"{stage.name}: done already, skipped")
        elif chosen:
            if damage and stage.guarded and not overwrite:
                raise ValueError(f"{damage}: --overwrite to run {stage.name!r} again")
            if record is not None and (damage or not same):
                print(f"{stage.name}: {damage or 'its config or inputs changed'}, running again")
            if record is None or damage or not same:
                _remove_results(workdir / stage.name)
            files.write_json(workdir / "config.json", json.loads(config.to_json_best_effort()))
            current[stage.name] = _run_one(stage, settings, workdir, fingerprint)
    files.write_json(workdir / "config.json", json.loads(config.to_json_best_effort()))
    _merge_summaries(workdir, list(current))


def _run_one(stage: Stage, settings: Any, workdir: epath.Path, fingerprint: dict[str, Any]) -> dict[str, Any]:
    signals.raise_if_stop_requested(f"stopped before {stage.name}")
    folder = workdir / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"stage": stage.name, "status": "started", "fingerprint": fingerprint, "outputs": {}}
    files.write_json(folder / "stage.json", record)
    print(f"{stage.name}: running", flush=True)
    started = time.perf_counter()
    try:
        with jax.default_matmul_precision("default" if stage.training else "highest"):
            outputs = stage.run(settings, workdir)
    except (ValueError, OSError):
        if not _holds_work(folder):
            _remove_results(folder)  # a wrong path or value corrected must not meet a workdir that is taken
        raise
    record["outputs"] = {str(p.relative_to(folder)): {"sha256": files.sha256_file(p), "bytes": p.stat().length} for p in sorted(outputs)}
    record["status"] = "done"
    files.write_json(folder / "stage.json", record)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of the process so far; Linux counts in KiB
    walls = WallTimes(workdir / "wall_times.jsonl")
    walls.write(what=f"stage {stage.name}", seconds=seconds, peak_memory_gib=peak, device=jax.devices()[0].device_kind)
    print(f"{stage.name}: done in {seconds:.1f} s", flush=True)
    return record


def _make_workdir(workdir: epath.Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
            files.write_bytes(workdir / ".writable", b"")
            (workdir / ".writable").unlink()
    except OSError as error:
        raise ValueError(f"--workdir={workdir} cannot be written ({error.strerror or error})") from error


@contextlib.contextmanager
def _alone_in(workdir: epath.Path) -> Iterator[None]:
    """While this process works there: two in one workdir would write over each other. Only of a folder on this machine, and its first host's.

    Raises:
      ValueError: another process runs there.
    """
    if jax.process_index() != 0 or not os.path.isdir(workdir):
        yield
        return
    with open(os.path.join(workdir, ".lock"), "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"--workdir={workdir}: another process runs there; wait for it, or take another workdir") from error
        yield


def _read_record(workdir: epath.Path, stage: Stage) -> dict[str, Any] | None:
    path = workdir / stage.name / "stage.json"
    if not path.exists():
        return None
    record = files.read_json(path)
    if not isinstance(record, dict) or not {"stage", "status", "fingerprint", "outputs"} <= record.keys():
        raise ValueError(f"{path} is damaged: no record of a stage; remove {path.parent} to run {stage.name!r} again")
    return record


def _fields(config: ml_collections.ConfigDict, stage: Stage) -> dict[str, Any]:
    """The config fields of a stage, flat: {'train.batch_size': 1024, …}."""
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix}.{key}", inner)
        else:
            flat[prefix] = value

    resolved = json.loads(config.to_json_best_effort())
    for section in stage.sections:
        value = resolved
        for part in section.split("."):
            value = value.get(part, {})  # {}: of another kind of study
        add(section, value)
    return flat


def _digest(record: dict[str, Any]) -> str:
    """Of a stage's results: what the stages after it depend on."""
    return hashlib.sha256(json.dumps(record["outputs"], sort_keys=True).encode()).hexdigest()


def _refuse_other_fields(stage: Stage, record: dict[str, Any] | None, fields: dict[str, Any], workdir: epath.Path) -> None:
    if record is None or not stage.guarded:
        return
    was = record["fingerprint"]["config"]
    for name in sorted(was.keys() | fields.keys()):
        if was.get(name) != fields.get(name):
            raise ValueError(
                f"{workdir} was made with config.{name}={was.get(name)!r}, now {fields.get(name)!r}: "
                f"take another --workdir, or --overwrite to lose the results of {stage.name!r} and after"
            )


def _changed_inputs(stage: Stage, record: dict[str, Any], fingerprint: dict[str, Any], workdir: epath.Path) -> str:
    was, now = record["fingerprint"]["inputs"], fingerprint["inputs"]
    changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    return (
        f"{workdir / stage.name} was made from other inputs ({', '.join(changed)} changed): "
        f"take another --workdir, or --overwrite to run {stage.name!r} again"
    )


def _damage(workdir: epath.Path, record: dict[str, Any], verify: bool) -> str | None:
    """What is wrong with a stage's results, if anything: a file that is missing or cut, with `verify` also changed."""
    for name, entry in record["outputs"].items():
        path = workdir / record["stage"] / name
        if not path.exists() or path.stat().length != entry["bytes"]:
            return f"{path} is missing or cut short"
        if verify and files.sha256_file(path) != entry["sha256"]:
            return f"{path} does not match its sha256"
    return None


def _holds_work(folder: epath.Path) -> bool:
    """Whether a stage has written anything but its record."""
    return any(_holds_work(p) if p.is_dir() else p.name != "stage.json" for p in folder.iterdir())


def _remove_results(folder: epath.Path) -> None:
    """Out of the way in one step first: a kill half-way must not leave a part that looks like a fresh or a finished stage."""
    removed = folder.with_name(folder.name + ".removed")
    if jax.process_index() != 0:
        return
    if removed.exists():
        removed.rmtree()
    if folder.exists():
        folder.rename(removed)
        removed.rmtree()


def _merge_summaries(workdir: epath.Path, stages: list[str]) -> None:
    """One `summary.json` from those of the given stages."""
    merged = {name: files.read_json(workdir / name / SUMMARY) for name in stages if (workdir / name / SUMMARY).exists()}
    if merged:
        files.write_json(workdir / SUMMARY, merged)
