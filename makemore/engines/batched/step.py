"""The training step of N stacked models at once: forward, backward and update.

The gradients are written by hand: fewer kernels than autograd, no memory for a graph of operations, and the choice of
deterministic ones. No kernel adds into one place from several threads: the gradient of the embeddings, which autograd
would scatter with atomics, is a product with the one-hot contexts. Each model's values come from its own row alone,
so what is inf or nan in one model stays there.

Shapes: N models, B examples, T context positions, E embedding features, H hidden units, V symbols, those of the
envelope; `Layout` says why padding needs no mask.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from makemore.engines.base import Envelope
from makemore.engines.batched.draws import dropout_keep
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.plan import BETA2, Knobs, Parts, Plan, StepPlan, TrainSet, make_plan

CHUNK = 16  # steps that share one plan, and one CUDA graph
TINY = 1e-37  # the least float32 that is not denormal is 1.2e-38
MINUS_ONE = torch.tensor(-1.0)


def wide_dtype(device: torch.device) -> torch.dtype:
    """The dtype of learning rates and sums of losses: float64, or float32 on MPS, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def work_shapes(envelope: Envelope, vocab_size: int) -> dict[str, tuple[int, int]]:
    """The shapes of a step's work tensors, for one model."""
    T, E, H, B, V = (
        envelope.block_size,
        envelope.n_embd,
        envelope.n_hidden,
        envelope.batch_size,
        vocab_size,
    )
    shapes = {
        **{
            "e": (B, T * E),
            "h": (B, H),
            "dh": (B, H),
            "logits": (V, B),
            "d": (V, B),
            "de": (T * E, B),
        },
        **{"de_features": (E, T * B), "one_hot": (T * B, V + 1), "dC": (E, V + 1)},
    }
    return {**shapes, "keep": (B, H), "dropped": (B, H)} if envelope.dropout else shapes


def hidden(e: Tensor, W1: Tensor, b1: Tensor, out: Tensor | None = None) -> Tensor:
    """tanh(e W1 + b1), (N, B, H), of stacked models; exactly 0 for padding.

    On a CPU tanh(x) is 2 sigmoid(2 x) - 1, because torch.tanh takes ten times as long there.
    """
    if e.device.type == "cpu":
        x = torch.baddbmm(b1, e, W1, alpha=2, beta=2, out=out)
        return torch.add(MINUS_ONE, x.sigmoid_(), alpha=2, out=x)
    return torch.baddbmm(b1, e, W1, out=out).tanh_()


class Group(NamedTuple):
    """Values that one update covers, of all models: views (N, values); `shown` is `flat` without averages."""

    flat: Tensor
    grad: Tensor
    m: Tensor
    v: Tensor
    update: Tensor
    shown: Tensor


