"""Who computes a whole model: ours, the plain reference, torch.compile, AdapterHub, LoRA, Adapter-L, the bare model."""
