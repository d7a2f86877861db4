"""Runs stages in order; skips what is done, resumes what was begun, refuses to mix two configurations.

Each stage owns the folder `workdir/<stage>`.  Its record `stage.json` ties the results to the config fields and inputs
they depend on.  Inputs are the digests of what the stages before it wrote, so a stage that ran again and wrote the same
bytes leaves those after it standing.
"""

import hashlib
import json
import sys
import time
from typing import Any

import jax
import ml_collections
from etils import epath

from launch import files, signals
from launch.metrics import WallTimes
from launch.stages import STAGES, Stage

SUMMARY = "summary.json"


def run_stages(config: ml_collections.ConfigDict, settings: Any, workdir: epath.Path, only: list[str], overwrite: bool) -> None:
    """Runs `config.stages`, or of them those in `only`.

    Args:
      config: the resolved config, for the records.
      settings: the same, validated (`launch.config.Study` or `launch.config.Pretraining`), for the stages.

    Raises:
      ValueError: an unknown stage, a stage whose inputs are not there, or a workdir made with other guarded fields.
    """
    stages = [STAGES[name] for name in config.stages]
    if unknown := set(only) - {s.name for s in stages}:
        raise ValueError(f"--stages: {sorted(unknown)} not among this config's stages {list(config.stages)}")
    _make_workdir(workdir)
    records = {s.name: _read_record(workdir, s) for s in stages}
    if not overwrite:
        for stage in stages:
            _refuse_other_fields(stage, records[stage.name], _fields(config, stage), workdir)
    files.write_json(workdir / "config.json", json.loads(config.to_json_best_effort()))

    for stage in stages:
        if only and stage.name not in only:
            continue
        fingerprint = {"config": _fields(config, stage), "inputs": _inputs(stage, settings, records)}
        record = records[stage.name]
        if record is not None and record["fingerprint"] == fingerprint:
            if record["status"] == "done" and _outputs_stand(workdir, record):
                print(f"{stage.name}: done already, skipped")
                continue
        elif record is not None:
            if stage.guarded and not overwrite:
                raise ValueError(_changed_inputs(stage, record, fingerprint, workdir))
            print(f"{stage.name}: its config or inputs changed, running again")
            _remove_results(workdir / stage.name)
        records[stage.name] = _run_one(stage, settings, workdir, fingerprint)
    _merge_summaries(workdir, [s.name for s in stages])


def _run_one(stage: Stage, settings: Any, workdir: epath.Path, fingerprint: dict[str, Any]) -> dict[str, Any]:
    signals.raise_if_stop_requested(f"stopped before {stage.name}")
    folder = workdir / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"stage": stage.name, "status": "started", "fingerprint": fingerprint, "outputs": {}}
    files.write_json(folder / "stage.json", record)
    print(f"{stage.name}: running", flush=True)
    started = time.perf_counter()
    outputs = stage.run(settings, workdir)
    record["outputs"] = {str(p.relative_to(folder)): {"sha256": files.sha256_file(p), "bytes": p.stat().length} for p in sorted(outputs)}
    record["status"] = "done"
    files.write_json(folder / "stage.json", record)
    seconds = time.perf_counter() - started
    WallTimes(workdir / "wall_times.jsonl").write(what=f"stage {stage.name}", seconds=seconds, device=jax.devices()[0].device_kind)
    print(f"{stage.name}: done in {seconds:.1f} s", flush=True)
    return record


def _make_workdir(workdir: epath.Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        files.write_bytes(workdir / ".writable", b"")
        (workdir / ".writable").unlink()
    except OSError as error:
        raise ValueError(f"--workdir={workdir} cannot be written ({error.strerror or error})") from error


def _read_record(workdir: epath.Path, stage: Stage) -> dict[str, Any] | None:
    path = workdir / stage.name / "stage.json"
    return files.read_json(path) if path.exists() else None


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
            value = value[part]
        add(section, value)
    return flat


def _inputs(stage: Stage, settings: Any, records: dict[str, dict[str, Any] | None]) -> dict[str, str]:
    inputs = dict(stage.inputs(settings))
    for name in stage.after:
        record = records.get(name)
        if record is None or record["status"] != "done":
            raise ValueError(f"stage {stage.name!r} reads what {name!r} writes, and that has not finished: run it first")
        inputs[name] = hashlib.sha256(json.dumps(record["outputs"], sort_keys=True).encode()).hexdigest()
    return inputs


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


def _outputs_stand(workdir: epath.Path, record: dict[str, Any]) -> bool:
    """Whether every result is there in its full length (checksums are verified by whoever reads it)."""
    for name, entry in record["outputs"].items():
        path = workdir / record["stage"] / name
        if not path.exists() or path.stat().length != entry["bytes"]:
            print(f"{path} is missing or cut short: running {record['stage']!r} again", file=sys.stderr)
            return False
    return True


def _remove_results(folder: epath.Path) -> None:
    if jax.process_index() == 0 and folder.exists():
        folder.rmtree()


def _merge_summaries(workdir: epath.Path, stages: list[str]) -> None:
    """One `summary.json` from those of the stages that are done."""
    merged = {name: files.read_json(workdir / name / SUMMARY) for name in stages if (workdir / name / SUMMARY).exists()}
    if merged:
        files.write_json(workdir / SUMMARY, merged)
