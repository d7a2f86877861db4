"""Which activations an SAE is of, as its files tell it, in one record that is compared field by field.

Every format's module has `provenance(folder)`, which reads this record from names and configurations alone.  What a file does not
tell is unknown, and unknown is never equal.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath

from saes.formats.configuration import read_json

SAE, TRANSCODER, SKIP_TRANSCODER, CROSSCODER = "SAE", "transcoder", "skip transcoder", "crosscoder"
ALL_HEADS = "all"  # a hook that is of no single head
# Names of sites that formats share, once those of a format are translated.
SITES = ("embed", "resid_pre", "resid_mid", "resid_post", "attn_z", "attn_out", "mlp_in", "mlp_act", "mlp_out")
_TRANSLATED = {
    "input": "resid_pre", "output": "resid_post", "mlp": "mlp_out", "mlp.output": "mlp_out", "mlp.input": "mlp_in",
    "pre_feedforward_layernorm": "mlp_in", "pre_feedforward_layernorm.output": "mlp_in",
    "post_feedforward_layernorm": "mlp_out", "post_feedforward_layernorm.output": "mlp_out",
    "attn": "attn_out", "attention": "attn_out", "self_attn": "attn_out", "attn.output": "attn_out", "attention.output": "attn_out",
    "self_attn.output": "attn_out", "self_attn.o_proj.input": "attn_z", "attn.hook_z": "attn_z", "mlp.hook_post": "mlp_act",
    "ln2.hook_normalized": "mlp_in", "embed_tokens": "embed", "embed_in": "embed", "wte": "embed", "hook_embed": "embed",
} | {f"{hook}{name}": name for name in SITES for hook in ("", "hook_")}  # fmt: skip
_LAYER = re.compile(r"(?:^|(?<=[._]))(?:blocks|layers?|h)[._](\d{1,6})(?=$|[._])")
_MODULES = re.compile(r"((model|language_model|transformer|gpt_neox|bert|encoder|decoder|base_model)\.)*")  # what stands before a layer
_CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)(?:/snapshots/(\w+))?")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Models that go by two names.
_ALIASES = ((re.compile(r"^gemma-v(?=\d)"), "gemma-"), (re.compile(r"^gpt2-small$"), "gpt2"))


class Provenance(NamedTuple):
    """What the files of one SAE tell; "" and None: they do not.

    Attributes:
      model, revision: of the language model, as they call it.
      layer: counted from 0.
      site: one of `SITES`, or what the format calls it where no name in `SITES` is known for it.
      head: number of the attention head, or `ALL_HEADS`.
      input: hook that is read, in the format's words.
      output: site that is reconstructed, if it is another one than is read.
      kind: `SAE`, or what reconstructs something else than it reads.
      seed: of its training.
    """

    model: str = ""
    revision: str = ""
    layer: int | None = None
    site: str = ""
    head: str = ""
    input: str = ""
    output: str = ""
    kind: str = SAE
    seed: int | None = None


_ARRAYS = (".npy", ".npz", ".safetensors")

# The fields by which SAEs are compared, with the word for each.
COMPARED = {"model": "model", "revision": "model revision", "kind": "kind", "layer": "layer", "site": "site", "head": "head", "output": "output"}  # fmt: skip
_ALWAYS = ("model", "layer", "site")  # said to be unknown also where none of the SAEs tells


def place(hook: str) -> tuple[int | None, str]:
    """(layer, site) that a hook's name tells, whatever library named it: (None, "") of an empty one."""
    layer = _LAYER.search(hook)
    if not layer:
        last = hook.rsplit(".", 1)[-1]
        return None, "embed" if _TRANSLATED.get(last) == "embed" else _TRANSLATED.get(hook, hook)
    before, after = hook[: layer.start()], hook[layer.end() :].lstrip("._")
    if not after and not _MODULES.fullmatch(before):
        after = before.rstrip("._")  # resid_post_layer_3
    return int(layer[1]), _TRANSLATED.get(after, after) if after else "resid_post"  # a layer's module gives the stream behind it


def model_and_revision(model: str) -> tuple[str, str]:
    """(hub id, commit) of a folder in a hub's cache; ("", "") of a file of arrays; any other name as it is."""
    if model.endswith(_ARRAYS):  # SAEs trained on a user's arrays, whose file says nothing of the model
        return "", ""
    cached = _CACHED.search(model)
    return (f"{cached[1]}/{cached[2]}", cached[3] or "") if cached else (model, "")


