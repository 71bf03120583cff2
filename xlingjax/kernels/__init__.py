"""Statistics on arrays: ranking, experts, overlap, nulls, probes. No model, tokenizer or file."""

from xlingjax.kernels.calibration import fdr_sets
from xlingjax.kernels.experts import expert_sets, marginal_chance, set_overlap, ties_at_cut
from xlingjax.kernels.length import match_length
from xlingjax.kernels.probing import fit_probes, probe_gradients, score_probes
from xlingjax.kernels.ranking import auroc, average_precision
from xlingjax.kernels.resampling import (
    document_bootstrap,
    document_halves,
    equal_counts,
    independent_blocks,
    joint_permutations,
    name_permutations,
)
from xlingjax.kernels.sharing import (
    breadth,
    breadth_chance,
    half_overlaps,
    reliability,
    shared_fraction,
)
from xlingjax.kernels.traces import (
    emergence,
    emergence_interval,
    holm,
    persistence,
    simultaneous_band,
)

__all__ = [
    "auroc", "average_precision", "breadth", "breadth_chance", "document_bootstrap",
    "document_halves", "emergence", "emergence_interval", "equal_counts", "expert_sets",
    "fdr_sets", "fit_probes", "half_overlaps", "holm", "independent_blocks", "joint_permutations",
    "marginal_chance", "match_length", "name_permutations", "persistence", "probe_gradients",
    "reliability", "score_probes", "set_overlap", "shared_fraction", "simultaneous_band",
    "ties_at_cut",
]
