"""The training step of N stacked models at once: forward, backward and update.

`Step.chunk` repeats one step: `_forward` (logits), `_softmax` (gradient of the logits), `_backward`
(gradients of the output layer, the first layer and the embeddings) and `_apply` (update).

The gradients are written by hand. This needs fewer kernels than autograd and no memory for a graph
of operations, and it allows only deterministic kernels. No kernel adds to one address from several
threads: autograd would scatter the gradient of the embeddings with atomics, here it is a product
with the one-hot contexts. Each model's values come from its own row only, so an inf or nan stays in
its model.

Shapes: N models, B examples, T context positions, E embedding features, H hidden units, V symbols,
with the sizes of the envelope. `Layout` explains why the padding needs no mask. Not run on a GPU
yet.
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
TINY = 1e-37  # the smallest float32 that is not denormal is 1.2e-38
MINUS_ONE = torch.tensor(-1.0)


def wide_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of learning rates and sums of losses: float64, or float32 on MPS.

    MPS has no float64.
    """
    return torch.float32 if device.type == "mps" else torch.float64


def work_shapes(envelope: Envelope, vocab_size: int) -> dict[str, tuple[int, int]]:
    """Return the shapes of a step's work tensors, for one model."""
    T = envelope.block_size
    E = envelope.n_embd
    H = envelope.n_hidden
    B = envelope.batch_size
    V = vocab_size
    shapes = {
        "e": (B, T * E),  # embeddings of the contexts
        "h": (B, H),  # hidden units before dropout
        "logits": (V, B),
        "dlogits": (V, B),
        "dh": (B, H),
        "de": (T * E, B),
        "de_by_feature": (E, T * B),
        "one_hot": (T * B, V + 1),
        "dC": (E, V + 1),
    }
    if envelope.dropout:
        shapes["keep"] = (B, H)
        shapes["dropped"] = (B, H)  # h * keep
    return shapes


