"""Influence of training sequences on what a model says, by EK-FAC."""

from xlingjax.influence.factors import Factors, FactorSettings, fit_factors
from xlingjax.influence.matrices import Matrix, matrices
from xlingjax.influence.scoring import by_token, low_rank, pairwise, self_influence, sequence_gradients
from xlingjax.influence.store import GradientStore, store_gradients

__all__ = ["FactorSettings", "Factors", "GradientStore", "Matrix", "by_token", "fit_factors", "low_rank", "matrices",
           "pairwise", "self_influence", "sequence_gradients", "store_gradients"]
