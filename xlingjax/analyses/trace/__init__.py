"""The main job: sharing, probes and health over the checkpoints of a pre-training run."""

from xlingjax.analyses.trace.run import plan_trace, trace, trace_part

__all__ = ["plan_trace", "trace", "trace_part"]
