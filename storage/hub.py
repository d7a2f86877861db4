"""Folders of a Hugging Face hub: fetched once, then read from its cache."""

import re
from collections.abc import Sequence

from etils import epath

_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def could_be_id(text: str) -> bool:
    """Whether a name has the form of a hub id, `name` or `owner/name`."""
    return bool(_ID.fullmatch(text)) and not text.startswith(".")


def fetch(repo: str, revision: str | None, patterns: Sequence[str], field: str) -> epath.Path:
    """The local folder of a repository at a revision, its files that match `patterns` fetched where they are not there.

    Args:
      revision: a commit, tag or branch; None: the default branch.
      field: the config field that names it, for messages.

    Raises:
      ValueError: it cannot be fetched; says why and how to do without the hub.
    """
    from huggingface_hub import snapshot_download  # slow to import, and needed where something is fetched alone

    try:
        return epath.Path(snapshot_download(repo, revision=revision or None, allow_patterns=list(patterns)))
    except Exception as error:  # what its HTTP client raises is not ours to list
        at = f" at revision {revision!r}" if revision else ""
        gated = (
            " (a gated one: accept its licence there and set HF_TOKEN)" if "Gated" in type(error).__name__ or "401" in str(error) else ""
        )
        raise ValueError(
            f"config.{field}: no file or folder {repo} on this machine; taken for a hub id{at} it could not be fetched either "
            f"({type(error).__name__}){gated}: pass the path of a folder that holds it"
        ) from error


def commit_of(folder: epath.PathLike) -> str:
    """The commit that a fetched folder is of, "" for any other folder."""
    path = epath.Path(folder)
    return path.name if path.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", path.name) else ""