def same_model(one: str, other: str) -> bool:
    """Whether two names are of one model: equal but for capitals, where one has no owner their last parts, known aliases aside."""
    owners, names = zip(*(_owner_and_name(name) for name in (one, other)), strict=True)
    return names[0] == names[1] and (owners[0] == owners[1] or "" in owners)


def differences(one: Provenance, other: Provenance, one_format: bool) -> list[tuple[str, Any, Any]]:
    """(what, value, other value) for every field that both tell and that differs.

    Args:
      one_format: sites without a name in `SITES` are compared too, since one format named both.
    """
    out = []
    for field, what in COMPARED.items():
        a, b = getattr(one, field), getattr(other, field)
        if not known(a) or not known(b) or (field == "model" and same_model(a, b)) or a == b:
            continue
        if field not in ("site", "output") or one_format or (a in SITES and b in SITES):
            out.append((what, a, b))
    return out


def remarks(told: Sequence[Provenance], formats: Sequence[str]) -> list[str]:
    """What could not be compared, a clause each: `layer unknown for 2 of 5 SAEs`."""
    out = []
    for field, what in COMPARED.items():
        values = [getattr(p, field) for p in told]
        if field == "output" or (field == "head" and set(values) <= {"", ALL_HEADS}):
            continue
        unknown = sum(not known(v) for v in values)
        if unknown and (field in _ALWAYS or unknown < len(told)):
            out.append(f"{what} unknown for {unknown} of {len(told)} SAEs")
    own_names = {(f, p.site) for f, p in zip(formats, told, strict=True) if p.site and p.site not in SITES}
    if own_names and len(set(formats)) > 1:
        out.append(
            f"site could not be compared between formats, no common name is known for {', '.join(sorted(repr(s) for _, s in own_names))}"
        )
    return out


def known(value: Any) -> bool:
    """Whether a field of a record is told."""
    return value is not None and value != ""


def completed(first: Provenance, second: Provenance) -> Provenance:
    """The first, with what it does not tell taken from the second."""
    return first._replace(**{name: getattr(second, name) for name in first._fields if not known(getattr(first, name))})


def refusal(told: Provenance) -> str:
    """What a reader says of something that is no SAE."""
    reads, output = (" ".join(name.split())[:80] for name in (told.input or "one site", told.output or "another one"))
    if told.kind == CROSSCODER:
        return f"a crosscoder: reads and reconstructs several layers at once ({reads}), which no measurement here can"
    skip = " with a skip connection" if told.kind == SKIP_TRANSCODER else ""
    return f"a transcoder{skip}: reads {reads}, reconstructs {output}; only decoders can be compared, without activations"


def configuration(path: epath.PathLike) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none. Raises ValueError naming a file that is no JSON."""
    path = epath.Path(path)
    found = read_json(path) if path.exists() else {}
    return found if isinstance(found, dict) else {}


def text(value: Any) -> str:
    """A string, "" for anything else."""
    return value if isinstance(value, str) else ""


def number(value: Any) -> int | None:
    """A whole number from 0, None for anything else."""
    return value if type(value) is int and value >= 0 else None


def entries(value: Any) -> list[Any]:
    """A list, an empty one for anything else."""
    return value if isinstance(value, list) else []


def agreed(path: epath.PathLike, what: str, *values: Any) -> Any:
    """The one value that is told, of fields that say the same thing; None where none is. Raises ValueError naming file, field and both values."""
    told = [v for v in values if known(v)]
    for v in told[1:]:
        if v != told[0]:
            raise ValueError(
                f"{path}: {what} is {str(told[0])[:80]!r} in one field and {str(v)[:80]!r} in another: correct the one that is wrong"
            )
    return told[0] if told else None


def _owner_and_name(model: str) -> tuple[str, str]:
    """In small letters; the owner is "" but for hub ids."""
    model = model_and_revision(model)[0].strip("/").lower()
    owner, _, name = model.rpartition("/")
    name = name or model
    for alias, usual in _ALIASES:
        name = alias.sub(usual, name)
    return owner if _HUB_ID.fullmatch(model) else "", name
