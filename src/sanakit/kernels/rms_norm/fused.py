"""RMS norms on GPUs with a gradient: torch's own kernel over the channels, which lie side by side in channels last."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.problem import Problem


def unsupported(problem: Problem) -> str | None:
    """Return why this row does not run a problem, or None."""
    if problem.device != "cuda":
        return "is a kernel of CUDA GPUs"
    if not hasattr(torch.ops.aten, "_fused_rms_norm"):
        return f"needs torch 2.9, and this one is {torch.__version__}"
    return None


def rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """As the reference; the norm and its weight are one pass over memory in the dtype of x, forward and backward."""
    # Autocast takes RMS norms to float32, and with them every map that they read and write.
    with torch.autocast(x.device.type, enabled=False):
        out = F.rms_norm(x.permute(0, 2, 3, 1), (x.shape[1],), weight.to(x.dtype), eps)
        out = out if bias is None else out + bias.to(x.dtype)
    out = out.permute(0, 3, 1, 2)
    return out if residual is None else residual + out
