"""Shape annotations are checked at run time here, and here alone."""

import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that many tests and the processes they start have in common are compiled once, and forgotten with the session.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="sae-stability-programs-"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
# One piece a program: to cut it into pieces that are compiled side by side costs a tenth more, and other tests use the other cores.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=1")

import jax
import pytest
from absl import flags
from jaxtyping import install_import_hook

flags.FLAGS.mark_as_parsed()  # grain and others ask for flags at import
_HOOK = install_import_hook(["activations", "saes", "stability", "synthetic"], "beartype.beartype")


def pytest_unconfigure(config):
    if hasattr(config, "workerinput"):
        return  # one of several processes; the folder is the session's
    if "sae-stability-programs-" in os.environ["JAX_COMPILATION_CACHE_DIR"]:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def free_programs():
    """Programs compiled for one module's tests are let go: each holds memory maps, of which a process may have some ten thousand."""
    yield
    jax.clear_caches()
