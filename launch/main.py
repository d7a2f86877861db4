"""Runs the stages of a config: `python -m launch.main --config=configs/quickstart.py --workdir=runs/quickstart`.

Exit status: 0 done, 1 an error (one line on stderr says what and what to do), 75 stopped by a signal with everything
saved: run the same command again.
"""

import os
import sys

# Before NumPy and JAX load it: the threads of the BLAS behind LAPACK wait for each other in a spin, and beside another busy program
# a batch of small decompositions then takes minutes. With one thread it is no slower on idle cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from absl import app, flags, logging
from etils import epath
from ml_collections import config_flags

from experiments import report
from experiments.data.language_model import LanguageModel
from experiments.settings import Settings
from launch import command_line, failures
from reports import headline
from reports.claims import Claims
from reports.results import Results
from runtime import hosts, interrupts

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Python file of the experiment, with an argument after a colon.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for everything that the run writes.")
_STAGES = flags.DEFINE_list("stages", [], "Run these of the config's stages only.")
_PLAN = flags.DEFINE_bool("plan", False, "Say what the config's stages will cost on the device at hand, and end.")
_PLAN_ON = flags.DEFINE_string("plan_on", "", "With --plan: on a device by its data sheet instead, e.g. h100, tpu-v5e:8.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Share the harvest (--stages=activations) among several hosts that see one workdir, each started with this command. On cloud TPUs and under "
    "Slurm they find each other; elsewhere set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.",
)
_FROM_STAGE = flags.DEFINE_string("from", "", "Run this one of the config's stages and those that depend on it.")
_DESCRIBE = flags.DEFINE_bool("describe", False, "Print all fields of the config with value, default, bounds and meaning, and end.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Throw away results that were made with other settings.")
flags.mark_flags_as_required(["config"])


def main(argv: list[str]) -> int:
    del argv
    command_line.allow_any_terminal()
    logging.set_verbosity(logging.WARNING)
    interrupts.install()
    workdir = epath.Path(_WORKDIR.value or ".")
    try:
        from experiments import registry
        from launch import describe, plan, run

        if _DESCRIBE.value:
            print(describe.text(_CONFIG.value))
            return 0
        settings = registry.validated(_CONFIG.value)
        if _PLAN.value or _PLAN_ON.value:
            lm = settings.get(LanguageModel)
            print(plan.text(settings, plan.hardware(_PLAN_ON.value, lm.dtype if lm is not None else "float32")))
            return 0
        if not _WORKDIR.value:
            raise ValueError("--workdir is missing: the folder for everything that the run writes")
        if _DISTRIBUTED.value:
            hosts.join(settings.stages, _STAGES.value)
        run.run(_CONFIG.value, settings, workdir, _STAGES.value, _FROM_STAGE.value, _OVERWRITE.value)
        if _DISTRIBUTED.value:
            hosts.leave()
        _show(settings, workdir)
    except interrupts.Stopped as stopped:
        print(f"{stopped}; run the same command again to go on", file=sys.stderr)
        return interrupts.EXIT_STOPPED
    except KeyboardInterrupt:
        print("stopped at once by a second signal; what was saved stands", file=sys.stderr)
        return 130
    except Exception as error:
        print(f"error: {failures.line(error, _WORKDIR.value or '.')}", file=sys.stderr)
        return 1
    return 0


def _show(settings: Settings, workdir: epath.Path) -> None:
    """The short table of a run that ended, and where its page is."""
    results = Results(workdir, settings.stages)
    if "pooled" in results.summary:
        from experiments.pooling import page

        page.show(results)
    elif "stability" in results.summary and "report" in settings.stages:
        headline.show(results, report.rows(results), report.remarks(results, settings[Claims]))
    else:
        headline.show_page(results)


def _main_and_exit(argv: list[str]) -> None:
    """Leaves without running native libraries' exit handlers: about one run in twenty one of them aborted when all was done."""
    status = main(argv)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    app.run(_main_and_exit, flags_parser=command_line.parse_flags)
