"""The same dictionary in other parameters: what a layout has a switch for and another has not.

Each function returns parameters that give the same reconstruction up to rounding.
"""

from typing import Any

import numpy as np

from xlingjax.errors import InputError
from xlingjax.sae.coder import Params
from xlingjax.sae.config import DictionaryConfig

FREE = ("relu", "gated", "jumprelu")  # kinds whose latents can be scaled one by one


def scaled_input(params: Params, scale: float) -> dict[str, Any]:
    """A dictionary of activations x from one of scale * x; the latents stay as they are."""
    encoder, decoder = params["encoder"], params["decoder"]
    return {**params, "encoder": {**encoder, "kernel": encoder["kernel"] * np.float32(scale)},
            "decoder": {name: values / np.float32(scale) for name, values in decoder.items()}}


def scaled_latents(params: Params, config: DictionaryConfig, factor: np.ndarray) -> dict[str, Any]:
    """Latents f * factor [M] in place of f, and rows of the decoder divided by it."""
    encoder, decoder = params["encoder"], params["decoder"]
    new = {**params, "decoder": {**decoder, "kernel": decoder["kernel"] / factor[:, None]}}
    if config.kind == "gated":  # the gate only says whether; how strong is said apart
        return {**new, "log_scale": params["log_scale"] + np.log(factor),
                "magnitude_bias": params["magnitude_bias"] * factor}
    new["encoder"] = {"kernel": encoder["kernel"] * factor, "bias": encoder["bias"] * factor}
    if config.kind == "jumprelu":
        new["threshold"] = params["threshold"] * factor
    return new


def unit_norm(params: Params, config: DictionaryConfig) -> dict[str, Any]:
    """Rows of the decoder of norm 1, their norms in the latents.

    Raises:
        InputError: of a kind whose choice of latents would change, unless the rows have norm 1 as they are.
    """
    norm = np.linalg.norm(params["decoder"]["kernel"], axis=1)
    if config.kind not in FREE:
        if np.allclose(norm, 1, atol=1e-4):
            return dict(params)
        raise InputError(f"rows of the decoder of this {config.kind} dictionary have norms from {norm.min():.3g} to "
                         f"{norm.max():.3g}, and latents of norm 1 would be other ones; read it without unit_norm")
    return scaled_latents(params, config, np.where(norm > 0, norm, 1).astype(np.float32))


def recentred(params: Params, config: DictionaryConfig, centred: bool) -> dict[str, Any]:
    """Parameters for a dictionary whose input has the decoder's bias taken from it, or not."""
    if config.centred == centred:
        return dict(params)
    encoder = params["encoder"]
    shift = params["decoder"]["bias"] @ encoder["kernel"] * np.float32(1 if centred else -1)
    new = {**params, "encoder": {**encoder, "bias": encoder["bias"] + shift}}
    if config.kind == "gated":
        new["magnitude_bias"] = params["magnitude_bias"] + np.exp(params["log_scale"]) * shift
    return new
