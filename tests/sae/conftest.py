"""Tests of dictionaries import `tiny_dictionaries` from their own folder, and the tiny model of `responses`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "responses"))
