"""Interventional supervised fine-tuning of LLM agents, in JAX."""

__version__ = '0.1.0'
