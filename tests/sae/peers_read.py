"""What the library of a layout makes of dictionaries that we wrote.

`python peers_read.py LAYOUT FOLDER` reads `x.safetensors` in every folder below, and writes `peer.safetensors`.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def latents(layout: str, folder: Path, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if layout == "dictionary_learning":
        from dictionary_learning.utils import load_dictionary

        model, _ = load_dictionary(str(folder), "cpu")
        f = model.encode(x)
        return f, model.decode(f)
    if layout == "saelens":
        from sae_lens import SAE

        model = SAE.load_from_disk(folder)
        return model.encode(x), model(x)
    from sparsify import SparseCoder

    model = SparseCoder.load_from_disk(folder)
    found = model.encode(x)
    return (torch.zeros(len(x), model.num_latents).scatter_(1, found.top_indices, found.top_acts), model(x).sae_out)


if __name__ == "__main__":
    home = Path(sys.argv[2])
    for folder in sorted(path.parent for path in home.rglob("x.safetensors")):
        with torch.no_grad():
            f, y = latents(sys.argv[1], folder, load_file(folder / "x.safetensors")["x"])
        save_file({"f": f.contiguous(), "y": y.contiguous()}, folder / "peer.safetensors")
