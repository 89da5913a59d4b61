"""Who computes a whole model: ours, the plain reference, torch.compile, AdapterHub, LoRA, Adapter-L, the bare model."""

from adapter_fast.benchmarks.peers.contenders import model_contenders

__all__ = ["model_contenders"]
