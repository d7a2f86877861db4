"""Flags, parsed so that whatever is wrong with them comes out as one line."""

import os
import sys
from collections import Counter

from absl import flags


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with one line for all that it and the config file raise; refuses a flag given twice and a stray word."""
    given = Counter(arg.split("=")[0].lstrip("-") for arg in argv[1:] if arg.startswith("--"))
    try:
        configs = [arg.removeprefix("--config=").split(":")[0] for arg in argv[1:] if arg.startswith("--config=")]
        if missing := [path for path in configs if not os.path.isfile(path)]:
            raise flags.Error(f"no config file {missing[0]}")
        if repeated := [name for name, count in given.items() if count > 1]:
            raise flags.Error(f"--{repeated[0]} is given more than once")
        if stray := flags.FLAGS(argv)[1:]:
            raise flags.Error(f"{stray[0]!r} is no flag: all arguments have the form --name=value")
        return argv[:1]
    except AttributeError as error:
        said = " ".join(str(error).replace("\\n", " ").replace("\\'", "").split()).strip("\"'")
        print(f"error: the config has no field {said}; `configs/default.py` lists them", file=sys.stderr)
    except (flags.Error, ValueError, OSError) as error:
        lines = str(error).strip().splitlines()  # the last line is the config file's own error, or the whole message
        print(f"error: {lines[-1].strip()} (see --help)", file=sys.stderr)
    except Exception as error:  # a config file may raise anything
        print(f"error: the config file fails with {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
    raise SystemExit(1)
