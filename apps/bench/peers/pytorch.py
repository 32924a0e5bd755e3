#!/usr/bin/env python3
"""Times one case of the bench suite `cuda` in PyTorch on the same GPU, and prints a line of JSON.

usage: pytorch.py NAME SHAPE

NAME and SHAPE are those of the suite's rows. With mamba_ssm (and causal_conv1d) installed its kernels and models are what is
timed; without it the ops that plain PyTorch has. What neither can do is an error, which the suite reports as an absent peer.
Training: bf16 autocast, f32 weights, fused AdamW, gradients clipped at 1. Generation: mamba_ssm's own, with a CUDA graph.
"""

import json
import re
import sys
import time

import torch

try:
    import mamba_ssm
except ImportError:
    mamba_ssm = None

DEVICE = "cuda"


def versions():
    own = f"torch {torch.__version__.split('+')[0]}"
    return own if mamba_ssm is None else f"{own} + mamba_ssm {mamba_ssm.__version__}"


def needs_mamba(what):
    if mamba_ssm is None:
        raise SystemExit(f"{what} wants mamba_ssm, which is not installed")


def milliseconds(run, seconds=2.0):
    """The median time of a run, by CUDA events, after a warm-up."""
    for _ in range(5):
        run()
    torch.cuda.synchronize()
    times = []
    end = time.monotonic() + seconds
    while len(times) < 5 or time.monotonic() < end:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
        if len(times) >= 200:
            break
    return sorted(times)[len(times) // 2]


def rand(*shape, low=-1.0, high=1.0, dtype=torch.bfloat16):
    return torch.empty(*shape, device=DEVICE, dtype=torch.float32).uniform_(low, high).to(dtype)


def timed(forward, inputs, backward):
    """Forward alone without a tape, or forward and backward."""
    if not backward:
        with torch.no_grad():
            return milliseconds(forward)
    for x in inputs:
        x.requires_grad_(True)
    slopes = torch.randn_like(forward())

    def run():
        for x in inputs:
            x.grad = None
        forward().backward(slopes)

    return milliseconds(run)


def sizes(shape):
    return {key: int(value) for key, value in re.findall(r"([A-Z])(\d+)", shape)}


def ssd(shape, backward):
    needs_mamba("the SSD")
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    n = sizes(shape)
    b, l, h, p, state = n["B"], n["L"], n["H"], n["P"], n["N"]
    f32 = torch.float32
    x, dt = rand(b, l, h, p), rand(b, l, h, low=-4, high=0)
    a, d, bias = rand(h, low=-1.5, high=-0.5, dtype=f32), rand(h, dtype=f32), rand(h, dtype=f32)
    B, C = rand(b, l, 1, state), rand(b, l, 1, state)

    def forward():
        return mamba_chunk_scan_combined(x, dt, a, B, C, chunk_size=256, D=d, dt_bias=bias, dt_softplus=True)

    return timed(forward, [x, dt, a, B, C, d, bias], backward)


def selective_scan(shape, backward):
    needs_mamba("the selective scan")
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    n = sizes(shape)
    b, l, d, state = n["B"], n["L"], n["D"], n["N"]
    f32 = torch.float32
    u, z, delta = rand(b, d, l), rand(b, d, l), rand(b, d, l, low=-4, high=0)
    a, skip, bias = rand(d, state, low=-1.5, high=-0.5, dtype=f32), rand(d, dtype=f32), rand(d, dtype=f32)
    B, C = rand(b, state, l), rand(b, state, l)

    def forward():
        return selective_scan_fn(u, delta, a, B, C, skip, z=z, delta_bias=bias, delta_softplus=True)

    return timed(forward, [u, delta, a, B, C, skip, z, bias], backward)


def conv1d(shape, backward):
    n = sizes(shape)
    x = rand(n["B"], n["L"], n["D"]).transpose(1, 2)
    weight, bias = rand(n["D"], n["W"]), rand(n["D"])
    try:
        from causal_conv1d import causal_conv1d_fn

        def forward():
            return causal_conv1d_fn(x, weight, bias, activation="silu")
    except ImportError:

        def forward():
            padded = torch.nn.functional.pad(x, (n["W"] - 1, 0))
            return torch.nn.functional.silu(torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=n["D"]))

    return timed(forward, [x, weight, bias], backward)


