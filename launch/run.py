"""Runs the tasks of a config in order; skips what is done, resumes what was begun, refuses to mix two configurations.

Each task owns the folder `workdir/<label>`.  Its record (`runtime.records`) ties the results to the config fields and inputs
they depend on.  Inputs are the digests of what the tasks before it wrote, so a task that ran again and wrote the same
bytes leaves those after it standing.  Results that are replaced are set aside first and removed when the new ones are complete.
"""

import json
import resource
import time
from typing import Any

import jax
import ml_collections
from etils import epath

from experiments import registry
from experiments.fields import fields_of
from experiments.settings import Settings
from experiments.stage import SUMMARY, Outputs, Task
from launch import own_process
from runtime import interrupts, parts, records, workdirs
from runtime.metrics import WallTimes
from runtime.records import Record
from storage import files, ownership

Fingerprint = dict[str, Any]


def run(config: ml_collections.ConfigDict, settings: Settings, workdir: epath.Path, only: list[str], start: str, overwrite: bool) -> None:
    """Runs what a config asks for, or a part of it.

    Args:
      config: the resolved config, for the records.
      settings: the same, validated.
      only: stages, runs or labels (a run and its stage, as 'gaussian/train'); []: all.
      start: a stage or label from which on all run that depend on it; "": all.

    Raises:
      ValueError: an unknown stage, one whose inputs are not there or out of date, a workdir made with other guarded
        fields, results of a guarded stage that are damaged, or a workdir or folder in it that is not the program's.
    """
    tasks = registry.tasks(settings, workdir)
    selection = _select(tasks, only, start)
    labels = [t.label for t in tasks]
    workdirs.refuse(workdir, [*registry.house().stages, *labels], labels, list(dict.fromkeys(p for t in tasks for p in t.paths())))
    workdirs.make(workdir)
    with workdirs.alone(workdir):
        _run_selection(config, settings, tasks, selection, overwrite)


def _select(tasks: list[Task], only: list[str], start: str) -> set[str]:
    """Labels of the tasks that run."""
    labels = [t.label for t in tasks]
    matching = lambda name: [label for label in labels if label == name or label.startswith(f"{name}/")]
    for flag, names in (("--stages", only), ("--from", [start] if start else [])):
        if unknown := [name for name in names if not matching(name)]:
            raise ValueError(f"{flag}: {unknown[0]!r} is not among this config's stages {labels}: config.stages names what a config does")
    selection = {label for name in only for label in matching(name)} or set(labels)
    if start:
        downstream = set(matching(start))
        for task in tasks:
            if downstream & set(_sources(task)):
                downstream.add(task.label)
        selection &= downstream
    return selection


def _sources(task: Task) -> list[str]:
    """Labels of the tasks that a task reads."""
    return [label for label in dict.fromkeys(label for labels in task.sources.values() for label in labels) if label != task.label]


def _run_selection(config: ml_collections.ConfigDict, settings: Settings, tasks: list[Task], selection: set[str], overwrite: bool) -> None:
    workdir = tasks[0].root
    on_disk = {t.label: records.read(workdir, t.label, t.stage.guarded) for t in tasks}
    mended = {t.label for t in tasks if _take_new_fields(t, on_disk[t.label])}
    if not overwrite:
        for task in tasks:
            _refuse_other_fields(task, on_disk[task.label])

    current: dict[str, Record] = {}  # records of tasks whose results fit this config and are what they say
    for task in tasks:
        record, stage = on_disk[task.label], task.stage
        missing = [label for label in _sources(task) if label not in current]
        if missing and task.label not in selection:
            continue
        if missing:
            also = [label for label in missing if label not in selection] or missing
            raise ValueError(
                f"stage {task.label!r} reads what {', '.join(map(repr, also))} write{'s' * (len(also) == 1)}, which is not there or out of date: "
                f"run that too, with --stages={','.join([*also, task.label])}"
            )
        inputs = task.inputs() | {label: records.digest(current[label]) for label in _sources(task)}
        fingerprint = {"config": _plain(task.fingerprint()), "inputs": inputs}
        same = record is not None and record["fingerprint"] == fingerprint
        if record is not None and not same and stage.guarded and not overwrite:
            raise ValueError(_changed_inputs(task, record, fingerprint))
        done = record is not None and same and record["status"] == "done"
        damage = records.damage(workdir, record, everything=overwrite) if record is not None and done else None
        if damage and stage.guarded and not overwrite:
            raise ValueError(f"{damage}: put the file back from a copy, or --overwrite to run {task.label!r} again")
        if record is not None and done and not damage:
            current[task.label] = record
            if task.label in mended:
                records.write(workdir, record)
            workdirs.remove_replaced(task.folder, task.label)
            parts.remove(task.folder)  # of a stage that was killed when it was complete
            if task.label in selection:
                print(f"{task.label}: done already, skipped")
        elif task.label in selection:
            for label in _sources(task):
                if problem := _damage_of_large(workdir, current[label]):
                    raise ValueError(f"{problem}: put the file back from a copy, or --overwrite to run {label!r} again")
            interrupts.raise_if_stop_requested(f"stopped before {task.label}")  # before anything is moved
            why = damage or ("its config or inputs changed" if record is None or record["status"] != "lost" else "its record was lost")
            old_results = None
            if record is not None and (damage or not same):
                old_results = _set_aside(task, why, overwrite)
            current[task.label] = _run_one(task, fingerprint, old_results, config)
            workdirs.remove_replaced(task.folder, task.label)
    files.write_json(workdir / "config.json", json.loads(config.to_json_best_effort()))
    _merge_summaries(workdir, list(current))
    stale = [t.label for t in tasks if t.label not in current and on_disk[t.label] is not None]
    if stale:
        print(f"of other settings, and not part of the summary: {', '.join(stale)} (--from={stale[0]} runs them again)")


