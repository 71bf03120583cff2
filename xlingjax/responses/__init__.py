"""Model x corpus -> responses of named neurons: planned, collected, kept on disk."""

from xlingjax.responses.collecting import collect
from xlingjax.responses.planning import Plan, plan
from xlingjax.responses.responses import Responses, from_arrays, open_responses
from xlingjax.responses.states import TokenStates, collect_tokens

__all__ = [
    "Plan",
    "Responses",
    "TokenStates",
    "collect",
    "collect_tokens",
    "from_arrays",
    "open_responses",
    "plan",
]
