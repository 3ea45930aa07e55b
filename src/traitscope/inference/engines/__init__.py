"""Engines that answer prompts elsewhere: vLLM, and models behind an address."""