def hidden(e: Tensor, W1: Tensor, b1: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the hidden units tanh(e W1 + b1), (N, B, H), of stacked models; 0 for padding.

    On a CPU this uses tanh(x) = 2 sigmoid(2 x) - 1, because torch.tanh takes ten times as long.
    """
    if e.device.type == "cpu":
        x = torch.baddbmm(b1, e, W1, alpha=2, beta=2, out=out)
        return torch.add(MINUS_ONE, x.sigmoid_(), alpha=2, out=x)
    return torch.baddbmm(b1, e, W1, out=out).tanh_()


class Group(NamedTuple):
    """Values of all models that are updated together: views (N, values).

    `eval_weights` is `flat` itself if no model averages its weights.
    """

    flat: Tensor
    grad: Tensor
    m: Tensor
    v: Tensor
    update: Tensor
    eval_weights: Tensor


class Step:
    """N models and one training step of all of them.

    Attributes:
        flat, m, v: (N, width) the weights and AdamW's moments, in the layout of `Layout`.
        eval_weights: (N, width) the weights to evaluate and keep: the averages of the weights, or
            `flat` itself if the envelope has no averages.
        weights, grads: the parameters, and their gradients of the last step, as `Layout.views`.
        loss_sum: (N,) in `wide_dtype`: the sum of each model's minibatch losses, in nats, since it
            was last set to 0.
        knobs: the hyperparameters and step counts of the rows.
        table: (N * width / E, E) view of `flat` that has the embeddings of all models as rows.
    """

    def __init__(self, n: int, layout: Layout, train: TrainSet, dtype: torch.dtype) -> None:
        device = train.stream.device
        envelope = layout.envelope
        self.layout = layout
        self.train = train
        self.knobs = Knobs(n, device, wide_dtype(device))
        self.flat, grad, self.m, self.v, update = (
            torch.zeros(n, layout.width, dtype=dtype, device=device) for _ in range(5)
        )
        self.eval_weights = torch.zeros_like(self.flat) if envelope.ema else self.flat
        self.weights = layout.views(self.flat)
        self.grads = layout.views(grad)
        self._groups = [Group(self.flat, grad, self.m, self.v, update, self.eval_weights)]
        if device.type == "cpu":
            self._group_by_parameter(update)
        self.loss_sum = torch.zeros(n, dtype=wide_dtype(device), device=device)
        self.table = self.flat.view(-1, envelope.n_embd)

        B = envelope.batch_size
        self._work = {
            name: torch.zeros(n, *shape, dtype=dtype, device=device)
            for name, shape in work_shapes(envelope, layout.vocab_size).items()
        }
        # The largest logit, its softmax, and the target's logit, for each step of a chunk.
        self._of_softmax = torch.zeros(3, CHUNK, n, 1, B, dtype=dtype, device=device)
        if envelope.dropout:
            words = torch.zeros(2, n, B, envelope.n_hidden, dtype=torch.int32, device=device)
            self._bits, self._scratch = words
        self._symbols = torch.arange(layout.vocab_size + 1, dtype=torch.int32, device=device)

    def _group_by_parameter(self, update: Tensor) -> None:
        """Make each parameter a group and its gradient contiguous; faster on a CPU.

        There torch multiplies a batch into a strided result one matrix at a time, which takes twice
        as long. And the values of one parameter stay in the cache between two operations.
        """
        self.grads = {name: view.contiguous() for name, view in self.grads.items()}
        others = [self.layout.views(x) for x in (self.m, self.v, update, self.eval_weights)]
        views = [self.weights, self.grads, *others]
        self._groups = [
            Group(*(view[name].flatten(1) for view in views)) for name in self.layout.shapes
        ]

    @torch.inference_mode()
    def chunk(self, k: int, parts: Parts) -> None:
        """Train all rows for k steps, at most CHUNK; inactive rows do not change."""
        plan = make_plan(k, self.knobs, self.train, self.layout, self.flat.dtype)
        if "Wd" in self.grads and not parts.direct:
            self.grads["Wd"].zero_()  # left by models that were in these rows before
        for i, step in enumerate(plan.steps):
            self._forward(plan, step, parts)
            self._softmax(plan, step, i)
            self._backward(step, parts)
            self._apply(plan, step, parts)

        # The loss is -log softmax of the target. It is computed from the softmax of the largest
        # logit, which cannot underflow.
        largest, share, own = self._of_softmax[:, :k]
        losses = (largest - own).sub_(share.log()).mul_(plan.weights)  # (k, N, 1, B)
        self.loss_sum.add_(losses.sum((0, 2, 3), dtype=self.loss_sum.dtype))
        self.knobs["step"].add_(k)

    def _forward(self, plan: Plan, step: StepPlan, parts: Parts) -> None:
        """Compute the logits (N, V, B); Bengio et al. 2003, eq. 1."""
        p = self.weights
        w = self._work
        e = w["e"]
        logits = w["logits"]
        torch.index_select(self.table, 0, step.table_rows, out=e.view(-1, self.table.shape[1]))
        h = hidden(e, p["W1"], p["b1"], out=w["h"])  # (N, B, H)
        if parts.dropout:
            dropout_keep(step.dropout_keys, plan.dropout, self._bits, self._scratch, w["keep"])
            h = torch.mul(h, w["keep"], out=w["dropped"])
        torch.baddbmm(p["b2"], p["W2"], h.transpose(1, 2), out=logits)  # (N, V, B)
        if parts.direct:
            logits.baddbmm_(p["Wd"], e.transpose(1, 2))

    def _softmax(self, plan: Plan, step: StepPlan, i: int) -> None:
        """Compute the gradient of the logits, dlogits (N, V, B), and the inputs of the losses.

        The losses are those of the true targets, also with a teacher.

        Args:
            i: number of the step in its chunk; `chunk` computes all losses of a chunk at once.
        """
        logits = self._work["logits"]
        dlogits = self._work["dlogits"]
        largest, share, own = self._of_softmax[:, i]
        torch.amax(logits, 1, keepdim=True, out=largest)
        torch.gather(logits, 1, step.targets, out=own)
        torch.softmax(logits, 1, out=dlogits)
        torch.amax(dlogits, 1, keepdim=True, out=share)
        soft = self.train.soft
        target = dlogits.gather(1, step.targets).sub_(1 if soft is None else soft.true_weight)
        dlogits.scatter_(1, step.targets, target)
        if soft is not None:
            targets = soft.table.index_select(0, step.soft_rows)  # (N * B, V)
            N, V, B = dlogits.shape
            dlogits.sub_(targets.view(N, B, V).transpose(1, 2))
        dlogits.mul_(plan.weights)

    def _backward(self, step: StepPlan, parts: Parts) -> None:
        """Compute the gradients of all parameters from dlogits (N, V, B)."""
        p = self.weights
        g = self.grads
        w = self._work
        e, h, dlogits, dh, de = (w[name] for name in ("e", "h", "dlogits", "dh", "de"))

        # The output layer: W2 and b2, then the hidden units.
        torch.bmm(dlogits, w["dropped"] if parts.dropout else h, out=g["W2"])
        torch.sum(dlogits, 2, keepdim=True, out=g["b2"])
        torch.bmm(dlogits.transpose(1, 2), p["W2"], out=dh)  # (N, B, H)
        if parts.dropout:
            dh.mul_(w["keep"])

        # The first layer: W1 and b1, then the embeddings. tanh_backward is dh * (1 - h * h) in one
        # pass.
        torch.ops.aten.tanh_backward.grad_input(dh, h, grad_input=dh)
        torch.bmm(e.transpose(1, 2), dh, out=g["W1"])
        torch.sum(dh, 1, keepdim=True, out=g["b1"])
        torch.bmm(p["W1"], dh.transpose(1, 2), out=de)  # (N, T * E, B)

        if parts.direct:
            # A model without direct connections has Wd = 0. Its gradient is not 0, so mask it.
            torch.bmm(dlogits, e, out=g["Wd"]).mul_(self.knobs["direct"].view(-1, 1, 1))
            de.baddbmm_(p["Wd"].transpose(1, 2), dlogits)
        self._embedding_gradient(step.codes)

    def _embedding_gradient(self, codes: Tensor) -> None:
        """Sum the gradients of all context positions by symbol, as a product with one-hot rows.

        Args:
            codes: (N * T * B,) int32, `StepPlan.codes`.
        """
        w = self._work
        T = self.layout.envelope.block_size
        E = self.layout.envelope.n_embd
        B = self.layout.envelope.batch_size
        by_feature = w["de_by_feature"]
        by_feature.view(-1, E, T, B).copy_(w["de"].view(-1, T, E, B).transpose(1, 2))
        torch.eq(codes.unsqueeze(1), self._symbols, out=w["one_hot"].view(-1, len(self._symbols)))
        torch.bmm(by_feature, w["one_hot"], out=w["dC"])  # (N, E, V + 1)
        self.grads["C"].copy_(w["dC"].transpose(1, 2))

    def _apply(self, plan: Plan, step: StepPlan, parts: Parts) -> None:
        """Update the weights by SGD or AdamW, both with decoupled weight decay.

        Source: Loshchilov & Hutter 2019, algorithms 1 and 2.
        """
        for flat, grad, m, v, update, eval_weights in self._groups:
            if parts.adamw:
                m.lerp_(grad, plan.blend1)
                v.mul_(plan.beta2).addcmul_(grad, grad, value=1 - BETA2)
                # m / (sqrt(v / c2) + eps) / c1, with sqrt(c2) / c1 in the rate and sqrt(c2) in eps.
                # TINY avoids the root of 0, which is slow on a CPU; eps is far above its effect.
                torch.add(v, TINY, out=update).sqrt_().add_(step.eps)
                torch.div(m, update, out=update)
                if parts.sgd:
                    # The weight is 0 or 1, so this selects one of the two.
                    torch.lerp(grad, update, plan.adamw, out=update)
            if parts.decay:
                flat.mul_(step.decay)
            flat.addcmul_(update if parts.adamw else grad, step.rate)
            if self.layout.envelope.ema:
                eval_weights.lerp_(flat, step.averaging)  # exactly flat where the weight is 1
