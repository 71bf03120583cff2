"""Placeholder until `save_model` lands."""

import json
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file


def write_model(config, params, tokenizer, folder: Path) -> None:
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    save_file({jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves},
              folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=1, sort_keys=True))
    tokenizer.save_pretrained(folder)
