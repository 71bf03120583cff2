"""The main job: every measure at every checkpoint of a pre-training run, resumable checkpoint by checkpoint."""

import dataclasses
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from xlingjax.analyses import health, ladder
from xlingjax.analyses.checkpoints import SERIES, Source
from xlingjax.analyses.claims import claims, pair_classes
from xlingjax.analyses.concept_experts import concept_experts
from xlingjax.corpora.corpus import Corpus
from xlingjax.corpora.tokenising import Tokens, tokenise
from xlingjax.errors import InputError
from xlingjax.files import claim, write_whole
from xlingjax.kernels.traces import persistence
from xlingjax.models import Model, init_params, load_model
from xlingjax.responses.collecting import collect
from xlingjax.responses.planning import plan
from xlingjax.responses.responses import Responses

DENSE_BYTES = 2**30  # responses up to this size are held in memory while they are analysed
