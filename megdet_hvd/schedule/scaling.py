"""How the learning rate follows the batch: linear scaling (MegDet §3.2), and two others.

A batch of N̂ = k·N pictures takes the rate r̂, where r suits a batch of N. Smaller batches (k < 1)
scale down by the same rules. σ² is the variance of one picture's gradient, and pictures are
independent, so that

    Var(∇l_N)  = 1/N² · Σ Var(∇l(x_i)) = σ²/N                           eq. (2)
    Var(∇l_kN) = σ²/(k·N)                                               eq. (3)

**linear**, r̂ = k·r, the paper's and the default. In image classification it is justified by
gradients that stay equal over k small steps. In detection they do not: pictures carry different
numbers of boxes. MegDet asks for less, that the *variance* of the weight update over the same
k·N pictures stay equal:

    Var(r · Σ_{t=1..k} ∇l_N^t) = r²·k·Var(∇l_N) = r²·k·σ²/N
        ≈ r̂²·Var(∇l_kN) = r̂²·σ²/(k·N)                                   eq. (4)

The two sides of (4) agree where r̂² = k²·r², that is r̂ = k·r.

**sqrt**, r̂ = √k·r, is not the paper's. It keeps the standard deviation of a *single* step's
update equal, r·σ/√N = r̂·σ/√(k·N), and so gives the pictures of a large batch less to say
altogether. Published by Krizhevsky 2014 (https://arxiv.org/abs/1404.5997) and by Hoffer, Hubara
and Soudry 2017 (https://arxiv.org/abs/1705.08741), for image classification.

**none**, r̂ = r, whatever the batch.
"""

from decimal import Context, Decimal
from typing import Literal, assert_never

from megdet_hvd.schedule.exact import exact

Scaling = Literal["linear", "sqrt", "none"]
"""The three rules."""

_DIGITS = Context(prec=60)
"""Far more than a float has, so that the root is rounded once."""


def linear_scaled_rate(base_rate: float, base_batch: int, global_batch: int) -> float:
    """r̂ = r·N̂/N, rounded once: ``linear_scaled_rate(0.02, 16, 256) == 0.32``."""
    return float(exact(base_rate) * global_batch / base_batch)


def sqrt_scaled_rate(base_rate: float, base_batch: int, global_batch: int) -> float:
    """r̂ = r·√(N̂/N), rounded once: ``sqrt_scaled_rate(0.02, 16, 256) == 0.08``."""
    squared = exact(base_rate) ** 2 * global_batch / base_batch
    quotient = _DIGITS.divide(Decimal(squared.numerator), Decimal(squared.denominator))
    return float(_DIGITS.sqrt(quotient))


def scaled_rate(rule: Scaling, base_rate: float, base_batch: int, global_batch: int) -> float:
    """r̂ by ``rule``, from the rate r = ``base_rate`` for N = ``base_batch`` pictures."""
    if rule == "linear":
        return linear_scaled_rate(base_rate, base_batch, global_batch)
    if rule == "sqrt":
        return sqrt_scaled_rate(base_rate, base_batch, global_batch)
    if rule == "none":
        return base_rate
    assert_never(rule)
