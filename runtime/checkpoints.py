"""The one adapter to orbax: asynchronous saves, a checksum manifest per step, and fall-back to the last good step.

Orbax commits a step atomically, but restores flipped bits in silence.  So every committed step gets a manifest of
sha256 sums beside it; a step that does not match its manifest, or has none (killed between commit and manifest), is
not used.  Training is deterministic: going back further costs time and changes nothing.
"""

import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath

from storage import ownership
from storage.files import read_json, sha256_file, write_json


class Checkpoints:
    """Checkpoints of a pytree of arrays under `folder`, newest `keep` kept."""

    def __init__(self, folder: epath.PathLike, keep: int = 2):
        self._folder = epath.Path(folder).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        ownership.note_checkpoints(self._folder)
        for stray in ownership.foreign_steps(self._folder):  # orbax would count it among its steps, and remove it
            raise ValueError(f"{stray} is no checkpoint of the program: move it out of {self._folder}")
        self._manifests = _manifests(self._folder)
        self._manifests.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._unsealed: int | None = None

    def save(self, step: int, state: Any) -> None:
        """Starts saving in the background. The state is copied first, so the caller may donate it at once."""
        self.wait()
        for later in [s for s in self._manager.all_steps() if s >= step]:
            self._manager.delete(later)  # not usable, or it had been restored; orbax saves no step before its latest
        self._manager.save(step, args=ocp.args.StandardSave(jax.tree.map(jnp.copy, state)))
        self._unsealed = step

    def poll(self) -> None:
        """Writes the manifest of a save that has finished meanwhile; cheap, for every dispatch."""
        if self._unsealed is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Blocks until the last save is committed and has its manifest."""
        self._manager.wait_until_finished()
        if self._unsealed is None:
            return
        write_json(self._manifest(self._unsealed), self._sums(self._unsealed))
        self._unsealed = None
        steps = {str(step) for step in self._manager.all_steps()}
        if jax.process_index() == 0:
            for manifest in self._manifests.glob("*.json"):
                if manifest.stem.isdigit() and manifest.stem not in steps and _is_manifest(manifest):
                    manifest.unlink()

    def restore_latest(self, like: Any) -> tuple[Any, int] | None:
        """The newest step whose files match their manifest, as (state, step); None if there is no good one.

        Args:
          like: a pytree of arrays or ShapeDtypeStructs (with sharding) of the same structure.

        Raises:
          ValueError: the checkpoint holds another structure or other shapes.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            problem = self._problem(step)
            if problem:
                print(f"checkpoint of step {step} not used: {problem}; falling back to an older one", file=sys.stderr)
                continue
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
            try:
                return self._manager.restore(step, args=ocp.args.StandardRestore(abstract)), step
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{self._folder / str(step)} does not fit this configuration: take another --workdir, or --overwrite"
                ) from error
        return None

    def close(self) -> None:
        self.wait()
        self._manager.close()

    def _manifest(self, step: int) -> epath.Path:
        return self._manifests / f"{step}.json"

    def _sums(self, step: int) -> dict[str, str]:
        root = self._folder / str(step)
        return {str(p.relative_to(root)): sha256_file(p) for p in sorted(_files_below(root))}

    def _problem(self, step: int) -> str | None:
        if not self._manifest(step).exists():
            return "no manifest (stopped between save and checksum)"
        try:
            manifest, sums = read_json(self._manifest(step)), self._sums(step)
        except ValueError:
            manifest, sums = None, {}
        if not isinstance(manifest, dict):
            return f"damaged manifest {self._manifest(step)}"
        wrong = sorted(name for name in manifest.keys() | sums.keys() if manifest.get(name) != sums.get(name))
        return f"damaged file {self._folder / str(step) / wrong[0]}" if wrong else None


def remove(folder: epath.PathLike) -> None:
    """Removes the checkpoints below a folder, with their manifests: nobody goes on from them. Nothing else that lies there."""
    folder = epath.Path(folder)
    if jax.process_index() != 0:
        return
    ownership.remove_checkpoints(folder)
    manifests = _manifests(folder)
    if manifests.is_dir():
        for path in manifests.glob("*.json"):
            if path.stem.isdigit() and _is_manifest(path):
                path.unlink()
        if not any(True for _ in manifests.iterdir()):
            manifests.rmdir()


def _manifests(folder: epath.Path) -> epath.Path:
    """Where the checksums of its steps lie."""
    return folder.parent / (folder.name + "_sha256")


def _is_manifest(path: epath.Path) -> bool:
    """Whether a file holds checksums and nothing else."""
    try:
        sums = read_json(path)
    except ValueError:
        return False
    return isinstance(sums, dict) and all(isinstance(s, str) and re.fullmatch("[0-9a-f]{64}", s) for s in sums.values())


def _files_below(folder: epath.Path) -> list[epath.Path]:
    """Recursive `glob` is refused by epath, for the sake of buckets; a checkpoint has few files."""
    return [q for p in folder.iterdir() for q in (_files_below(p) if p.is_dir() else [p])]
