"""Flags, parsed so that whatever is wrong with them comes out as one line."""

import io
import os
import re
import sys
from collections import Counter

from absl import flags


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with one line for all that it and the config file raise; refuses a flag given twice and a stray word."""
    argv = [_saved(arg) for arg in argv]
    counts = Counter(arg.split("=")[0].lstrip("-") for arg in argv[1:] if arg.startswith("--"))
    try:
        configs = [arg.removeprefix("--config=").split(":")[0] for arg in argv[1:] if arg.startswith("--config=")]
        if missing := [path for path in configs if not os.path.isfile(path)]:
            raise flags.Error(f"no config file {missing[0]}")
        if repeated := [name for name, count in counts.items() if count > 1]:
            raise flags.Error(f"--{repeated[0]} is given more than once")
        if stray := flags.FLAGS(argv)[1:]:
            raise flags.Error(f"{stray[0]!r} is no flag: all arguments have the form --name=value")
        return argv[:1]
    except AttributeError as error:
        if "module " in str(error) or "object has no attribute" in str(error):  # of the file's own code, not of a field
            print(f"error: the config file fails with AttributeError: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(1) from error
        field_name = " ".join(str(error).replace("\\n", " ").replace("\\'", "").split()).strip("\"'")
        field_name = field_name.replace(" Did you mean", ", did you mean")
        print(f"error: the config has no field {field_name}; `--describe` lists them", file=sys.stderr)
    except (flags.Error, ValueError, OSError) as error:
        print(f"error: {_one_line(error)} (see --help)", file=sys.stderr)
    except Exception as error:  # a config file may raise anything
        print(f"error: the config file fails with {type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
    raise SystemExit(1)


def _saved(arg: str) -> str:
    """A config.json that a run wrote, read by configs/saved.py."""
    path = arg.removeprefix("--config=")
    if path == arg or not path.endswith(".json") or not os.path.isfile(path):
        return arg
    return f"--config={os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'configs', 'saved.py')}:{path}"


def _one_line(error: Exception) -> str:
    """absl puts a trace before a config file's own error: what follows the last `Error:` of it, or the whole message."""
    text = str(error).strip()
    if "Traceback (most recent call last)" in text:
        text = text[text.rfind("Error: ") + len("Error: ") :] if "Error: " in text else text.splitlines()[-1]
    text = " ".join(text.split())
    if number := re.search(r"invalid literal for int\(\) with base 10: (.*?)(?=$| *\))", text):
        return f"{text[: number.start()].rstrip(': ')}: {number[1]} is no whole number".lstrip(": ")
    if flag := re.search(r"\('Non-boolean argument to boolean flag', '(.*)'\)", text):
        return f"{text[: flag.start()].rstrip(': ')}: true or false, not {flag[1]!r}"
    if number := re.search(r"could not convert string to float: (.*)", text):
        return f"{text[: number.start()].rstrip(': ')}: {number[1]} is no number".lstrip(": ")
    return text


def allow_any_terminal() -> None:
    """A terminal or log that has no p̂ gets a question mark in its place."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
