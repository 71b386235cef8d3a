"""Vision-language models behind one protocol: prompts, caches, branches."""
