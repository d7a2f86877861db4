"""Are the figures of two checkouts the same, digit for digit? Runs the same studies in each and compares their summaries.

    python -m tests.compare_commits run --checkout=path/to/one --to=runs/one      # six studies, about 15 minutes on two cores
    python -m tests.compare_commits run --checkout=path/to/other --to=runs/other
    python -m tests.compare_commits compare runs/one runs/other                   # exit status 1 where a figure differs

A figure is a number anywhere in a `summary.json`; keys that only one side has are named too.
"""

import argparse
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

STUDIES = {
    "quickstart": ["--config=configs/quickstart.py"],
    "pool": ["--config=configs/pool.py:tiny"],
    "synthetic": ["--config=configs/synthetic.py:tiny"],
    "seed_factorial": ["--config=configs/seed_factorial.py:tiny"],
    "synthetic_causes": ["--config=configs/synthetic_causes.py:tiny"],
    "compare": ["--config=configs/compare.py", "--config.saes={to}/quickstart/train", "--config.source.activations={to}/quickstart/activations/eval"],
}  # fmt: skip


def run(checkout: pathlib.Path, to: pathlib.Path, studies: list[str]) -> None:
    """Runs the studies with a checkout's code; those that are done are skipped by the program itself."""
    for name in studies:
        flags = [flag.format(to=to) for flag in STUDIES[name]]
        subprocess.run([sys.executable, "-m", "launch.main", *flags, f"--workdir={to / name}"], cwd=checkout, check=True)


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """A line for every figure that differs, or that one side lacks."""
    out = []
    for name in STUDIES:
        paths = [folder / name / "summary.json" for folder in (one, other)]
        if not all(path.exists() for path in paths):
            out.append(f"{name}: no summary in {' and '.join(str(p.parent) for p in paths if not p.exists())}")
            continue
        a, b = (dict(_leaves(json.loads(path.read_text()), name)) for path in paths)
        for key in sorted(a.keys() | b.keys()):
            if key not in a or key not in b:
                out.append(f"{key}: only in {other if key not in a else one}")
            elif a[key] != b[key] and not (a[key] != a[key] and b[key] != b[key]):  # NaN is NaN
                out.append(f"{key}: {a[key]!r} and {b[key]!r}")
    return out


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{i}]")
    else:
        yield path, value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--checkout", type=pathlib.Path, required=True)
    running.add_argument("--to", type=pathlib.Path, required=True)
    running.add_argument("--studies", nargs="*", choices=list(STUDIES), default=list(STUDIES))
    comparing = commands.add_parser("compare")
    comparing.add_argument("folders", nargs=2, type=pathlib.Path)
    args = parser.parse_args()
    if args.command == "run":
        run(args.checkout.resolve(), args.to.resolve(), args.studies)
        return 0
    found = differences(*args.folders)
    print("\n".join(found) or "all figures are the same")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