def add_norm(shape, backward):
    rows, d = (int(x) for x in shape.split("x"))
    x, y, weight = rand(rows, d, dtype=torch.float32), rand(rows, d), rand(d, low=0.5, high=1.5, dtype=torch.float32)
    if mamba_ssm is not None:
        from mamba_ssm.ops.triton.layer_norm import rms_norm_fn

        def both():
            return rms_norm_fn(y, weight, None, residual=x, prenorm=True, residual_in_fp32=True, eps=1e-5)
    else:

        def both():
            total = x + y
            return torch.nn.functional.rms_norm(total, (d,), weight, 1e-5).to(y.dtype), total

    if not backward:
        with torch.no_grad():
            return milliseconds(both)
    for tensor in (x, y, weight):
        tensor.requires_grad_(True)
    slopes = [torch.randn_like(out) for out in both()]

    def run():
        for tensor in (x, y, weight):
            tensor.grad = None
        torch.autograd.backward(both(), slopes)

    return milliseconds(run)


def gated_norm(shape, backward):
    rows, d = (int(x) for x in shape.split("x"))
    x, z, weight = rand(rows, d), rand(rows, d), rand(d, low=0.5, high=1.5)
    if mamba_ssm is not None:
        from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn

        def forward():
            return rmsnorm_fn(x, weight, None, z=z, eps=1e-5, norm_before_gate=False)
    else:

        def forward():
            return torch.nn.functional.rms_norm(x * torch.nn.functional.silu(z), (d,), weight, 1e-5)

    return timed(forward, [x, z, weight], backward)


def cross_entropy(shape, backward):
    rows, classes = (int(x) for x in shape.split("x"))
    logits = rand(rows, classes, low=-4, high=4)
    targets = torch.randint(classes, (rows,), device=DEVICE)

    def forward():
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")

    return timed(forward, [logits], backward)


OPS = {
    "ssd": ssd,
    "selective scan": selective_scan,
    "conv1d + SiLU": conv1d,
    "add + RMSNorm": add_norm,
    "gated RMSNorm": gated_norm,
    "cross-entropy": cross_entropy,
}


def model_of(name, shape):
    needs_mamba(name)
    if "Diff" in name:
        raise SystemExit("mamba_ssm has no differential model")
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    d_model, layers = (int(x) for x in re.match(r"d(\d+) (\d+) layers", shape).groups())
    layer = {"layer": "Mamba1" if "Mamba-1" in name else "Mamba2"}
    config = MambaConfig(d_model=d_model, n_layer=layers, vocab_size=50288, ssm_cfg=layer, rms_norm=True, fused_add_norm=True)
    return MambaLMHeadModel(config, device=DEVICE)


def train(name, shape):
    model = model_of(name, shape)
    batch, length = (int(x) for x in re.search(r"(\d+)x(\d+) tokens", shape).groups())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = torch.randint(50288, (batch, length + 1), device=DEVICE)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(DEVICE, torch.bfloat16):
            logits = model(tokens[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return {"ms": milliseconds(step, 5.0), "tokens": batch * length, "peakBytes": torch.cuda.max_memory_allocated()}


def generation(name, shape):
    model = model_of(name, shape).to(torch.bfloat16).eval()
    batch, prompt = (int(re.search(key + r" (\d+)", shape).group(1)) for key in ("batch", "prompt"))
    ids = torch.randint(50288, (batch, prompt), device=DEVICE)

    def run(count):
        torch.cuda.synchronize()
        start = time.monotonic()
        model.generate(ids, max_length=prompt + count, cg=True, top_k=1)
        torch.cuda.synchronize()
        return time.monotonic() - start

    run(64)
    # What the prompt costs falls out of the difference.
    few, many = (min(run(count) for _ in range(3)) for count in (64, 320))
    return {"ms": 1e3 * (many - few) / 256}


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    _, name, shape = sys.argv
    if not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no GPU")
    torch.manual_seed(1)
    kind, _, rest = name.partition(" ")
    if kind == "train":
        answer = train(rest, shape)
    elif kind == "generate":
        answer = generation(rest, shape)
    else:
        op, _, part = name.rpartition(" ")
        if op not in OPS:
            raise SystemExit(f"no such case: {name}")
        answer = {"ms": OPS[op](shape, part == "forward+backward")}
    print(json.dumps({**answer, "with": versions()}))


main()
