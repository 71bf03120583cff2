"""Which training sequences made a model say something, and do they cross languages."""

from xlingjax.analyses.influence.queries import Queries, halved, read_queries
from xlingjax.analyses.influence.run import trace_influence
from xlingjax.analyses.influence.settings import InfluenceSettings

__all__ = ["InfluenceSettings", "Queries", "halved", "read_queries", "trace_influence"]