def _set_aside(task: Task, why: str, overwrite: bool) -> epath.Path | None:
    """Says so; of what was asked to be overwritten also how much it is."""
    target = workdirs.set_aside(task.folder)
    remark = f"; what was there ({ownership.size(target) / 1e6:,.1f} MB) is in {target} until the new result is complete" if target else ""
    print(f"{task.label}: {why}, running again{remark if overwrite else ''}")
    return target


def _run_one(task: Task, fingerprint: Fingerprint, old_results: epath.Path | None, config: ml_collections.ConfigDict) -> Record:
    workdir, folder = task.root, task.folder
    record: Record = {"stage": task.label, "status": "started", "fingerprint": fingerprint, "outputs": {}}
    print(f"{task.label}: running", flush=True)
    started = time.perf_counter()
    with ownership.recording(folder):
        try:
            files.write_json(workdir / "config.json", json.loads(config.to_json_best_effort()))
            records.write(workdir, record)
            if own_process.is_wanted(task):
                own_process.run(task)
            paths = outputs_of(task)
        except Exception:
            if not folder.exists() or not _holds_work(folder):  # a wrong path or value corrected must not meet a workdir that is taken
                ownership.remove(folder, [records.NAME])
                records.forget(workdir, task.label)
                workdirs.put_back(folder, old_results)
            raise
        record = {**record, "outputs": records.outputs(folder, paths), "status": "done"}
        records.write(workdir, record)
        parts.remove(folder)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of the process so far; Linux counts in KiB
    walls = WallTimes(workdir / "wall_times.jsonl")
    walls.write(what=f"stage {task.label}", seconds=seconds, peak_memory_gib=peak, device=jax.devices()[0].device_kind)
    print(f"{task.label}: done in {seconds:.1f} s", flush=True)
    return record


def outputs_of(task: Task) -> list[epath.Path]:
    """Runs a task in this process; returns the files that are its results."""
    out = Outputs(task.folder)
    with jax.default_matmul_precision("default" if task.stage.training else "highest"):
        task.stage.function("run")(task, out)
    return out.paths


def _plain(values: Any) -> Any:
    """As a record holds it."""
    return json.loads(json.dumps(values))


def _take_new_fields(task: Task, record: Record | None) -> bool:
    """Whether a guarded task's record lacks fields that were declared after it was written; puts those in that are at their default, which is how it
    was before there was the field, and says so.

    The results of a dear stage are not thrown away for that; another value is refused. Fields that are declared no more are left out.
    """
    if record is None or not task.stage.guarded:
        return False
    was, now = record["fingerprint"]["config"], _plain(task.fingerprint())
    default = _plain({f.path: f.default for cls in task.classes for f in fields_of(cls)})
    absent = {name: now[name] for name in sorted(now.keys() - was.keys()) if now[name] == default[name]}
    lacking = was.keys() - now.keys()
    record["fingerprint"]["config"] = {name: value for name, value in (was | absent).items() if name in now}
    if absent:
        fields = ", ".join(f"config.{name}={value!r}" for name, value in absent.items())
        print(f"{task.label}: the record of {task.folder} is older than some fields, taken to have been as now: {fields}")
    return bool(absent or lacking)


def _refuse_other_fields(task: Task, record: Record | None) -> None:
    if not task.stage.guarded:
        return
    now = _plain(task.fingerprint())
    if record is None:  # a run that was to replace results may have been stopped before it began
        for earlier in workdirs.replaced(task.folder):
            if records.fields(earlier, task.label) == now:
                raise ValueError(f"{task.folder} is not there, but {earlier} is of this config: move it to {task.folder} to go on with it")
        return
    was = record["fingerprint"]["config"]
    for name in sorted(was.keys() | now.keys()):
        if was.get(name) != now.get(name):
            folder = task.folder
            for earlier in workdirs.replaced(folder):
                if records.fields(earlier, task.label) == now:
                    raise ValueError(
                        f"{folder} is of config.{name}={was.get(name)!r}, {earlier} of {now.get(name)!r}: move it to {folder} to go on with it"
                    )
            origin = f"with config.{name}={was[name]!r}" if name in was else f"before there was config.{name}"
            raise ValueError(
                f"{task.root} was made {origin}, now {now.get(name)!r}: "
                f"take another --workdir, or --overwrite to replace the results of {task.label!r} and after"
            )


def _changed_inputs(task: Task, record: Record, fingerprint: Fingerprint) -> str:
    was, now = record["fingerprint"]["inputs"], fingerprint["inputs"]
    changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    return (
        f"{task.folder} was made from other inputs ({', '.join(changed)} changed): "
        f"take another --workdir, or --overwrite to run {task.label!r} again"
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


def _merge_summaries(workdir: epath.Path, labels: list[str]) -> None:
    """One `summary.json` from those of the given tasks."""
    merged = {label: files.read_json(workdir / label / SUMMARY) for label in labels if (workdir / label / SUMMARY).exists()}
    if merged:
        files.write_json(workdir / SUMMARY, merged)
