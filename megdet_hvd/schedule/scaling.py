"""Linear scaling of the learning rate (MegDet §3.2).

A batch of k·N pictures takes the rate r̂ = k·r, where r suits a batch of N.

In image classification the rule is justified by gradients that stay equal over k small steps.
In detection they do not: pictures carry different numbers of boxes. MegDet asks for less,
that the *variance* of the weight update stay equal. With σ² the variance of one picture's
gradient, and pictures independent:

    Var(∇l_N)  = 1/N² · Σ Var(∇l(x_i)) = σ²/N                           eq. (2)
    Var(∇l_kN) = σ²/(k·N)                                               eq. (3)
    Var(r · Σ_{t=1..k} ∇l_N^t) = r²·k·Var(∇l_N) = r²·k·σ²/N
        ≈ r̂²·Var(∇l_kN) = r̂²·σ²/(k·N)                                   eq. (4)

The two sides of (4) agree where r̂² = k²·r², that is r̂ = k·r.
"""

from megdet_hvd.schedule.exact import exact


def linear_scaled_rate(base_rate: float, base_batch: int, global_batch: int) -> float:
    """r̂ = r·N̂/N, rounded once: ``linear_scaled_rate(0.02, 16, 256) == 0.32``."""
    return float(exact(base_rate) * global_batch / base_batch)
