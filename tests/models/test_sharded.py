"""Sharded = one device (P3): the cases of `sharded_cases.py` on eight forced host devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.promise
def test_sharded_equals_one_device() -> None:
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "sharded_cases.py"],
        cwd=TESTS,
        text=True,
        capture_output=True,
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(TESTS.parent)},
    )
    assert done.returncode == 0, done.stdout[-4000:]
