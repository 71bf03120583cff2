"""Settings of every test: offline, cached compilation, shapes checked at run time."""

import gc
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `tolerances`, `references`, `families`

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
_CACHE = Path(tempfile.gettempdir()) / "xlingjax-test-compilation-cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Most of the time of short tests is compilation; `.ci/run` gives the long ones all optimisations.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

jaxtyping.install_import_hook("xlingjax.kernels", "beartype.beartype")
MAPPINGS = 15_000  # of memory in one process; a test file adds up to some thousands


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real multilingual text; tests that need it skip, and say so, without it."""
    folder = Path(os.environ.get("XLINGJAX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "manifest.json").exists():
        pytest.skip(f"real text not found at {folder}; set XLINGJAX_DATA to its folder")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
    """Compiled programs of earlier files are let go before the process has too many.

    Each holds tens of memory mappings; Linux gives a process 65,530 of them (`vm.max_map_count`) and the whole suite
    needs more. Beyond that XLA does not raise, it crashes.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MAPPINGS:
        jax.clear_caches()
        gc.collect()
