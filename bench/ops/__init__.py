"""An operation a module: what tests, benches and the audit have to know of it, in one place.

Each module has ``Arguments`` (with the names of the schema), ``make`` (random ones), ``formula``
(the same result in plain PyTorch), ``OUTPUTS`` and ``GRADIENTS`` (the names of what the operators
return), ``work``, and the sizes that reach every border of the kernels' blocks.
"""

from __future__ import annotations

from bench.ops import assemble_tokens, embed_patches, gather_patches, norm_pix_loss, tm_attention

OPS = (assemble_tokens, embed_patches, gather_patches, norm_pix_loss, tm_attention)
