"""Mixtures of experts in every format, as cases."""

from __future__ import annotations

from operation_case import Case, numbers

from pio import ops
from pio.kernels._formats import FORMATS
from pio.ops.expert_weights import ExpertWeights
from pio.ops.routing import Choices
from pio.tensor import Tensor
from pio.testing.strategies import FLOATS

TOKENS, K, EXPERTS, WIDTH, N = 7, 2, 5, 70, 37


def logits(experts=EXPERTS):
    values = [[((t * 7919 + e * 104729) % 997) / 100 - e % 3 for e in range(experts)] for t in range(TOKENS)]
    return Tensor.from_list(values)


def route(x):
    """Return the choices, and the scores that took the place of the logits."""
    made = ops.route(x, out=Choices.empty(TOKENS, K, EXPERTS, x.device), scaling=2.5)
    return made.ids, made.weights, made.order, made.places, made.starts, x


def route_groups(x, bias):
    out = Choices.empty(TOKENS, 3, 12, x.device)
    made = ops.route(x, out=out, bias=bias, groups=4, kept_groups=2, logistic=True, renormalise=False)
    return made.ids, made.weights, made.order, made.places, made.starts


def chosen():
    return ops.route(logits(), out=Choices.empty(TOKENS, K, EXPERTS))


def weights(form, seed):
    plain = [numbers(N, WIDTH, seed=seed + e, dtype=form if form in FLOATS else "float32") for e in range(EXPERTS)]
    return ExpertWeights(plain if form in FLOATS else [ops.pack(w, form) for w in plain])


def projections(form):
    return numbers(TOKENS, WIDTH), chosen(), [weights(form, 3), weights(form, 40)]


def grouped(form):
    return numbers(TOKENS * K, WIDTH, seed=8), chosen(), [weights(form, 3)]


def expert_linears(**options):
    """Return what calls the operation."""

    def call(x, choices, given):
        outs = [Tensor.full((TOKENS * K, N), 7.0, device=x.device) for _ in given]
        ops.expert_linears(x, choices, given, outs, **options)
        return outs

    return call


CASES = {
    "route": Case(route, lambda: (logits(),)),
    "route of groups": Case(route_groups, lambda: (logits(12), numbers(12, seed=3))),
    "add_choices": Case(
        lambda out, y, choices: ops.add_choices(out, y, choices.places, choices.weights),
        lambda: (numbers(TOKENS, N), numbers(TOKENS * K, N, seed=2), chosen()),
    ),
    "expert_linears rounded": Case(expert_linears(rounds=True), lambda: projections("bfloat16"), 1e-5),
}
for form in (*FLOATS, *FORMATS):
    CASES |= {
        f"expert_linears {form}": Case(expert_linears(), lambda form=form: projections(form), 1e-5),
        f"expert_linears of grouped rows {form}": Case(
            expert_linears(grouped=True), lambda form=form: grouped(form), 1e-5
        ),
    }
