"""What torch runs eagerly in fp16 for the same work: plain functions, random weights.

Weights do not have to be the model's for its time. Attention is torch's fused one, as a user of
torch would write it today.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def sentence_encoder(
    batch: int, tokens: int, *, layers: int = 6, width: int = 384, heads: int = 12,
    hidden: int = 1536, vocabulary: int = 5832,
) -> Callable[[], Any]:  # fmt: skip
    """MiniLM's shape: embeddings, layers normalized after each half, a mean, a normalization."""
    import torch
    from torch.nn import functional as f

    words, places = _drawn(vocabulary, width), _drawn(512, width)
    weights = [
        [_drawn(*size) for size in ((3 * width, width), (width, width), (hidden, width),
                                    (width, hidden))]
        for _ in range(layers)
    ]  # fmt: skip
    ids = torch.randint(0, vocabulary, (batch, tokens), device="cuda")
    mask = torch.zeros(batch, 1, 1, tokens, device="cuda", dtype=torch.float16)

    def run() -> Any:
        x = f.layer_norm(f.embedding(ids, words) + places[:tokens], (width,))
        for joint, out, up, down in weights:
            x = f.layer_norm(x + f.linear(_attended(x, joint, heads, mask), out), (width,))
            x = f.layer_norm(x + f.linear(f.gelu(f.linear(x, up)), down), (width,))
        return f.normalize(x.float().mean(1), dim=-1)

    return run


def gpt_block(batch: int, tokens: int, *, width: int, heads: int) -> Callable[[], Any]:
    """A block that normalizes before each half, as `gpt.py` writes it for fewbits."""
    import torch
    from torch.nn import functional as f

    x = torch.randn(batch, tokens, width, device="cuda")
    joint, out = _drawn(3 * width, width), _drawn(width, width)
    up, down = _drawn(4 * width, width), _drawn(width, 4 * width)
    mask = torch.full((tokens, tokens), -1e4, device="cuda", dtype=torch.float16).triu(1)

    def run() -> Any:
        y = x.half()
        normal = f.layer_norm(y, (width,))
        y = y + f.linear(_attended(normal, joint, heads, mask), out)
        return (y + f.linear(f.gelu(f.linear(f.layer_norm(y, (width,)), up)), down)).float()

    return run


def _attended(x: Any, joint: Any, heads: int, mask: Any) -> Any:
    from torch.nn import functional as f

    batch, tokens, width = x.shape
    q, k, v = (
        part.view(batch, tokens, heads, -1).transpose(1, 2)
        for part in f.linear(x, joint).chunk(3, -1)
    )
    mixed = f.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return mixed.transpose(1, 2).reshape(batch, tokens, width)


def _drawn(*shape: int) -> Any:
    import torch

    return torch.randn(*shape, device="cuda", dtype=torch.float16) / shape[-1] ** 0.5


def recorded(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same as a CUDA graph of torch's."""
    import torch

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay
