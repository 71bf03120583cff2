"""Random damage to small checkpoints: sound tensors or an `InputError`, and nothing else.

Five seconds by default; `XLINGJAX_FUZZ_SECONDS=600` runs longer, `XLINGJAX_FUZZ_SEED` elsewhere.
"""

import os
import random
import time
import tracemalloc

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from xlingjax.errors import InputError
from xlingjax.models.weights import open_checkpoint

SECONDS = float(os.environ.get("XLINGJAX_FUZZ_SECONDS", 5))
SEED = int(os.environ.get("XLINGJAX_FUZZ_SEED", 0))
BOUND = 32 * 2**20  # bytes that reading a file of a few kilobytes may take at most

FORMATS = {
    "safetensors": ("model.safetensors", save_file),
    "zip": ("pytorch_model.bin", torch.save),
    "legacy": (
        "pytorch_model.bin",
        lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    ),
}
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, ord("."), ord("0"), ord("R"), ord("Q"), ord('"'))


def damage(content: bytes, rng: random.Random) -> bytes:
    """One to four edits: flipped bits, set bytes, cuts, repeats, zeros, large numbers."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not changed:
            break
        at = rng.randrange(min(len(changed), rng.choice((16, 256, len(changed)))))
        size = rng.choice((1, 4, 8, rng.randrange(1, 64)))
        match rng.randrange(7):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at] = rng.choice(INTERESTING)
            case 2:
                del changed[at:]
            case 3:
                del changed[at : at + size]
            case 4:
                changed[at:at] = changed[at : at + size]
            case 5:
                changed[at : at + size] = bytes(len(changed[at : at + size]))
            case 6:
                end = at + size
                changed[at:end] = rng.randbytes(len(changed[at:end]))
    return bytes(changed)


@pytest.mark.promise
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_refused_or_harmless(tmp_path, kind):
    name, save = FORMATS[kind]
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=generator)
    state = {"h.0.weight": base, "h.0.bias": torch.randn(8, generator=generator).half()}
    state["ids"] = torch.arange(4)
    if kind != "safetensors":
        state["view"] = base[1:3, ::2]
    path = tmp_path / name
    save(state, path)
    content = path.read_bytes()
    rng = random.Random(f"{SEED} {kind}")
    end = time.monotonic() + SECONDS / len(FORMATS)
    refused = sound = 0
    while time.monotonic() < end:
        edited = damage(content, rng)
        path.write_bytes(edited)
        started = time.monotonic()
        tracemalloc.start()
        try:
            checkpoint = open_checkpoint(tmp_path)
            arrays = {tensor: checkpoint.read(tensor) for tensor in checkpoint.names}
            for array in arrays.values():
                array.tobytes()  # touches every byte
            assert sum(array.nbytes for array in arrays.values()) <= 4 * len(edited)
            if kind == "zip":  # checksums: what is not refused is what was written
                assert set(arrays) == set(state)
                for tensor, array in arrays.items():
                    np.testing.assert_array_equal(array, state[tensor].numpy())
            sound += 1
        except InputError as error:
            assert name in str(error)
            refused += 1
        except BaseException:
            kept = tmp_path / "failing"
            kept.write_bytes(edited)
            print(f"the failing file is kept at {kept}")
            raise
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < BOUND and time.monotonic() - started < 5, (peak, started)
    assert refused > 10 and sound > 0, (refused, sound)
    print(f"{kind}: {refused} refused, {sound} sound")
