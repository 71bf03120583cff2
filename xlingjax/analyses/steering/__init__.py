"""Which language answers when a concept's neurons are forced? Edits during generation, with their controls."""

from xlingjax.analyses.steering.run import steer
from xlingjax.analyses.steering.settings import SteerSettings

__all__ = ["SteerSettings", "steer"]
