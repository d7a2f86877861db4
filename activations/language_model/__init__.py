"""Language models in JAX: one generic transformer, read from Hugging Face checkpoints."""
