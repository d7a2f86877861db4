"""Runs stages in order; skips what is done, resumes what was begun, refuses to mix two configurations.

Each stage owns the folder `workdir/<stage>`.  Its record (`launch.records`) ties the results to the config fields and inputs
they depend on.  Inputs are the digests of what the stages before it wrote, so a stage that ran again and wrote the same
bytes leaves those after it standing.  Results that are replaced are set aside first and removed when the new ones are complete.
"""

import json
import resource
import time
from typing import Any

import jax
import ml_collections
from etils import epath

from launch import records, signals, workdirs
from launch.metrics import WallTimes
from launch.records import Record
from launch.stages import STAGES, Stage
from storage import files, ownership

SUMMARY = "summary.json"


def run_stages(config: ml_collections.ConfigDict, settings: Any, workdir: epath.Path, only: list[str], overwrite: bool) -> None:
    """Runs `config.stages`, or of them those in `only`.

    Args:
      config: the resolved config, for the records.
      settings: the same, validated (of `launch.studies`), for the stages.

    Raises:
      ValueError: an unknown stage, a stage whose inputs are not there or out of date, a workdir made with other guarded
        fields, results of a guarded stage that are damaged, or a workdir or folder in it that is not the program's.
    """
    stages = [STAGES[name] for name in config.stages]
    if unknown := set(only) - {s.name for s in stages}:
        raise ValueError(f"--stages: {sorted(unknown)} not among this config's stages {list(config.stages)}")
    workdirs.refuse(workdir, STAGES, config.stages, _input_paths(config))
    workdirs.make(workdir)
    with workdirs.alone(workdir):
        _run_chosen(config, settings, workdir, stages, only, overwrite)


def _run_chosen(
    config: ml_collections.ConfigDict, settings: Any, workdir: epath.Path, stages: list[Stage], only: list[str], overwrite: bool
) -> None:
    on_disk = {s.name: records.read(workdir, s.name, s.guarded) for s in stages}
    mended = {s.name for s in stages if _take_later_fields(s, on_disk[s.name], _fields(config, s), workdir)}
    if not overwrite:
        for stage in stages:
            _refuse_other_fields(stage, on_disk[stage.name], _fields(config, stage), workdir)

    current: dict[str, Record] = {}  # records of stages whose results fit this config and are what they say
    for stage in stages:
        chosen = not only or stage.name in only
        record = on_disk[stage.name]
        missing = [name for name in stage.after if name in config.stages and name not in current]
        if missing and not chosen:
            continue
        if missing:
            raise ValueError(f"stage {stage.name!r} reads what {missing[0]!r} writes, which is not there or out of date: run that too")
        inputs = stage.inputs(settings) | {n: records.digest(current[n]) for n in stage.after if n in config.stages}
        fingerprint = {"config": _fields(config, stage), "inputs": inputs}
        same = record is not None and record["fingerprint"] == fingerprint
        if record is not None and not same and stage.guarded and not overwrite:
            raise ValueError(_changed_inputs(stage, record, fingerprint, workdir))
        done = record is not None and same and record["status"] == "done"
        damage = records.damage(workdir, record, everything=overwrite) if record is not None and done else None
        if damage and stage.guarded and not overwrite:
            raise ValueError(f"{damage}: put the file back from a copy, or --overwrite to run {stage.name!r} again")
        if record is not None and done and not damage:
            current[stage.name] = record
            if stage.name in mended:
                records.write(workdir, record)
            workdirs.remove_replaced(workdir / stage.name)
            if chosen:
                print(f"{stage.name}: done already, skipped")
        elif chosen:
            for name in stage.after:
                if name in current and (problem := _damage_of_large(workdir, current[name])):
                    raise ValueError(f"{problem}: put the file back from a copy, or --overwrite to run {name!r} again")
            why = damage or ("its config or inputs changed" if record is None or record["status"] != "lost" else "its record was lost")
            aside = None
            if record is not None and (damage or not same):
                aside = _set_aside(workdir / stage.name, why, overwrite)
            files.write_json(workdir / "config.json", json.loads(config.to_json_best_effort()))
            current[stage.name] = _run_one(stage, settings, workdir, fingerprint, aside)
            workdirs.remove_replaced(workdir / stage.name)
    files.write_json(workdir / "config.json", json.loads(config.to_json_best_effort()))
    _merge_summaries(workdir, list(current))


def _set_aside(folder: epath.Path, why: str, overwrite: bool) -> epath.Path | None:
    """Says so; of what was asked to be overwritten also how much it is."""
    target = workdirs.set_aside(folder)
    kept = f"; what was there ({ownership.size(target) / 1e6:,.1f} MB) is in {target} until the new result is complete" if target else ""
    print(f"{folder.name}: {why}, running again{kept if overwrite else ''}")
    return target