class Step:
    """N models and one training step of all of them.

    Attributes:
        flat, m, v: (N, width) the weights and AdamW's moments, as `Layout` lays a row out.
        shown: (N, width) what is evaluated and kept: the averages of the weights, or flat where none has room for them.
        weights, grads: the parameters, and their gradients of the last step, as `Layout.views`.
        loss_sum: (N,) wide: each model's minibatch losses, summed since it was last set to 0.
        knobs: what else is known of each model.
    """

    def __init__(self, n: int, layout: Layout, train: TrainSet, dtype: torch.dtype) -> None:
        device, envelope = train.stream.device, layout.envelope
        self.layout, self.train, self.knobs = layout, train, Knobs(n, device, wide_dtype(device))
        self.flat, grad, self.m, self.v, update = (
            torch.zeros(n, layout.width, dtype=dtype, device=device) for _ in range(5)
        )
        self.shown = torch.zeros_like(self.flat) if envelope.ema else self.flat
        self.weights, self.grads = layout.views(self.flat), layout.views(grad)
        self._groups = [Group(self.flat, grad, self.m, self.v, update, self.shown)]
        if device.type == "cpu":
            # torch multiplies a batch into a strided result one matrix at a time there, twice as slowly as at once,
            # and a parameter's group stays in the cache from one operation to the next.
            self.grads = {name: view.contiguous() for name, view in self.grads.items()}
            views = [
                self.weights,
                self.grads,
                *(layout.views(x) for x in (self.m, self.v, update, self.shown)),
            ]
            self._groups = [Group(*(of[name].flatten(1) for of in views)) for name in layout.shapes]
        self.loss_sum = torch.zeros(n, dtype=wide_dtype(device), device=device)
        self.table = self.flat.view(
            -1, envelope.n_embd
        )  # every row of every C, and what lies between them
        self._work = {
            name: torch.zeros(n, *shape, dtype=dtype, device=device)
            for name, shape in work_shapes(envelope, layout.vocab_size).items()
        }
        self._of_softmax = torch.zeros(
            3, CHUNK, n, 1, envelope.batch_size, dtype=dtype, device=device
        )
        if envelope.dropout:
            words = torch.zeros(
                2, n, envelope.batch_size, envelope.n_hidden, dtype=torch.int32, device=device
            )
            self._bits, self._scratch = words
        self._symbols = torch.arange(layout.vocab_size + 1, dtype=torch.int32, device=device)

    @torch.inference_mode()
    def chunk(self, k: int, parts: Parts) -> None:
        """Train all rows for k steps, at most CHUNK; a row at rest stays as it is."""
        plan = make_plan(k, self.knobs, self.train, self.layout, self.flat.dtype)
        if "Wd" in self.grads and not parts.direct:
            self.grads["Wd"].zero_()  # of models that were here before
        for i, step in enumerate(plan.steps):
            self._forward(plan, step, parts)
            self._softmax(plan, step, i)
            self._backward(step, parts)
            self._apply(plan, step, parts)
        # -log softmax of the target, by way of the greatest logit and its softmax, which cannot underflow.
        greatest, share, own = self._of_softmax[:, :k]
        losses = (greatest - own).sub_(share.log()).mul_(plan.weights)  # (k, N, 1, B)
        self.loss_sum.add_(losses.sum((0, 2, 3), dtype=self.loss_sum.dtype))
        self.knobs["step"].add_(k)

    def _forward(self, plan: Plan, step: StepPlan, parts: Parts) -> None:
        """The logits (N, V, B); Bengio et al. 2003, eq. 1."""
        p, w = self.weights, self._work
        e, logits = w["e"], w["logits"]
        torch.index_select(self.table, 0, step.table_rows, out=e.view(-1, self.table.shape[1]))
        h = hidden(e, p["W1"], p["b1"], out=w["h"])  # (N, B, H)
        if parts.dropout:
            dropout_keep(step.dropout_keys, plan.dropout, self._bits, self._scratch, w["keep"])
            h = torch.mul(h, w["keep"], out=w["dropped"])
        torch.baddbmm(p["b2"], p["W2"], h.transpose(1, 2), out=logits)  # (N, V, B)
        if parts.direct:
            logits.baddbmm_(p["Wd"], e.transpose(1, 2))

    def _softmax(self, plan: Plan, step: StepPlan, i: int) -> None:
        """The losses' gradient by the logits, d (N, V, B); what the losses themselves need is kept for the chunk."""
        logits, d = self._work["logits"], self._work["d"]
        greatest, share, own = self._of_softmax[:, i]
        torch.amax(logits, 1, keepdim=True, out=greatest)
        torch.gather(logits, 1, step.targets, out=own)
        torch.softmax(logits, 1, out=d)
        torch.amax(d, 1, keepdim=True, out=share)
        d.scatter_(1, step.targets, d.gather(1, step.targets).sub_(1)).mul_(plan.weights)

    def _backward(self, step: StepPlan, parts: Parts) -> None:
        """The gradients of all parameters, from d, that of the logits (N, V, B)."""
        p, g, w = self.weights, self.grads, self._work
        e, h, d, dh, de = w["e"], w["h"], w["d"], w["dh"], w["de"]
        torch.bmm(d, w["dropped"] if parts.dropout else h, out=g["W2"])
        torch.sum(d, 2, keepdim=True, out=g["b2"])
        torch.bmm(d.transpose(1, 2), p["W2"], out=dh)  # (N, B, H)
        if parts.dropout:
            dh.mul_(w["keep"])
        torch.ops.aten.tanh_backward.grad_input(
            dh, h, grad_input=dh
        )  # dh * (1 - h * h) in one pass
        torch.bmm(e.transpose(1, 2), dh, out=g["W1"])
        torch.sum(dh, 1, keepdim=True, out=g["b1"])
        torch.bmm(p["W1"], dh.transpose(1, 2), out=de)  # (N, T * E, B)
        if parts.direct:
            # A model without direct connections has Wd = 0, and only here a gradient would lead away from 0.
            torch.bmm(d, e, out=g["Wd"]).mul_(self.knobs["direct"].view(-1, 1, 1))
            de.baddbmm_(p["Wd"].transpose(1, 2), d)
        self._embedding_gradient(step.codes)

    def _embedding_gradient(self, codes: Tensor) -> None:
        """Sum the gradient of each context position into that of its symbol, as a product with one-hot rows."""
        envelope, w = self.layout.envelope, self._work
        T, E, B = envelope.block_size, envelope.n_embd, envelope.batch_size
        by_feature = w["de_features"]
        by_feature.view(-1, E, T, B).copy_(w["de"].view(-1, T, E, B).transpose(1, 2))
        torch.eq(codes.unsqueeze(1), self._symbols, out=w["one_hot"].view(-1, len(self._symbols)))
        torch.bmm(by_feature, w["one_hot"], out=w["dC"])  # (N, E, V + 1)
        self.grads["C"].copy_(w["dC"].transpose(1, 2))

    def _apply(self, plan: Plan, step: StepPlan, parts: Parts) -> None:
        """SGD, or AdamW (Loshchilov & Hutter 2019, algorithm 2), with weight decay apart from the gradient in both."""
        for flat, grad, m, v, update, shown in self._groups:
            if parts.adamw:
                m.lerp_(grad, plan.blend1)
                v.mul_(plan.beta2).addcmul_(grad, grad, value=1 - BETA2)
                # m / (sqrt(v / c2) + eps) / c1, with sqrt(c2) / c1 in the rate and sqrt(c2) in eps. The root of 0 is
                # slow on a CPU, and TINY is far below what eps adds to it.
                torch.add(v, TINY, out=update).sqrt_().add_(step.eps)
                torch.div(m, update, out=update)
                if parts.sgd:
                    torch.lerp(
                        grad, update, plan.adamw, out=update
                    )  # one or the other: the weight is 0 or 1
            if parts.decay:
                flat.mul_(step.decay)
            flat.addcmul_(update if parts.adamw else grad, step.rate)
            if self.layout.envelope.ema:
                shown.lerp_(flat, step.averaging)  # exactly flat where the weight is 1