def _run_one(stage: Stage, settings: Any, workdir: epath.Path, fingerprint: dict[str, Any], aside: epath.Path | None) -> Record:
    signals.raise_if_stop_requested(f"stopped before {stage.name}")
    folder = workdir / stage.name
    record: Record = {"stage": stage.name, "status": "started", "fingerprint": fingerprint, "outputs": {}}
    print(f"{stage.name}: running", flush=True)
    started = time.perf_counter()
    with ownership.recording(folder):
        records.write(workdir, record)
        try:
            with jax.default_matmul_precision("default" if stage.training else "highest"):
                outputs = stage.run(settings, workdir)
        except Exception:
            if not _holds_work(folder):  # a wrong path or value corrected must not meet a workdir that is taken
                ownership.remove(folder, [records.NAME])
                records.forget(workdir, stage.name)
                workdirs.put_back(folder, aside)
            raise
        record = {**record, "outputs": records.outputs(folder, outputs), "status": "done"}
        records.write(workdir, record)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of the process so far; Linux counts in KiB
    walls = WallTimes(workdir / "wall_times.jsonl")
    walls.write(what=f"stage {stage.name}", seconds=seconds, peak_memory_gib=peak, device=jax.devices()[0].device_kind)
    print(f"{stage.name}: done in {seconds:.1f} s", flush=True)
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


_PATHS = (
    "source.text",
    "source.root",
    "source.activations",
    "source.eval_activations",
    "lm.path",
    "stability.dictionaries",
    "saes",
    "newcomers",
)


def _input_paths(config: ml_collections.ConfigDict) -> list[tuple[str, str]]:
    """What a config reads from outside: (field, path), a field with commas once a path."""
    found = []
    for field in _PATHS:
        value: Any = config
        for part in field.split("."):
            value = value.get(part, "") if isinstance(value, ml_collections.ConfigDict) else ""
        for place in str(value or "").split(","):
            if place.strip():
                found.append((field, place.strip()))
    return found


def _take_later_fields(stage: Stage, record: Record | None, fields: dict[str, Any], workdir: epath.Path) -> bool:
    """Whether a guarded stage's record lacks fields that were declared after it was written; puts them in as they are now, and says so.

    Nobody knows what they were, and the results of a dear stage are not thrown away for that. From then on another value is refused.
    """
    if record is None or not stage.guarded:
        return False
    was = record["fingerprint"]["config"]
    absent = {name: fields[name] for name in sorted(fields.keys() - was.keys()) if any(_within(name, field) for field in stage.later)}
    if absent:
        was |= absent
        shown = ", ".join(f"config.{name}={value!r}" for name, value in absent.items())
        print(f"{stage.name}: the record of {workdir / stage.name} is older than some fields, taken to have been as now: {shown}")
    return bool(absent)


def _within(name: str, field: str) -> bool:
    return name == field or name.startswith(f"{field}.")


def _refuse_other_fields(stage: Stage, record: Record | None, fields: dict[str, Any], workdir: epath.Path) -> None:
    if record is None or not stage.guarded:
        return
    was = record["fingerprint"]["config"]
    for name in sorted(was.keys() | fields.keys()):
        if was.get(name) != fields.get(name):
            folder = workdir / stage.name
            for earlier in workdirs.replaced(folder):
                if records.fields(earlier, stage.name) == fields:
                    raise ValueError(
                        f"{folder} is of config.{name}={was.get(name)!r}, {earlier} of {fields.get(name)!r}: move it to {folder} to go on with it"
                    )
            raise ValueError(
                f"{workdir} was made with config.{name}={was.get(name)!r}, now {fields.get(name)!r}: "
                f"take another --workdir, or --overwrite to replace the results of {stage.name!r} and after"
            )


def _changed_inputs(stage: Stage, record: Record, fingerprint: dict[str, Any], workdir: epath.Path) -> str:
    was, now = record["fingerprint"]["inputs"], fingerprint["inputs"]
    changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    return (
        f"{workdir / stage.name} was made from other inputs ({', '.join(changed)} changed): "
        f"take another --workdir, or --overwrite to run {stage.name!r} again"
    )


def _damage_of_large(workdir: epath.Path, record: Record) -> str | None:
    """Of results too large to be verified on every start: what is wrong with those that a stage is about to read."""
    for name in records.unverified(record):
        path = workdir / record["stage"] / name
        if files.sha256_file(path) != record["outputs"][name]["sha256"]:
            return f"{path} does not match its sha256"
    return None


def _holds_work(folder: epath.Path) -> bool:
    """Whether a stage has written anything but its record."""
    own = {records.NAME, *(p.name for p in ownership.lists(folder))}
    return any(_holds_work(p) if p.is_dir() else p.name not in own for p in folder.iterdir())


def _merge_summaries(workdir: epath.Path, stages: list[str]) -> None:
    """One `summary.json` from those of the given stages."""
    merged = {name: files.read_json(workdir / name / SUMMARY) for name in stages if (workdir / name / SUMMARY).exists()}
    if merged:
        files.write_json(workdir / SUMMARY, merged)
